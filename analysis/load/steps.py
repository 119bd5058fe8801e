"""One trial's step lines ─▶ what that launch measured.

All ranks of a synchronous step wait for each other, so the step lasts as long as its slowest rank:
every time here is that of the slowest rank, step by step, and throughput is samples over their sum.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.load import sums
from analysis.load.sums import Sum
from analysis.stats import steady

Floats = NDArray[np.float64]

LINE = {
    "phase": pl.String,
    "step": pl.Int64,
    "seconds": pl.Float64,
    "data_seconds": pl.Float64,
    "samples": pl.Int64,
    "loss": pl.Float64,
    "warmup": pl.Boolean,
}
# What `measure` gives; seconds are per step unless named otherwise.
MEASURED = {
    "samples": pl.Int64,  # of all measured steps over all ranks
    "train_seconds": pl.Float64,  # sum over the measured steps
    "throughput": pl.Float64,  # samples / train_seconds
    "step_p50": pl.Float64,
    "step_p95": pl.Float64,
    "step_p99": pl.Float64,
    "compute_only_seconds": pl.Float64,  # mean over ranks and steps, its input wait included
    "exposed_seconds": pl.Float64,  # mean step - compute_only_seconds
    "data_seconds": pl.Float64,  # mean input wait of the rank that was slowest in the step
    "straggler_seconds": pl.Float64,  # mean over steps of (slowest rank - median rank)
    "stood_still_seconds": pl.Float64,  # beyond the median, of steps that cannot be the training's
    "stood_still_on_all": pl.Boolean,  # whether all ranks did in each of them; null if it did not
    "alone_still_seconds": pl.Float64,  # the same of compute-only steps, of the rank that stood longest
    "steady": pl.Boolean,
    "steady_note": pl.String,
}


# A step longer than the median by so many seconds, and by so many times what other steps of its launch lie apart, is no
# step of training: the machine slept or was moved, or somebody stopped the rank. It is counted as every other, and said
# wherever its launch is. A median longer it must be at least, and nine are enough whatever the others are.
STILL_SECONDS, STILL_SPREADS, STILL_MEDIANS = 0.5, 8, (1, 9)


class BrokenSteps(ValueError):
    """The step lines of a trial cannot be trusted; the message says which and why."""


def read_steps(home: Path, then: Mapping[str, Sum] | None = None) -> pl.DataFrame:
    """All step lines of the trial in folder `home`: column `rank` and those of LINE, as written.

    Raises BrokenSteps if a file is missing, truncated or damaged, or another than it was `then`.
    """
    files = {int(m[1]): f for f in sorted(home.iterdir()) if (m := sums.STEP_LINES.fullmatch(f.name))}
    if other := [file.name for file in files.values() if not file.is_file()]:
        raise BrokenSteps(f"{other[0]} is no file")
    try:
        texts = {rank: file.read_bytes() for rank, file in sorted(files.items())}
    except OSError as error:
        raise BrokenSteps(f"{error.filename}: {error.strerror}") from None
    with ThreadPoolExecutor(1) as beside:  # SHA-256 takes a core of its own meanwhile
        changed = beside.submit(_changed, {files[rank].name: text for rank, text in texts.items()}, then or {})
        try:
            frame = _table(files, texts)
        except BrokenSteps as error:
            raise BrokenSteps(": ".join(filter(None, (changed.result(), str(error))))) from None
        if changed.result():
            raise BrokenSteps(changed.result())
    return frame


def _changed(texts: Mapping[str, bytes], then: Mapping[str, Sum]) -> str:
    """Which of the files are as long as they were and have another content, "" if none."""
    alike = [name for name, text in texts.items() if name in then and len(text) == then[name].length]
    return sums.several([sums.changed(name, texts[name], then[name]) for name in alike])


def _table(files: Mapping[int, Path], texts: dict[int, bytes]) -> pl.DataFrame:
    for rank, text in texts.items():
        if not text.strip():
            raise BrokenSteps(f"no steps of rank {rank}: {files[rank].name} is empty")
        if not text.endswith(b"\n"):
            texts[rank] += b"\n"
    if not texts:
        return pl.DataFrame(schema={"rank": pl.Int32, **LINE})
    try:
        frame = _parse(b"".join(texts.values()))
    except pl.exceptions.PolarsError:
        raise BrokenSteps(_first_fault(files)) from None
    counts = [text.count(b"\n") for text in texts.values()]
    if len(frame) != sum(counts):
        raise BrokenSteps(_first_fault(files))
    ranks = np.repeat(np.fromiter(texts, dtype=np.int32), counts)
    return frame.insert_column(0, pl.Series("rank", ranks))


def _parse(text: bytes) -> pl.DataFrame:
    """The lines as a table. Python's JSON writes a diverged loss as NaN, which is no JSON: null here."""
    try:
        return pl.read_ndjson(text, schema=LINE)
    except pl.exceptions.PolarsError:
        if b"NaN" not in text and b"Infinity" not in text:
            raise
        return pl.read_ndjson(re.sub(rb"-?\bInfinity\b|\bNaN\b", b"null", text), schema=LINE)


