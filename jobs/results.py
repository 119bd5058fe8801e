"""The results format of one trial: what its folder holds, how it is written, how it is read.

    trials/<trial-id>/trial.json         the Trial
                      rank-00000.jsonl   one line per step of that rank
                      rank-00000.json    that rank's report: times, cores, versions, hardware
                      rank-00000.log     stdout and stderr
                      rank-00000.alive   touched by the step loop at most once a second
                      rank-00000.exit    how it ended, where a keeper stood beside it (jobs/guard.py)
                      telemetry-HOST.jsonl   what that node's sampler saw (jobs/telemetry.py)
                      outcome.json       written last, atomically

A trial without `outcome.json` did not finish. docs/results-format.md is the same for readers.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from jobs.files import TRIAL, RankExit, rank_file, write_atomically
from jobs.strategies import STRATEGIES, base_case
from jobs.trial import Trial

FORMAT = 1
OUTCOME = "outcome.json"

STOOD_STILL = re.compile(r"Timeout \(\d+:\d+:\d+(\.\d+)?\)!")  # as faulthandler writes it
Phase = Literal["train", "compute_only", "accuracy", "infer", "ingest"]
# ok: complete. failed: a rank died. timeout: a limit of the trial struck. cancelled: by the user.
# lost: the launcher lost sight of it (its node or its job is gone).
Status = Literal["ok", "failed", "timeout", "cancelled", "lost"]


class Record(BaseModel):
    """What is read back from a file: keys of a later minor version are kept, not refused."""

    model_config = ConfigDict(frozen=True, extra="allow")


class AccuracyPoint(Record):
    """After `step` steps, which took `seconds` of training (the slowest rank's, step by step; classifying
    is not counted), this share of the held-out images is classified right."""

    step: int
    seconds: float
    accuracy: float


class AccuracyReached(AccuracyPoint):
    """The first point that was good enough; `samples` were trained on over all workers."""

    samples: int


class RankReport(Record):
    """What one rank says of itself at its end. Seconds unless named otherwise.

    `startup_seconds` runs from the launcher's start of the process to the first training step
    and contains `import_seconds`, `data_load_seconds`, `rendezvous_seconds` and `build_seconds`. `first_step_seconds`
    is the first training call (tracing and compiling included). `test_accuracy` (rank 0 only) is
    the share of held-out images classified right after the last training step. `accuracy_reached` and
    `accuracy_curve` (rank 0 only) are of trials with `until_accuracy`. `timing` says by what steps were
    timed: "host", the clock of this process, or "events" in a device's queue of work.
    Inference trials: `prepare_seconds` is what making the callable took before its first call, and
    `max_difference` the largest absolute difference of its logits from eager execution's.
    Ingest trials: `cpu_seconds_per_sample` of this process and its readers, and their
    `memory_bytes` at the end, what they share counted once (PSS).
    `environment` are the variables that change speed, `commit` is the project's (of rank 0).
    `visible_devices` is CUDA_VISIBLE_DEVICES as the launcher gave it, None if it did not.
    """

    rank: int
    local_rank: int = 0
    host: str
    address: str
    pid: int
    cpus: list[int]
    threads: int
    niceness: int
    visible_devices: str | None = None
    startup_seconds: float
    import_seconds: float
    data_load_seconds: float = 0.0
    rendezvous_seconds: float
    build_seconds: float
    first_step_seconds: float
    train_started_unix: float
    train_ended_unix: float
    test_accuracy: float | None = None
    accuracy_reached: AccuracyReached | None = None
    accuracy_curve: list[AccuracyPoint] | None = None
    timing: Literal["host", "events"] = "host"
    prepare_seconds: float | None = None
    max_difference: float | None = None
    cpu_seconds_per_sample: float | None = None
    memory_bytes: int | None = None
    parameters: int
    device: str
    intra_op_threads: int
    inter_op_threads: int
    versions: dict[str, str] = {}
    hardware: dict[str, Any] = {}
    environment: dict[str, str] = {}
    container: str | None = None
    commit: str | None = None


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


def write_trial(folder: Path, trial: Trial) -> None:
    folder.mkdir(parents=True)
    write_atomically(folder / TRIAL, trial.model_dump_json(indent=1) + "\n")


def read_trial(folder: Path) -> Trial:
    return Trial.model_validate_json((folder / TRIAL).read_text(encoding="utf-8"))


def set_aside(folder: Path, why: str) -> str:
    """Move a trial's folder to `set-aside/`, so that the trial can be done anew; one line about it."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    results = folder.parent.parent
    target = results / "set-aside" / f"{folder.name}-{stamp}"
    target.parent.mkdir(exist_ok=True)
    folder.rename(target)
    return f"{folder.name} {why}; kept in {target.relative_to(results)}"


def append_steps(folder: Path, rank: int, rows: Sequence[Mapping[str, object]]) -> None:
    """Append step lines of `rank`: phase, step, seconds, data_seconds, samples, loss, warmup."""
    with rank_file(folder, rank, "jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_rank_report(folder: Path, report: RankReport) -> None:
    write_atomically(rank_file(folder, report.rank, "json"), report.model_dump_json(indent=1) + "\n")


def read_rank_report(folder: Path, rank: int) -> RankReport | None:
    try:
        return RankReport.model_validate_json(rank_file(folder, rank, "json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def last_lines(folder: Path, rank: int, count: int = 12) -> list[str]:
    """The last lines of a rank's log, for the person who reads why it failed."""
    try:
        with rank_file(folder, rank, "log").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 20_000))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line[:500] for line in text.splitlines() if line.strip()][-count:]


def read_exits(folder: Path, processes: int) -> list[RankExit]:
    """The exit records that the ranks' keepers left; of a rank without one, nothing."""
    return [found for rank in range(processes) if (found := read_exit(folder, rank)) is not None]


def read_exit(folder: Path, rank: int) -> RankExit | None:
    """The exit record that the rank's keeper left, None if it could not."""
    try:
        return TypeAdapter(RankExit).validate_json(rank_file(folder, rank, "exit").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def verdict(folder: Path, exits: Sequence[RankExit], processes: int) -> tuple[Status, str] | None:
    """How a trial has ended by its ranks' ends; None if they do not tell.

    Blamed is the rank that overstepped a limit, else the one that died first by itself: the others
    only follow it.
    """
    ended = sorted(exits, key=lambda e: (not e.limit, e.asked, e.ended_unix or 0.0, e.rank))
    for end in ended:
        if end.limit:
            return "timeout", f"rank {end.rank}: {end.limit}"
        if end.exit_code and not end.asked:
            if stood := _stood_still(folder, end.rank):
                return "timeout", f"rank {end.rank} {stood}"
            reason = (last_lines(folder, end.rank, 1) or ["it left no message"])[0]
            return "failed", f"rank {end.rank} {in_words(end.exit_code)}: {reason}"
    if len(exits) == processes and all(end.exit_code == 0 for end in exits):
        return "ok", ""
    return None


def _stood_still(folder: Path, rank: int) -> str:
    """What a rank's own watchdog (jobs/watchdog.py) said when it ended the rank; empty if it did not."""
    found = [line for line in last_lines(folder, rank, 200) if STOOD_STILL.fullmatch(line)]
    return (
        f"stood still for {found[-1].removeprefix('Timeout (').removesuffix(')!')}, its log says where" if found else ""
    )


def in_words(exit_code: int) -> str:
    """How a process with this exit code (negative for a signal) has ended."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"


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
        base_case=base_case(trial.strategy),
        emulated=trial.tpu == "emulated",
        timing_granularity=trial.steps_per_call,
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
