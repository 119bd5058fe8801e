"""What published numbers say of a claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from analysis.verdicts.contrast import overall, word_for


@dataclass(frozen=True)
class Published:
    """What published numbers say of a claim; never pooled with what was measured."""

    verdict: str
    summary: str
    comparisons: tuple[dict[str, Any], ...] = ()


def published_tpu(margin: float) -> Published:
    """MLPerf runs on the same TPU with TensorFlow and another framework.

    The verdict rests on speed, minutes per unit of work; minutes to the target, which also count how
    many epochs were needed, are told beside.
    """
    from analysis.published import runs
    from analysis.published.curves import mlperf_runs

    rows: list[dict[str, Any]] = []
    for run in runs.compare(mlperf_runs(), "TPU"):
        known = run.one_epoch_more or ()
        # An epoch count that may be one too low must not turn the answer round.
        doubtful = any((ratio < 1) != (run.ratio < 1) for ratio in known)
        word = word_for(run.ratio, run.low, run.high, run.p_holm, margin)
        rows.append(asdict(run) | {"verdict": "inconclusive" if doubtful else word, "doubtful": doubtful})
    by_work, to_target = ([r for r in rows if r["reading"] == reading] for reading in (runs.WORK, runs.TARGET))
    confounders = "; ".join(dict.fromkeys(c for r in rows for c in r["confounders"]))
    return Published(
        overall([r["verdict"] for r in by_work]),
        f"MLPerf Training v0.7 (2020), speed of TensorFlow over that of another framework on the same chips. "
        f"Per unit of work: {_told(by_work)}. To the target, which adds how many epochs it took (no part of the "
        f"verdict): {_told(to_target)}. Mind: {confounders}.",
        tuple(rows),
    )


def _told(rows: Sequence[dict[str, Any]]) -> str:
    return "; ".join(
        f"{r['benchmark']} on {r['accelerators']:,} {r['accelerator']}, over {r['reference']} {r['ratio']:.3f} "
        f"[{r['low']:.3f}, {r['high']:.3f}], {r['runs']} against {r['runs_reference']} runs, {r['verdict']}"
        + (", as one epoch more or less turns it round" if r["doubtful"] else "")
        for r in rows
    )


def published_scaling(margin: float) -> Published:
    """What published scale-out series can say of the two frameworks: they were never run on the same system."""
    from analysis.published.curves import curves

    frameworks = curves().with_columns(
        pl.when(pl.col("framework").str.contains("TensorFlow")).then(pl.lit("TensorFlow"))
        .when(pl.col("framework").str.to_lowercase().str.contains("pytorch")).then(pl.lit("PyTorch"))
        .alias("family")
    ).drop_nulls("family")  # fmt: skip
    shared = frameworks.group_by("accelerator", "model").agg(pl.col("family").n_unique().alias("n"))
    both = shared.filter(pl.col("n") == 2)
    parts = []
    for name in ("TensorFlow", "PyTorch"):
        at = frameworks.filter(family=name, workers=8, base_workers=1)["efficiency"]
        low, high = at.min(), at.max()
        if isinstance(low, float) and isinstance(high, float):
            parts.append(f"{name} {100 * low:.0f} to {100 * high:.0f}% at 8 workers ({len(at)} series)")
    reason = (
        "no published series has both frameworks on the same accelerator and model"
        if not len(both)
        else f"only {len(both)} accelerator and model pairs have both frameworks, with different systems and batches"
    )
    return Published(
        "inconclusive",
        f"Efficiency: {'; '.join(parts)}. These cannot be set against each other: {reason}; systems, years, "
        "communication libraries and batches differ.",
    )


PUBLISHED: dict[str, Callable[[float], Published]] = {
    "tf-suits-tpu": published_tpu,
    "tf-scales-better": published_scaling,
}
