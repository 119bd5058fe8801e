"""How far a study has come, read from its results folder alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from cluster.launcher import State
from cluster.study.schema import StudyError
from jobs.contract.outcome import Outcome, UnreadableOutcome, read_outcome, untrue


@dataclass(frozen=True)
class PointStatus:
    """One point of the plan. `trouble` is the newest launch's fault, empty if there is none."""

    point: str
    planned: int
    ok: int
    unfinished: int
    trouble: str


def planned(folder: Path) -> tuple[list[str], int]:
    """The points of the plan, and how many launches each is to have. Raises StudyError if `folder` holds none."""
    try:
        plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        return list(plan["points"]), int(plan["repeats"])
    except FileNotFoundError:
        raise StudyError([f"{folder}: no plan.json there; name the results folder of a study"]) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError([f"{folder / 'plan.json'}: cannot be read ({error})"]) from None


def status(folder: Path, differing: Callable[[Path, Outcome], str] = untrue) -> list[PointStatus]:
    """The state of every planned point; `differing` says of a launch which file is not what it was. Raises StudyError
    if `folder` holds no study's results."""
    points, wanted = planned(folder)
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
        if outcome and (differs := differing(path, outcome)):
            troubles[point] = f"{path.name} is left out: {differs}"
            continue
        state = outcome.status if outcome else "unfinished"
        counts[point][state] += 1
        if outcome and outcome.status != "ok":
            troubles[point] = f"{outcome.status}: {outcome.error}"
    return [PointStatus(p, wanted, c["ok"], c["unfinished"], troubles.get(p, "")) for p, c in counts.items()]


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
