"""The end of a trial: outcome.json, composed from what its ranks left, written last, and read again.

    trials/<trial-id>/trial.json         the Trial
                      rank-00000.jsonl   one line per step of that rank
                      rank-00000.json    that rank's report: times, cores, versions, hardware
                      rank-00000.log     stdout and stderr
                      rank-00000.alive   touched by the step loop at most once a second
                      rank-00000.exit    how it ended, where a keeper stood beside it (jobs/rank/keeper.py)
                      telemetry-HOST.jsonl   what that node's sampler saw (jobs/telemetry/sampler.py)
                      outcome.json       written last, atomically

A trial without `outcome.json` did not finish. docs/results-format.md is the same for readers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jobs.contract.catalog import STRATEGIES
from jobs.contract.exits import Status, last_lines
from jobs.contract.files import RankExit, write_atomically
from jobs.contract.folder import read_trial
from jobs.contract.report import AccuracyPoint, AccuracyReached, RankReport, Record, read_rank_report

FORMAT = 1
OUTCOME = "outcome.json"


class Outcome(Record):
    """The end of a trial. `error` is one line for people; empty when `status` is "ok".

    `job` is the scheduler's name for what it ran in, None where there is no scheduler.
    `order` counts launches over the study, so drift over time can be seen. `communication` is
    "none" (base case), "native" or "horovod". `started` and `ended` are UTC, ISO 8601. `concurrent`:
    another trial of the study ran at the same time. `base_case` is the strategy whose run with one worker
    the speedup is over. `timing_granularity` is steps per reading of the clock: above 1 each step line
    holds its share of a reading, so that percentiles are of calls. `emulated`: CPU devices stood in for the
    cores of a TPU.
    """

    format: int = FORMAT
    trial_id: str
    status: Status
    error: str = ""
    framework: str
    communication: str
    base_case: str | None = None
    launcher: str
    job: str | None = None
    order: int
    concurrent: bool = False
    emulated: bool = False
    timing_granularity: int = 1
    started: str
    ended: str
    workers: int
    startup_seconds: float | None = None
    first_step_seconds: float | None = None
    test_accuracy: float | None = None
    accuracy_reached: AccuracyReached | None = None
    accuracy_curve: list[AccuracyPoint] | None = None
    hosts: list[str] = []
    exits: list[RankExit] = []
    ranks: list[RankReport] = []
    versions: dict[str, str] = {}
    hardware: dict[str, Any] = {}
    environment: dict[str, str] = {}
    container: str | None = None
    commit: str | None = None

    @property
    def seconds(self) -> float:
        """From the start of the trial to its end."""
        return (datetime.fromisoformat(self.ended) - datetime.fromisoformat(self.started)).total_seconds()


class UnreadableOutcome(ValueError):
    """`outcome.json` is there but cannot be trusted; the message says why."""


def now() -> str:
    """UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def conclude(
    folder: Path,
    *,
    status: Status,
    error: str,
    launcher: str,
    order: int,
    started: str,
    exits: Sequence[RankExit],
    job: str | None = None,
    concurrent: bool = False,
    ended: str | None = None,
) -> Outcome:
    """Compose and write `outcome.json`, now, from what the ranks left in `folder`. `ended` is now if not given.

    A trial that is said to be "ok" but lacks a rank's report becomes "failed": no outcome claims
    more than its files hold.
    """
    trial = read_trial(folder)
    info = STRATEGIES[trial.strategy]
    reports = [r for r in (read_rank_report(folder, rank) for rank in range(trial.processes)) if r]
    if status == "ok" and len(reports) < trial.processes:
        there = {r.rank for r in reports}
        absent = [r for r in range(trial.processes) if r not in there]
        status, error = "failed", f"no report from rank {', '.join(map(str, absent))}"
    if status != "ok":
        exits = [replace(e, last_lines=last_lines(folder, e.rank)) for e in exits]
    first = reports[0] if reports else None
    outcome = Outcome(
        trial_id=trial.id,
        status=status,
        error=error,
        framework=info.framework,
        communication=info.communication,
        base_case=info.base_case,
        emulated=trial.tpu == "emulated",
        timing_granularity=trial.recipe.steps_per_call,
        launcher=launcher,
        job=job,
        order=order,
        concurrent=concurrent,
        started=started,
        ended=ended or now(),
        workers=trial.workers,
        startup_seconds=max((r.startup_seconds for r in reports), default=None),
        first_step_seconds=max((r.first_step_seconds for r in reports), default=None),
        test_accuracy=first.test_accuracy if first else None,
        accuracy_reached=first.accuracy_reached if first else None,
        accuracy_curve=first.accuracy_curve if first else None,
        hosts=sorted({r.host for r in reports}),
        exits=sorted(exits, key=lambda e: e.rank),
        ranks=reports,
        versions=first.versions if first else {},
        hardware=first.hardware if first else {},
        environment=first.environment if first else {},
        container=first.container if first else None,
        commit=first.commit if first else None,
    )
    write_atomically(folder / OUTCOME, outcome.model_dump_json(indent=1) + "\n")
    return outcome


def read_outcome(folder: Path) -> Outcome | None:
    """The outcome of the trial in `folder`, None if it did not finish.

    Raises UnreadableOutcome if the file is damaged, of a newer format, or of another trial.
    """
    path = folder / OUTCOME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UnreadableOutcome(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(content, dict):
        raise UnreadableOutcome(f"{path}: not a JSON object")
    written = content.get("format")
    if not isinstance(written, int) or written > FORMAT:
        raise UnreadableOutcome(f"{path}: format {written!r}; this version reads up to {FORMAT}")
    try:
        outcome = Outcome.model_validate(content)
    except ValidationError as error:
        raise UnreadableOutcome(f"{path}: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from None
    if outcome.trial_id != folder.name:
        raise UnreadableOutcome(f"{path}: belongs to trial {outcome.trial_id}")
    return outcome
