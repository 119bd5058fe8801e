"""The results format of one trial: what its folder holds, how it is written, how it is read.

    trials/<trial-id>/trial.json         the Trial
                      rank-00000.jsonl   one line per step of that rank
                      rank-00000.json    that rank's report: times, cores, versions, hardware
                      rank-00000.log     stdout and stderr
                      rank-00000.alive   touched by the step loop at most once a second
                      outcome.json       written last, atomically

A trial without `outcome.json` did not finish. docs/results-format.md is the same for readers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.strategies import STRATEGIES
from jobs.trial import Trial

FORMAT = 1
TRIAL, OUTCOME = "trial.json", "outcome.json"

Phase = Literal["train", "compute_only"]
# ok: complete. failed: a rank died. timeout: a limit of the trial struck. cancelled: by the user.
# lost: the launcher lost sight of it (its node or its job is gone).
Status = Literal["ok", "failed", "timeout", "cancelled", "lost"]


class Record(BaseModel):
    """What is read back from a file: keys of a later minor version are kept, not refused."""

    model_config = ConfigDict(frozen=True, extra="allow")


class RankReport(Record):
    """What one rank says of itself at its end. Seconds unless named otherwise.

    `startup_seconds` runs from the launcher's start of the process to the first training step
    and contains `import_seconds`, `data_load_seconds`, `rendezvous_seconds` and `build_seconds`. `first_step_seconds`
    is the first training call (tracing and compiling included). `test_accuracy` (rank 0 only) is
    the share of held-out images classified right after the last training step.
    """

    rank: int
    host: str
    address: str
    pid: int
    cpus: list[int]
    threads: int
    niceness: int
    startup_seconds: float
    import_seconds: float
    data_load_seconds: float = 0.0
    rendezvous_seconds: float
    build_seconds: float
    first_step_seconds: float
    train_started_unix: float
    train_ended_unix: float
    test_accuracy: float | None = None
    parameters: int
    device: str
    intra_op_threads: int
    inter_op_threads: int
    versions: dict[str, str] = {}
    hardware: dict[str, Any] = {}


class RankExit(Record):
    """How one process of the trial ended. `exit_code` is negative for a signal, None if unknown."""

    rank: int
    exit_code: int | None = None
    last_lines: list[str] = []


class Outcome(Record):
    """The end of a trial. `error` is one line for people; empty when `status` is "ok".

    `order` counts launches over the study, so drift over time can be seen. `communication` is
    "none" (base case), "native" or "horovod". `started` and `ended` are UTC, ISO 8601.
    """

    format: int = FORMAT
    trial_id: str
    status: Status
    error: str = ""
    framework: str
    communication: str
    launcher: str
    order: int
    started: str
    ended: str
    workers: int
    startup_seconds: float | None = None
    first_step_seconds: float | None = None
    test_accuracy: float | None = None
    hosts: list[str] = []
    exits: list[RankExit] = []
    ranks: list[RankReport] = []
    versions: dict[str, str] = {}
    hardware: dict[str, Any] = {}


class UnreadableOutcome(ValueError):
    """`outcome.json` is there but cannot be trusted; the message says why."""


def rank_file(folder: Path, rank: int, ending: str) -> Path:
    """Path of a rank's file; `ending` is jsonl, json, log or alive."""
    return folder / f"rank-{rank:05d}.{ending}"


def write_atomically(path: Path, text: str) -> None:
    """Write `text` so that a reader, or a kill at any moment, sees all of it or none."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_trial(folder: Path, trial: Trial) -> None:
    folder.mkdir(parents=True)
    write_atomically(folder / TRIAL, trial.model_dump_json(indent=1) + "\n")


def read_trial(folder: Path) -> Trial:
    return Trial.model_validate_json((folder / TRIAL).read_text(encoding="utf-8"))


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


def conclude(
    folder: Path,
    *,
    status: Status,
    error: str,
    launcher: str,
    order: int,
    started: str,
    ended: str,
    exit_codes: Mapping[int, int | None],
) -> Outcome:
    """Compose and write `outcome.json` from what the ranks left in `folder`.

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
    exits = [
        RankExit(rank=rank, exit_code=code, last_lines=[] if status == "ok" else last_lines(folder, rank))
        for rank, code in sorted(exit_codes.items())
    ]
    first = reports[0] if reports else None
    outcome = Outcome(
        trial_id=trial.id,
        status=status,
        error=error,
        framework=info.framework,
        communication=info.communication,
        launcher=launcher,
        order=order,
        started=started,
        ended=ended,
        workers=trial.workers,
        startup_seconds=max((r.startup_seconds for r in reports), default=None),
        first_step_seconds=max((r.first_step_seconds for r in reports), default=None),
        test_accuracy=first.test_accuracy if first else None,
        hosts=sorted({r.host for r in reports}),
        exits=exits,
        ranks=reports,
        versions=first.versions if first else {},
        hardware=first.hardware if first else {},
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