def _first_fault(files: Mapping[int, Path]) -> str:
    """Which line of which file is not a step line, and why: the slow way, for the person to read."""
    for file in files.values():
        for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
            if not line.strip():
                continue
            where = f"{file.name} line {number}"
            try:
                row = json.loads(line)
            except ValueError:
                return f"{where} is not a complete JSON object"
            if not isinstance(row, dict):
                return f"{where} is not a JSON object"
            for key in ("seconds", "data_seconds", "step", "samples", "loss"):
                value = row.get(key)
                if not isinstance(value, float | int | None) or isinstance(value, bool):
                    return f"{where}: {key} is {str(value)[:30]!r}, not a number"
                if isinstance(value, float) and not math.isfinite(value) and key != "loss":
                    return f"{where}: {key} is {value}"
    return "the step lines cannot be read as one table"


@dataclass(frozen=True)
class Steps:
    """The measured steps of one phase, each array [ranks, steps]."""

    seconds: Floats
    data_seconds: Floats
    samples: NDArray[np.int64]


def phases(frame: pl.DataFrame, expected_ranks: Iterable[int] | None) -> dict[str, Steps]:
    """The measured (not warm-up) steps of each phase, checked. Raises BrokenSteps.

    `frame` is that of `read_steps`; `expected_ranks` are the processes of the trial, if known.
    """
    ranks, counts = np.unique(frame["rank"].to_numpy(), return_counts=True)
    expected = set(range(int(ranks.max()) + 1 if len(ranks) else 1))
    if expected_ranks is not None:
        expected = set(expected_ranks)
    if absent := sorted(expected - set(ranks.tolist())):
        raise BrokenSteps(f"no steps of rank {_few(absent)}")
    if extra := sorted(set(ranks.tolist()) - expected):
        raise BrokenSteps(f"steps of rank {_few(extra)}, which the trial does not have")
    if counts.min() != counts.max():
        fewest, most = int(ranks[counts.argmin()]), int(ranks[counts.argmax()])
        raise BrokenSteps(f"rank {fewest} has {counts.min()} steps, but rank {most} has {counts.max()} steps")
    if frame["phase"].null_count() or frame["step"].null_count():
        raise BrokenSteps("a line has no phase or no step")
    per_rank = frame.with_columns(pl.col("warmup").fill_null(False))
    shape = (len(ranks), int(counts[0]))
    first = per_rank.slice(0, shape[1])
    step = per_rank["step"].to_numpy().reshape(shape)
    warmup = per_rank["warmup"].to_numpy().reshape(shape)
    if (step != step[0]).any() or (warmup != warmup[0]).any():
        raise BrokenSteps("the ranks do not have the same steps")
    found = {}
    for phase in first["phase"].unique(maintain_order=True):
        mask = (first["phase"] == phase).to_numpy()
        of_all = (per_rank["phase"] == phase).to_numpy().reshape(shape)
        if (of_all != mask).any():
            raise BrokenSteps("the ranks do not have the same steps")
        if (step[0][mask] != np.arange(mask.sum())).any():
            raise BrokenSteps(f"{phase} step numbers are not 0, 1, 2, …: lines are missing or repeated")
        wanted = np.flatnonzero(mask & ~warmup[0])
        found[phase] = _checked(per_rank, shape, wanted, phase, step[0])
    return found


