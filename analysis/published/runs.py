"""MLPerf runs: work per run, MLPerf's own mean, and the comparison of two frameworks on the same accelerator.

One submitter ran the same benchmark on the same accelerators with two frameworks, 5 or 10 runs each. Two
readings: minutes to the quality target (the benchmark's own score: speed times epochs needed) and minutes
per unit of work (speed alone), where the log says how much work was done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import permutation_test

from analysis.stats.bootstrap import exp, student
from analysis.stats.ratios import holm

Floats = NDArray[np.float64]
TARGET, WORK = "minutes to the target", "minutes per unit of work"
# "Same hardware" is one round's accelerator and count; the same submitter is named, not required.
_GROUP = ["round", "benchmark", "accelerator", "accelerators"]
_RESAMPLES = 9999
# Systems whose last epoch is 1 or 2 too low because they count from 0 (README.md, warning 6).
_COUNT_FROM_ZERO = ("tpu-v3-32", "tpu-v4-16", "tpu-v4-128", "1-node-8s-cpx-1-tensorflow")


def with_work(runs: pl.DataFrame) -> pl.DataFrame:
    """Add `framework_name`, `work` in `work_unit`, and `minutes_per_work` to the MLPerf table.

    Work is epochs (resnet, transformer) or samples (bert, from the raw counter in `note`, which some
    logs keep in samples and some in steps). Null where the log has no usable counter.
    """
    text = pl.col("framework").str.to_lowercase()
    counter = pl.col("note").str.extract(r"last eval epoch_num=(\d+) \((?:steps|samples)\)").cast(pl.Float64)
    in_steps = pl.col("note").str.contains(r"epoch_num=\d+ \(steps\)").fill_null(False)
    samples = pl.when(in_steps).then(counter * pl.col("global_batch")).otherwise(counter)
    code = pl.col("note").str.extract(r"that of the NVIDIA (\w+) implementation")
    return runs.with_columns(
        pl.coalesce(
            code,
            pl.when(text.str.contains("tensorflow|tf")).then(pl.lit("TensorFlow")),
            pl.when(text.str.contains("pytorch")).then(pl.lit("PyTorch")),
            pl.when(text.str.contains("jax")).then(pl.lit("JAX")),
            pl.when(text.str.contains("mxnet")).then(pl.lit("MXNet")),
            pl.when(text.str.contains("mindspore")).then(pl.lit("MindSpore")),
            "framework",
        ).alias("framework_name"),
        pl.coalesce("epochs", samples).cast(pl.Float64).alias("work"),
        pl.when(pl.col("epochs").is_not_null()).then(pl.lit("epochs")).otherwise(pl.lit("samples"))
        .alias("work_unit"),
    ).with_columns((pl.col("minutes") / pl.col("work")).alias("minutes_per_work"))  # fmt: skip


def olympic_mean(times: Floats, axis: int = -1) -> Any:
    """MLPerf's score: the mean without the fastest and the slowest run, along `axis`.

    A run that did not converge counts as the slowest: give it as infinity. MLPerf Training rules,
    section "Benchmark results".
    """
    ordered = np.sort(times, axis=axis)
    return np.take(ordered, np.arange(1, ordered.shape[axis] - 1), axis=axis).mean(axis=axis)


def speed_ratio(tested: Floats, reference: Floats, axis: int = -1) -> Any:
    """Olympic mean time of the reference over that of the tested side: above 1 the tested side is faster."""
    return olympic_mean(reference, axis) / olympic_mean(tested, axis)


def interval(tested: Floats, reference: Floats, confidence: float = 0.95) -> tuple[float, float]:
    """Bootstrap interval of `speed_ratio` over the runs, shape (n,) each.

    As analysis.stats.bootstrap: the bootstrap's standard error, widened by n / (n - 1), with Student's t on a
    log scale, since percentiles of 5 runs are too narrow. Runs without an end count as the slowest; a
    resample that holds more than one of them has no mean and is left out.
    """
    rng = np.random.default_rng(1)
    variances = []
    for times in (tested, reference):
        n = len(times)
        means = olympic_mean(times[rng.integers(n, size=(_RESAMPLES, n))])
        variances.append(float(np.log(means[np.isfinite(means)]).var()) * n / (n - 1))
    centre = math.log(speed_ratio(tested, reference))
    low, high = student(centre, variances, [len(tested), len(reference)], confidence)
    return exp(low), exp(high)


@dataclass(frozen=True)
class RunComparison:
    """TensorFlow against another framework on the same accelerators. `ratio` above 1: TensorFlow faster.

    `p` is of an exact or 9999-fold permutation test, `p_holm` corrected over the comparisons with the
    same reading. `one_epoch_more` is the ratio with the epochs of either side counted higher, None
    where the count is not in doubt.
    """

    round: str
    benchmark: str
    accelerator: str
    accelerators: int
    reference: str
    reading: str
    ratio: float
    low: float
    high: float
    p: float
    p_holm: float
    runs: int
    runs_reference: int
    one_epoch_more: tuple[float, float] | None
    confounders: tuple[str, ...]


def groups(runs: pl.DataFrame) -> list[tuple[pl.DataFrame, pl.DataFrame]]:
    """Pairs (runs with TensorFlow, runs with the other framework) on the same accelerators and count."""
    pairs = []
    for _, group in runs.group_by(_GROUP, maintain_order=True):
        names = group["framework_name"].unique(maintain_order=True).to_list()
        if len(names) == 2 and "TensorFlow" in names:
            is_tf = pl.col("framework_name") == "TensorFlow"
            pairs.append((group.filter(is_tf), group.filter(~is_tf)))
    return pairs


def compare(runs: pl.DataFrame, accelerator: str = "") -> list[RunComparison]:
    """Both readings of every group whose accelerator's name contains `accelerator`."""
    found = []
    for reading in (WORK, TARGET):
        family = [
            _comparison(tf, other, reading)
            for tf, other in groups(runs)
            if accelerator in tf["accelerator"][0]
            and (reading == TARGET or (tf["work"].null_count() + other["work"].null_count()) == 0)
        ]
        corrected = holm([row.p for row in family])
        found += [replace(row, p_holm=c.p) for row, c in zip(family, corrected, strict=True)]
    return found


