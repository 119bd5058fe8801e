"""How far a study has come, read from its results folder alone."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from cluster.launcher import State
from cluster.study.schema import StudyError
from jobs.contract.outcome import UnreadableOutcome, read_outcome, untrue

# As analysis/report/captions.py has it.
NO_SUMS = "were measured before outcomes carried sums of their files; nothing tells whether these are as they were"


@dataclass(frozen=True)
class PointStatus:
    """One point of the plan. `trouble` is the newest launch's fault, empty if there is none; `without_sums` launches
    are done that do not tell whether their files are as they were."""

    point: str
    planned: int
    ok: int
    unfinished: int
    trouble: str
    without_sums: int = 0


def status(folder: Path) -> list[PointStatus]:
    """The state of every planned point. Raises StudyError if `folder` holds no study's results."""
    try:
        plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        points, planned = list(plan["points"]), int(plan["repeats"])
    except FileNotFoundError:
        raise StudyError([f"{folder}: no plan.json there; name the results folder of a study"]) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError([f"{folder / 'plan.json'}: cannot be read ({error})"]) from None
    counts: dict[str, Counter[str]] = {point: Counter() for point in points}
    troubles: dict[str, str] = {}
    for path in sorted((folder / "trials").glob("*-r*")):
        point = path.name.rpartition("-r")[0]
        if point not in counts:
            continue
        try:
            outcome = read_outcome(path)
        except UnreadableOutcome as error:
            troubles[point] = str(error)
            continue
        if outcome and (differs := untrue(path, outcome)):
            troubles[point] = f"{path.name} is left out: {differs}"
            continue
        state = outcome.status if outcome else "unfinished"
        counts[point][state] += 1
        counts[point]["without sums"] += outcome is not None and outcome.status == "ok" and not outcome.sums
        if outcome and outcome.status != "ok":
            troubles[point] = f"{outcome.status}: {outcome.error}"
    return [
        PointStatus(p, planned, c["ok"], c["unfinished"], troubles.get(p, ""), c["without sums"])
        for p, c in counts.items()
    ]


def given_up(folder: Path) -> list[str]:
    """What the last run has left out as others like it had failed, one line each; read after `status`."""
    lines = json.loads((folder / "plan.json").read_text(encoding="utf-8")).get("given_up", [])
    return [str(line) for line in lines] if isinstance(lines, list) else []


def render_running(running: dict[str, State]) -> Table:
    """The trials that a scheduler has, each with its job, its state, the reason and the nodes."""
    table = Table(title=f"{len(running)} launches are with the scheduler")
    for name in ("launch", "job", "state", "reason", "nodes"):
        table.add_column(name, overflow="fold", no_wrap=name in ("launch", "job"))
    for trial_id, state in running.items():
        table.add_row(trial_id, *map(Text, (state.job, state.text, state.reason, state.nodes)))
    return table


def render(states: list[PointStatus]) -> Table:
    done = sum(min(s.ok, s.planned) for s in states)
    table = Table(title=f"{done} of {sum(s.planned for s in states)} planned launches are done")
    table.add_column("point", no_wrap=True)
    for name in ("done", "planned", "unfinished"):
        table.add_column(name, justify="right")
    table.add_column("trouble", overflow="fold")
    for s in states:
        table.add_row(s.point, str(s.ok), str(s.planned), str(s.unfinished or ""), Text(s.trouble, style="red"))
    return table


def without_sums(states: list[PointStatus]) -> str:
    """What cannot be told of the launches that are done, "" if all can be."""
    count, done = sum(s.without_sums for s in states), sum(s.ok for s in states)
    return f"{count} of {done} launches {NO_SUMS}" if count else ""