def _checked(
    frame: pl.DataFrame, shape: tuple[int, int], wanted: NDArray[np.intp], phase: str, step: NDArray[np.int64]
) -> Steps:
    """The columns `wanted` of each rank, all of them positive (seconds, samples) or not negative."""
    arrays: dict[str, Any] = {}
    for name in ("seconds", "data_seconds", "samples"):
        array = frame[name].fill_null(-1).to_numpy().reshape(shape)[:, wanted]
        wrong = ~(array >= 0) | np.isinf(array) if name == "data_seconds" else ~(array > 0) | np.isinf(array)
        if wrong.any():
            rank, at = np.argwhere(wrong)[0]
            raise BrokenSteps(f"{name} of {phase} step {step[wanted[at]]} of rank {rank} is missing or not positive")
        arrays[name] = array
    return Steps(**arrays)


def measure(
    found: dict[str, Steps],
    global_batch: int,
    planned_steps: int | None,
    *,
    planned_alone: int | None = None,
    workload: str = "train",
    check_steady: bool = True,
) -> dict[str, Any]:
    """The columns MEASURED of one trial, from the phase that is called as its workload. Raises BrokenSteps.

    `planned_steps` and `planned_alone` are how many steps of training, and of the compute-only phase, there must be.

    Times in seconds; percentiles are over the measured steps of this launch.
    """
    train = found.get(workload)
    if train is None or not train.seconds.size:
        raise BrokenSteps("no measured training steps")
    if planned_steps is not None and train.seconds.shape[1] != planned_steps:
        raise BrokenSteps(f"{train.seconds.shape[1]} measured training steps, but {planned_steps} were planned")
    compute = found.get("compute_only")
    done_alone = compute.seconds.shape[1] if compute is not None else 0
    if planned_alone is not None and done_alone != planned_alone:
        raise BrokenSteps(f"{done_alone} measured compute-only steps, but {planned_alone} were planned")
    per_step = train.samples.sum(axis=0)
    if (per_step != global_batch).any():
        raise BrokenSteps(f"samples of a step sum to {per_step[per_step != global_batch][0]}, not {global_batch}")
    slowest = train.seconds.max(axis=0)
    waits = np.take_along_axis(train.data_seconds, train.seconds.argmax(axis=0)[None, :], axis=0)[0]
    alone = float(compute.seconds.mean()) if compute is not None and compute.seconds.size else None
    p50, p95, p99 = np.percentile(slowest, (50, 95, 99)).tolist()
    limit = _longest_sound(slowest)
    still = slowest > limit
    is_steady, note = steady.check(slowest) if check_steady else (None, "")
    total = float(slowest.sum())
    return {
        "samples": int(per_step.sum()),
        "train_seconds": total,
        "throughput": float(per_step.sum()) / total,
        "step_p50": p50,
        "step_p95": p95,
        "step_p99": p99,
        "compute_only_seconds": alone,
        "exposed_seconds": None if alone is None else float(slowest.mean()) - alone,
        "data_seconds": float(waits.mean()),
        "straggler_seconds": float((slowest - np.median(train.seconds, axis=0)).mean()),
        "stood_still_seconds": float((slowest[still] - p50).sum()),
        "stood_still_on_all": bool((train.seconds[:, still] > limit).all()) if still.any() else None,
        "alone_still_seconds": None if alone is None or compute is None else _longest_still(compute.seconds),
        "steady": is_steady,
        "steady_note": note,
    }


def _longest_sound(seconds: Floats) -> float:
    """What a step may take; longer ones stood still. How far others lie apart is told by what no stop makes longer: the
    fastest step, and the ninth decile."""
    p50, p90 = np.median(seconds), np.quantile(seconds, 0.9, method="lower")
    least, enough = (times * p50 for times in STILL_MEDIANS)
    apart = STILL_SPREADS * max(p50 - seconds.min(), p90 - p50)
    return float(p50 + max(STILL_SECONDS, min(enough, max(least, apart))))


def _longest_still(seconds: Floats) -> float:
    """Of the rank that stood still longest, the seconds beyond the median; `seconds` is [ranks, steps]."""
    return float(((seconds - np.median(seconds)) * (seconds > _longest_sound(seconds))).sum(axis=1).max())


def _few(numbers: Sequence[int], most: int = 5) -> str:
    text = ", ".join(str(n) for n in numbers[:most])
    return text + (f" and {len(numbers) - most} more" if len(numbers) > most else "")