def _comparison(tf: pl.DataFrame, other: pl.DataFrame, reading: str) -> RunComparison:
    column = "minutes" if reading == TARGET else "minutes_per_work"
    times = [side[column].fill_null(math.inf).to_numpy() for side in (tf, other)]
    options: dict[str, Any] = {"vectorized": True, "axis": -1}
    test = permutation_test(
        times, speed_ratio, permutation_type="independent", n_resamples=_RESAMPLES, rng=1, **options
    )
    low, high = interval(times[0], times[1])
    in_doubt = reading == WORK and tf["work_unit"][0] == "epochs"
    return RunComparison(
        round=tf["round"][0],
        benchmark=tf["benchmark"][0],
        accelerator=tf["accelerator"][0],
        accelerators=tf["accelerators"][0],
        reference=other["framework_name"][0],
        reading=reading,
        ratio=float(speed_ratio(times[0], times[1])),
        low=low,
        high=high,
        p=float(test.pvalue),
        p_holm=math.nan,
        runs=tf.height,
        runs_reference=other.height,
        one_epoch_more=_one_epoch_more(tf, other) if in_doubt else None,
        confounders=tuple(_confounders(tf, other)),
    )


def _one_epoch_more(tf: pl.DataFrame, other: pl.DataFrame) -> tuple[float, float]:
    """The ratio if TensorFlow's, or the other's, epochs are counted too low (README.md, warning 6)."""

    def times(side: pl.DataFrame, recount: bool) -> Floats:
        more = 0 if not recount else 2 if side["system"][0].startswith(_COUNT_FROM_ZERO) else 1
        return (side["minutes"] / (side["epochs"] + more)).to_numpy()

    return (
        float(speed_ratio(times(tf, True), times(other, False))),
        float(speed_ratio(times(tf, False), times(other, True))),
    )


def _confounders(tf: pl.DataFrame, other: pl.DataFrame) -> list[str]:
    """What else differs, or is shared, between the two sides; read off the rows."""
    name = other["framework_name"][0]
    submitters = tf["submitter"][0], other["submitter"][0]
    words = [
        f"{submitters[0]} tuned and ran both sides"
        if submitters[0] == submitters[1]
        else f"submitters differ: {submitters[0]} (TensorFlow), {submitters[1]} ({name})"
    ]
    batches = [", ".join(map(str, side["global_batch"].unique().sort())) for side in (tf, other)]
    if batches[0] != batches[1]:
        words.append(f"global batch {batches[0]} (TensorFlow) against {batches[1]} ({name})")
    work = [float(side["work"].mean() or math.nan) for side in (tf, other)]  # type: ignore[arg-type]
    unit = tf["work_unit"][0]
    if unit == other["work_unit"][0] and not any(map(math.isnan, work)) and abs(work[0] / work[1] - 1) > 0.005:
        words.append(f"mean {unit} to the target {work[0]:,.5g} (TensorFlow) against {work[1]:,.5g} ({name})")
    if "research" in tf["framework"][0]:
        words.append(f"TensorFlow is named {tf['framework'][0]!r}: not a released version")
    words.append("hyperparameters, input pipeline and compiler settings may differ: the logs do not hold them")
    return words
