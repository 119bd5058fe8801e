"""What one rank says of itself at its end: rank-NNNNN.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from jobs.contract.files import rank_file, write_atomically


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
    and contains `import_seconds`, `data_load_seconds`, `rendezvous_seconds` and `build_seconds`, but not the decoding
    of images, which a machine does once. `first_step_seconds`
    is the first training call (tracing and compiling included). `test_accuracy` (rank 0 only) is
    the share of held-out images classified right after the last training step. `accuracy_reached` and
    `accuracy_curve` (rank 0 only) are of trials with `until_accuracy`. `timing` says by what steps were
    timed: "host", the clock of this process, or "events" in a device's queue of work.
    Inference trials: `prepare_seconds` is what making the callable took before its first call, and
    `max_difference` the largest absolute difference of its logits from eager execution's.
    Ingest trials: `cpu_seconds_per_sample` of this process and its readers, and their
    `memory_bytes` at the end, what they share counted once (PSS).
    Of training, `work` is what a step does per sample: `flop` operations, and elements of `parameters`,
    `activations` and the `image`.
    `cores` are the physical ones of `cpus`, each by its first hardware thread. `cpu_quota` is what the rank's control
    groups allow, in cores; `quota_periods` are those of the quota in the measured steps, `throttled_periods` those of
    them in which it held the group back, `throttled_seconds` for how long, summed over cores. None: none, or not known.
    `not_as_asked` is what the rank did otherwise than its trial says, in words.
    `environment` are the variables that change speed, `commit` is the project's (of rank 0); `data` is what rank 0
    found in a folder of the user's, and what of it was left out.
    `blocks` are the times of the blocks of a launch in blocks, in order.
    `visible_devices` is CUDA_VISIBLE_DEVICES as the launcher gave it, None if it did not.
    """

    rank: int
    local_rank: int = 0
    host: str
    address: str
    pid: int
    cpus: list[int]
    cores: list[int] | None = None
    cpu_quota: float | None = None
    quota_periods: int | None = None
    throttled_periods: int | None = None
    throttled_seconds: float | None = None
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
    not_as_asked: list[str] = []
    parameters: int
    work: dict[str, int] | None = None
    blocks: list[dict[str, Any]] | None = None
    device: str
    intra_op_threads: int
    inter_op_threads: int
    versions: dict[str, str] = {}
    hardware: dict[str, Any] = {}
    environment: dict[str, str] = {}
    container: str | None = None
    commit: str | None = None
    data: dict[str, Any] | None = None


def write_rank_report(folder: Path, report: RankReport) -> None:
    write_atomically(rank_file(folder, report.rank, "json"), report.model_dump_json(indent=1) + "\n")


def rank_report(content: bytes) -> RankReport | None:
    """The report that `content` is, None if it is none."""
    try:
        return RankReport.model_validate_json(content)
    except ValueError:
        return None
