"""What each figure shows, in words: the captions and alternative texts of the report.

Every sentence is made from the estimates, so it holds for this study and no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from analysis.laws.law import LawFit
from analysis.load.results import Results
from analysis.measures import caveats
from analysis.measures.breakdown import parts
from analysis.measures.distribution import order_residuals
from analysis.measures.roofline import Roofline
from analysis.measures.utilization import Series
from analysis.report import facts
from analysis.wording import digits, percent, within
from analysis.workloads.interface import beside, untold

DRIFT_ALPHA = 0.01
SUSPICIOUS = 1.1  # efficiency that wrapping one process and adding workers cannot explain


def efficiency(estimates: pl.DataFrame) -> list[str]:
    """Per scaling mode the best and the last strategy at the largest worker count."""
    said = []
    for mode in estimates["scaling"].unique().sort().to_list():
        rows = estimates.filter(pl.col("scaling") == mode, pl.col("workers") > 1).drop_nulls("efficiency")
        if not len(rows):
            continue
        largest = max(rows["workers"].to_list())
        ranked = rows.filter(workers=largest).sort("efficiency", descending=True).rows(named=True)
        best, last = ranked[0], ranked[-1]
        line = f"{mode.capitalize()} scaling to {largest} workers: {best['strategy']} keeps {_share(best)} of ideal"
        if len(ranked) > 1:
            line += f", {last['strategy']} {_share(last)}"
        said.append(line + ".")
    return said or ["No point with several workers has a base case to be compared with, so there is no curve."]


def speedup(estimates: pl.DataFrame) -> str:
    rows = estimates.drop_nulls("speedup").sort("speedup", descending=True).head(1).rows(named=True)
    if not rows:
        return "No speedup can be given, since no base case was measured."
    row = rows[0]
    return (
        f"The largest speedup over the base case is {digits(row['speedup'])}{within(row, 'speedup')}: "
        f"{row['strategy']} at {_workers(row['workers'])}, {row['scaling']} scaling."
    )


def throughput(estimates: pl.DataFrame) -> str:
    row = estimates.sort("throughput", descending=True).row(0, named=True)
    return (
        f"The highest throughput is {digits(row['throughput'])} samples/s{within(row, 'throughput')}: "
        f"{row['strategy']} at {_workers(row['workers'])}, {row['scaling']} scaling."
    )


def breakdown(estimates: pl.DataFrame) -> str:
    broken = parts(estimates).filter(pl.col("exposed_seconds").is_not_null())
    several = broken.filter(pl.col("workers") > 1)
    if not len(several):
        return "No point with several workers has a compute-only phase, so communication is not told apart."
    share = several.with_columns(share=pl.col("exposed communication") / pl.col("total"))
    largest = share.filter(pl.col("workers") == pl.col("workers").max()).sort("share", descending=True)
    most, least = largest.row(0, named=True), largest.row(-1, named=True)
    said = (
        f"At {_workers(most['workers'])}, exposed communication takes up to {percent(most['share'])}% of the worker "
        f"time ({most['strategy']}, {most['scaling']} scaling)"
    )
    if len(largest) > 1:
        said += f" and as little as {percent(least['share'])}% ({least['strategy']}, {least['scaling']} scaling)"
    return said + "."


def steps(distribution: pl.DataFrame) -> str:
    ratio = distribution.with_columns(ratio=pl.col("within_p99"))
    worst = ratio.sort("ratio", descending=True).row(0, named=True)
    typical = float(np.median(ratio["ratio"].to_numpy()))
    return (
        f"Within launches the 99th percentile of the step time is {typical:.2f} times the median at the typical "
        f"point and {worst['ratio']:.2f} times at the worst ({worst['strategy']} at {_workers(worst['workers'])}, "
        f"{worst['scaling']} scaling)."
    )


def ranks(per_rank: pl.DataFrame) -> str:
    several = per_rank.filter(pl.len().over("trial_id") > 1)
    if not len(several):
        return "No launch had several ranks."
    worst = several.sort("relative", descending=True).row(0, named=True)
    inside = (several["relative"] - 1.0).abs().quantile(0.95) or 0.0
    return (
        f"95% of all ranks are within ±{percent(inside)}% of the median rank of their launch; the furthest behind is "
        f"rank {worst['rank']} of {worst['strategy']} at {_workers(worst['workers'])}, "
        f"{percent(worst['relative'] - 1)}% slower."
    )


def launch_order(results: Results) -> str:
    from scipy import stats

    rows = order_residuals(results)
    if len(rows) < 8:
        return f"Too few launches ({len(rows)}) to tell a drift from chance."
    found = stats.kendalltau(rows["order"].to_numpy(), rows["residual"].to_numpy())
    tau, p = float(found.statistic), float(found.pvalue)
    if p < DRIFT_ALPHA:
        direction = "faster" if tau > 0 else "slower"
        return (
            f"Launches became {direction} over the study (Kendall's τ = {tau:+.2f}, p = {p:.2g}); random order "
            "spreads this drift over all points, and the intervals contain it."
        )
    return f"No drift over the study is found (Kendall's τ = {tau:+.2f}, p = {p:.2g})."


def overview(results: Results, estimates: pl.DataFrame) -> str:
    """What was run, in one sentence."""
    trials = results.trials
    if not len(trials):
        return "No launch is in this folder."
    counts = trials["workers"].unique().sort().to_list()
    workers = _workers(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]} workers"
    ok = int((trials["status"] == "ok").sum())
    launches = f"{ok} launches" if ok == len(trials) else f"{ok} of {len(trials)} launches that succeeded"
    points = trials.filter(status="ok").select("strategy", "workers", "global_batch", *results.factors).n_unique()
    strategies = trials["strategy"].n_unique()
    return f"{strategies} {'strategy' if strategies == 1 else 'strategies'} on {workers}: {launches}, {points} points."


def cautions(results: Results, estimates: pl.DataFrame) -> list[str]:
    """What a reader must know before the first number; points are counted, not listed."""
    warned, found = _warned(results, estimates), []
    for kind, count in caveats.kinds(warned):
        found.append(f"{kind}: {'all points' if count == len(warned) else f'{count} of {len(warned)} points'}")
    if above := int((estimates["efficiency"] > SUSPICIOUS).sum()):
        found.append(
            f"efficiency above {SUSPICIOUS:.0%}: {above} of {len(estimates)} points; the base case deserves a look"
        )
    found += [f"{line}; they are in the list of launches" for line in untold(results)]
    lost = len(results.trials) - int((results.trials["status"] == "ok").sum())
    if lost:
        found.append(f"{lost} of {len(results.trials)} launches did not succeed; see Missing")
    if said := facts.without_sums(results):
        found.append(said)
    if results.set_aside:
        found.append(f"{len(results.set_aside)} files or folders set aside; see Missing")
    return found


def _warned(results: Results, estimates: pl.DataFrame) -> dict[str, list[str]]:
    """Point ─▶ its warnings: of training those of its estimates, whatever scaling modes it is part of."""
    found: dict[str, list[str]] = {}
    for point, warning in estimates.select("point", "warning").iter_rows():
        found.setdefault(point, []).extend(filter(None, warning.split("; ")))
    others = set(beside(results)["point"])
    return found | {point: texts for point, texts in caveats.by_point(results).items() if point in others}


def _share(row: dict[str, Any]) -> str:
    low, high = row["efficiency_low"], row["efficiency_high"]
    said = f"{percent(row['efficiency'])}%"
    return said if low is None else f"{said} ({percent(low)}–{percent(high)}%)"


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count:,} workers"


def laws(fits: Sequence[LawFit]) -> str:
    """The smallest and the largest serial share of the strong curves, or else of the weak ones."""
    for law in ("Amdahl", "Gustafson"):
        shares = [(p.value, f.strategy) for f in fits if f.law == law for p in f.parameters if p.name == "serial share"]
        if shares:
            (low, least), (high, most) = min(shares), max(shares)
            if len(shares) == 1:
                return f"{law}'s serial share of {most} is {percent(high)}%."
            return (
                f"{law}'s serial share is least with {least}, {percent(low)}%, "
                f"and largest with {most}, {percent(high)}%."
            )
    return "Only the Universal Scalability Law could be fitted."


def utilization(drawn: Series) -> str:
    """What the figure of utilization shows: the measured steps of the busiest and the least busy point."""
    measured = drawn.lines.filter(phase="measured").join(drawn.points, on="trial_id")
    busy = measured.filter(pl.col("line").is_in(["cpu_percent", "sm_percent"]))
    means = busy.group_by("line", "strategy", "workers", maintain_order=True).agg(pl.col("value").mean()).sort("value")
    if not len(means):
        return f"Telemetry of {drawn.points.height} launches, none of it within the measured steps."
    least, most = means.row(0, named=True), means.row(-1, named=True)
    what = {"cpu_percent": "cores", "sm_percent": "GPUs"}
    said = "; ".join(
        f"the {word} busy are the {what[row['line']]} of {row['strategy']} at {_workers(row['workers'])}, "
        f"{row['value']:.0f}% of the measured time"
        for word, row in (("most", most), ("least", least))
    )
    taken = measured.filter(line="taken_percent")["value"]
    others = f" Others took {digits(float(taken.mean()))}% of the workers' cores on average." if len(taken) else ""  # type: ignore[arg-type]
    return f"{said[0].upper()}{said[1:]}.{others}"


def roofline(found: Roofline) -> str:
    """Which base case comes nearest to its roof."""
    best = found.points.sort("of_roof", descending=True).row(0, named=True)
    return (
        f"{best['strategy']} with batch {best['global_batch']:,} comes nearest to the roof: "
        f"{digits(best['flop_per_second'] / 1e9)} of {digits(best['roof'] / 1e9)} GFLOP/s, "
        f"{percent(best['of_roof'])}%; at {digits(best['intensity'])} FLOP/byte {best['bound']} sets the roof."
    )


def times(frame: pl.DataFrame) -> str:
    """The fastest to the accuracy, and how many launches did not come to it."""
    launches, reached = int(frame["n_launches"].sum()), int(frame["n_reached"].sum())
    gave_up = f" {launches - reached} of {launches} launches gave up before." if reached < launches else ""
    ranked = frame.drop_nulls("seconds").sort("seconds").rows(named=True)
    if not ranked:
        return f"None of {launches} launches reached the accuracy that was asked for."
    best = ranked[0]
    return (
        f"The fastest to {best['until_accuracy']:.1%} is {best['strategy']} at {_workers(best['workers'])}, "
        f"{best['scaling']} scaling: {digits(best['seconds'])} s{within(best, 'seconds')} of training in "
        f"{best['steps']:.0f} steps.{gave_up}"
    )
