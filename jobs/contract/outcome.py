"""The end of a trial: outcome.json, composed from what its ranks left, written last, and read again.

    trials/<trial-id>/trial.json         the Trial
                      rank-00000.jsonl   one line per step of that rank
                      rank-00000.json    that rank's report: times, cores, versions, hardware
                      rank-00000.log     stdout and stderr
                      rank-00000.alive   touched by the step loop at most once a second
                      rank-00000.exit    how it ended, where a keeper stood beside it (jobs/rank/keeper.py)
                      base-64.jsonl, .json, .log     the base case beside, on batches of 64 (jobs/beside)
                      telemetry-HOST.jsonl   what that node's sampler saw (jobs/telemetry/sampler.py)
                      outcome.json       written last, atomically

A trial without `outcome.json` did not finish. docs/results-format.md is the same for readers.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jobs.contract.catalog import STRATEGIES
from jobs.contract.exits import Status, last_lines
from jobs.contract.files import TRIAL, RankExit, base_file, look_afresh, rank_file, write_atomically
from jobs.contract.folder import Sum, differing, sum_of
from jobs.contract.report import AccuracyPoint, AccuracyReached, RankReport, Record, rank_report
from jobs.contract.trial import Trial

FORMAT = 2  # the newest that is read; a launch is of the oldest that can hold it
OUTCOME = "outcome.json"
SETTLE_SECONDS = 2.0  # that a shared file system has to show here what the ranks of a trial wrote elsewhere


class Outcome(Record):
    """The end of a trial. `error` is one line for people; empty when `status` is "ok".

    `job` is the scheduler's name for what it ran in, None where there is no scheduler.
    `order` counts launches over the study, so drift over time can be seen. `communication` is
    "none" (base case), "native" or "horovod". `started` and `ended` are UTC, ISO 8601. `concurrent`:
    another trial of the study ran at the same time. `base_case` is the strategy whose run with one worker
    the speedup is over. `timing_granularity` is steps per reading of the clock: above 1 each step line
    holds its share of a reading, so that percentiles are of calls. `emulated`: CPU devices stood in for the
    cores of a TPU. `base_beside` are batches on which the base case ran beside. `sums` are of the
    files that it stands on (jobs/contract/folder.py), None in results of before.
    """

    format: int = 1
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
    base_beside: list[int] = []
    sums: dict[str, Sum] | None = None

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
    more than its files hold. Of the files that are read for it, the sums are those of what was read.
    """
    text = (folder / TRIAL).read_bytes()
    trial = Trial.model_validate_json(text)
    info = STRATEGIES[trial.strategy]
    if status == "ok":
        _settle(folder, trial.processes)
    texts = {TRIAL: text} | _reports(folder, trial.processes)
    reports = [r for name, content in texts.items() if name != TRIAL and (r := rank_report(content))]
    sums = {name: Sum.of(content) for name, content in texts.items()} | _sums(folder, trial)
    if status == "ok" and len(reports) < trial.processes:
        there = {r.rank for r in reports}
        absent = [r for r in range(trial.processes) if r not in there]
        status, error = "failed", f"no report from rank {', '.join(map(str, absent))}"
    elif status == "ok" and (
        absent := [r for r in range(trial.processes) if rank_file(folder, r, "jsonl").name not in sums]
    ):
        status, error = "failed", f"no step lines from rank {', '.join(map(str, absent))}"
    elif status == "ok" and (
        absent := [
            b for b in trial.base_batches if any(base_file(folder, b, e).name not in sums for e in ("jsonl", "json"))
        ]
    ):
        status, error = "failed", f"no base case beside on batches of {', '.join(map(str, absent))}"
    if status != "ok":
        exits = [replace(e, last_lines=last_lines(folder, e.rank)) for e in exits]
    first = reports[0] if reports else None
    outcome = Outcome(
        format=trial.format,
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
        base_beside=list(trial.base_batches),
        sums=sums,
    )
    write_atomically(folder / OUTCOME, outcome.model_dump_json(indent=1) + "\n")
    return outcome


def _settle(folder: Path, processes: int) -> None:
    """Wait until all that the ranks of a trial that has ended well have written is seen here, or for SETTLE_SECONDS."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while not all(_whole(folder, rank) for rank in range(processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
        look_afresh(folder)


def _whole(folder: Path, rank: int) -> bool:
    """Whether the rank's report is there, which it writes last, and its step lines to the end of one."""
    try:
        with rank_file(folder, rank, "jsonl").open("rb") as lines:
            size = lines.seek(0, os.SEEK_END)
            lines.seek(max(0, size - 1))
            return lines.read() in (b"", b"\n") and rank_file(folder, rank, "json").exists()
    except OSError:
        return False


def _reports(folder: Path, processes: int) -> dict[str, bytes]:
    """Name ─▶ content of the ranks' reports that are there."""
    found = {}
    for path in (rank_file(folder, rank, "json") for rank in range(processes)):
        with suppress(OSError):
            found[path.name] = path.read_bytes()
    return found


def _sums(folder: Path, trial: Trial) -> dict[str, Sum]:
    """Of the step lines, of what the base case beside left, and of the telemetry, as far as they are there."""
    found = {}
    ranks = [rank_file(folder, rank, "jsonl") for rank in range(trial.processes)]
    for path in [*ranks, *(base_file(folder, batch, e) for batch in trial.base_batches for e in ("jsonl", "json"))]:
        with suppress(OSError):
            found[path.name] = sum_of(path)
    for path in folder.glob("telemetry-*.jsonl"):
        with suppress(OSError):
            # Its sampler may be at its last words, and what another machine is writing have gaps here (nfs(5)).
            found[path.name] = Sum.of(path.read_bytes().partition(b"\0")[0])
    return found


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


def untrue(folder: Path, outcome: Outcome) -> str:
    """Which of the files that `outcome` stands on are not what they were then, "" if none is or it does not say."""
    return "" if outcome.sums is None else differing(folder, outcome.sums, ended_well=outcome.status == "ok")
