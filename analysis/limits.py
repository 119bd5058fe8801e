"""What limits each curve: the parts of what scaling loses, each with its interval, and the ones that count.

    found = limits(results, estimate(results), distributions(results).ranks)

One worker's time per sample, w = N · step / batch, is the sum of compute, exposed communication and input
wait, and what efficiency E lacks to 1 is how much of w the base case does not need:

    1 - E(N) = (w(N) - w_base) / w(N)

    communication   the exposed part of w(N), less what is waiting for the slowest rank
    straggler       waiting for the slowest rank: the larger of (slowest - median rank's step) and, where one
                    rank computes slower than the others in all launches, what it computes longer than their mean
    input           input wait of w(N) less the base case's
    contention      compute at N less compute of one worker with the same batch per worker: workers slow each
                    other's computing, by what they share (memory bandwidth, caches, cores, power)
    batch           compute of one worker with that batch less compute with the batch of the curve's start
    growth          both of these, where no run of one worker with that batch tells them apart
    wrapping        compute of the strategy at one worker less the base case's step

The parts add up to 1 - E exactly. A part is named as a cause if it takes at least THRESHOLD of the worker
time and its interval lies above zero; nothing is named where the curve itself is not shown to bend, by the
same rule. tests/analysis/test_limits.py holds how often a cause is named that is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from analysis.load.results import Results
from analysis.measures.efficiency import KEY, MODES
from analysis.stats import bootstrap

THRESHOLD = 0.05  # of the worker time
CAUSES = ("communication", "straggler", "input", "contention", "batch", "growth", "wrapping", "fixed")
Values = dict[str, Any]  # per name a float (the mean over launches) or float64 [resamples]
Share = tuple[float, float, float]


@dataclass(frozen=True)
class Part:
    """A part of the worker time as a share of it, with its interval (NaN without one)."""

    share: float
    low: float
    high: float

    @property
    def named(self) -> bool:
        return self.share >= THRESHOLD and self.low > 0.0


@dataclass(frozen=True)
class Limit:
    """One point of a curve and what limits it there.

    `state`: "bends", "straight" (what is lost is below THRESHOLD, and so is its interval), "unclear",
    or "base" for the base case itself. `loss` is 1 - efficiency, None without anything to compare with;
    `against_itself` if that is the strategy at one worker, as the base case was not measured.
    `slow_rank` is the rank that computes slowest, if that is what `straggler` is. `seen` is what telemetry
    tells of the point: "neighbour" in cores, "throttled" and "idle" as shares of the GPUs' time.
    """

    point: dict[str, Any]
    state: str
    loss: Part | None
    parts: dict[str, Part] = field(default_factory=dict)
    seen: dict[str, Part] = field(default_factory=dict)
    slow_rank: int | None = None
    broken_down: bool = True
    against_itself: bool = False
    shown: bool = True

    @property
    def named(self) -> list[str]:
        """The causes, largest first."""
        if self.state not in ("bends", "base"):
            return []
        return sorted((c for c, part in self.parts.items() if part.named), key=lambda c: -self.parts[c].share)


@dataclass(frozen=True)
class _Costs:
    """Worker seconds per sample of the launches of a point: w whole, e exposed, d input wait, s straggler
    (slowest - median), v compute, r the slow rank's excess."""

    n: int
    values: Values
    draws: Values
    seen: dict[str, Part]
    slow_rank: int | None


Points = dict[tuple[Any, ...], _Costs]  # by strategy, workers, global batch and the factors


def limits(
    results: Results,
    estimates: pl.DataFrame,
    ranks: pl.DataFrame | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = bootstrap.RESAMPLES,
) -> list[Limit]:
    """One per row of `estimates`, in its order; `shown` marks the largest worker count of each curve and
    where the answer changes on the way there. `ranks` is that of analysis.measures.distribution."""
    by_rank = {} if ranks is None or not len(ranks) else _by_rank(ranks)
    points: Points = {}
    names = ["strategy", "workers", "global_batch", *results.factors]
    ok = results.trials.filter(pl.col("status") == "ok", pl.any_horizontal(*MODES))
    for rows in ok.partition_by(names, maintain_order=True) if len(ok) else []:
        points[rows.select(names).row(0)] = _costs(rows, by_rank, confidence, resamples)
    found: list[Limit] = []
    for row in estimates.iter_rows(named=True):
        around = _Around(row, estimates, points, results.factors)
        found.append(_limit(row, around, results.factors, confidence))
    return _marked(found, results.factors)


def _by_rank(ranks: pl.DataFrame) -> dict[str, pl.DataFrame]:
    several = ranks.filter(pl.len().over("trial_id") > 1).drop_nulls("compute_only_seconds")
    return {str(key[0]): rows.sort("rank") for key, rows in several.partition_by("trial_id", as_dict=True).items()}


def _costs(rows: pl.DataFrame, by_rank: dict[str, pl.DataFrame], confidence: float, resamples: int) -> _Costs:
    per_sample = pl.col("workers") / pl.col("global_batch")
    table = rows.select(
        w=pl.col("workers") * pl.col("train_seconds") / pl.col("samples"),
        e=pl.col("exposed_seconds") * per_sample,
        d=pl.col("data_seconds") * per_sample,
        s=pl.col("straggler_seconds") * per_sample,
    ).with_columns(v=pl.col("w") - pl.col("e") - pl.col("d"))
    values = table.cast(pl.Float64).to_numpy()
    rank, excess = _slow_rank(rows["trial_id"].to_list(), by_rank, confidence)
    scale = rows["workers"][0] / rows["global_batch"][0]
    # Not known in one launch is not known of the point: its columns are to share their resamples.
    known = {name for name in table.columns if table[name].null_count() == 0}
    columns = np.column_stack([np.nan_to_num(values), excess * scale])
    means = dict(zip((*table.columns, "r"), bootstrap.resampled(columns, resamples, 0, rows["point"][0]), strict=True))
    return _Costs(
        len(rows),
        {name: mean.value if name == "r" or name in known else math.nan for name, mean in means.items()},
        {name: mean.draws for name, mean in means.items()},
        _seen(rows, confidence, resamples),
        rank,
    )


def _seen(rows: pl.DataFrame, confidence: float, resamples: int) -> dict[str, Part]:
    """What telemetry tells beside the steps, over the launches that have it."""
    table = rows.select(
        neighbour=pl.col("others_cores").fill_null(0.0) + pl.col("stolen_cores").fill_null(0.0),
        throttled="throttled_share",
        idle=1.0 - pl.col("gpu_sm_percent") / 100.0,
    ).with_columns(
        pl.when(rows["noisy_neighbour"].is_null()).then(None).otherwise(pl.col("neighbour")).alias("neighbour")
    )
    found = {}
    for name in table.columns:
        if len(values := table[name].drop_nulls()):
            (mean,) = bootstrap.resampled(values.to_numpy()[:, None], resamples, 0, rows["point"][0])
            found[name] = Part(mean.value, *mean.interval(confidence))
    return found


def _slow_rank(trials: Sequence[str], by_rank: dict[str, pl.DataFrame], confidence: float) -> tuple[int | None, Any]:
    """The rank that computes slowest over all launches, and by launch how many seconds per step it computes
    longer than the mean rank: [launches]. None and zeros if no rank does so beyond chance.

    It is the largest of as many as there are ranks, so its interval is at Bonferroni's level.
    """
    nobody = None, np.zeros(len(trials))
    frames = [by_rank[trial]["compute_only_seconds"].to_numpy() for trial in trials if trial in by_rank]
    if len(frames) != len(trials) or len(trials) < 2 or len({len(frame) for frame in frames}) != 1:
        return nobody
    seconds = np.stack(frames)  # [launches, ranks]
    excess = seconds - seconds.mean(axis=1, keepdims=True)
    slowest = int(excess.mean(axis=0).argmax())
    mine = excess[:, slowest]
    level = 1.0 - (1.0 - confidence) / seconds.shape[1]
    low, _ = bootstrap.student(mine.mean(), [mine.var(ddof=1) / len(mine)], [len(mine)], level)
    return (slowest, mine) if low > 0 else nobody


class _Around:
    """The point of a row and the ones it is held against; None where they were not measured."""

    def __init__(self, row: dict[str, Any], estimates: pl.DataFrame, points: Points, factors: Sequence[str]) -> None:
        setting = tuple(row[name] for name in factors)

        def at(strategy: str | None, batch: int | None) -> _Costs | None:
            return points.get((strategy, 1, batch, *setting))

        first = estimates.filter(
            pl.col("scaling") == row["scaling"],
            pl.col("workers") == 1,
            *(pl.col(name).eq_missing(row[name]) for name in factors),
        )
        start: dict[str, int] = dict(first.select("strategy", "global_batch").iter_rows())
        strategy, worker_batch = row["strategy"], row["global_batch"] // row["workers"]
        self.here = points[(strategy, row["workers"], row["global_batch"], *setting)]
        self.base = at(row["base_case"], start.get(row["base_case"]))
        self.itself = at(strategy, start.get(strategy))
        self.same_batch = at(strategy, worker_batch)
        self.batch_shrinks = start.get(strategy) != worker_batch
        self.batch: int = row["global_batch"]
        self.other_batches = {
            key[2]: costs
            for key, costs in points.items()
            if key[:2] == (strategy, 1) and key[3:] == setting and key[2] != self.batch
        }


def _limit(row: dict[str, Any], around: _Around, factors: Sequence[str], confidence: float) -> Limit:
    here = around.here
    point = {name: row[name] for name in (*KEY, *factors)}
    known = not math.isnan(here.values["e"])
    if row["communication"] == "none" or (row["workers"] == 1 and row["strategy"] == row["base_case"]):
        return Limit(point, "base", None, _evaluated(_shares_of_base_case(around), confidence), here.seen)
    against_itself = row["efficiency"] is None
    suffix = "_self" if against_itself else ""
    kept, low, high = (row[f"efficiency{suffix}{end}"] for end in ("", "_low", "_high"))
    if kept is None or (against_itself and row["workers"] == 1):
        return Limit(point, "unclear", None, seen=here.seen, broken_down=known)
    loss = Part(1 - kept, math.nan if high is None else 1 - high, math.nan if low is None else 1 - low)
    state = "bends" if loss.named else "straight" if loss.high < THRESHOLD else "unclear"
    parts = _evaluated(_shares(around, known), confidence)
    slow_rank = here.slow_rank if here.values["r"] > here.values["s"] else None
    return Limit(point, state, loss, parts, here.seen, slow_rank, known, against_itself)


Shares = dict[str, tuple[Callable[..., Any], list[_Costs]]]  # cause ─▶ its share of w as a function of points


def _shares(around: _Around, known: bool) -> Shares:
    """The causes of what the point of `around` loses; see the top of this file."""
    here, base, itself, same = around.here, around.base, around.itself, around.same_batch
    behind = "r" if here.values["r"] > here.values["s"] else "s"
    found: Shares = {"straggler": (lambda h: h[behind] / h["w"], [here])}
    if base or itself:
        found["input"] = (lambda h, one: (h["d"] - one["d"]) / h["w"], [here, base or itself])  # type: ignore[list-item]
    if not known:
        return found
    found["communication"] = (lambda h: (h["e"] - h[behind]) / h["w"], [here])
    if itself is None:
        if base:  # its step is all compute but for the input: there is nobody to communicate with
            found["growth"] = (lambda h, one: (h["v"] - one["w"] + one["d"]) / h["w"], [here, base])
        return found
    if base:
        found["wrapping"] = (lambda h, s, one: (s["v"] - one["w"] + one["d"]) / h["w"], [here, itself, base])
    if here is itself:
        return found
    if same is None:
        found["growth"] = (lambda h, s: (h["v"] - s["v"]) / h["w"], [here, itself])
        return found
    found["contention"] = (lambda h, s: (h["v"] - s["v"]) / h["w"], [here, same])
    if around.batch_shrinks:
        found["batch"] = (lambda h, s, one: (s["v"] - one["v"]) / h["w"], [here, same, itself])
    return found


def _shares_of_base_case(around: _Around) -> Shares:
    """Of a plain process: input wait, and what of a step does not shrink with the batch.

    The second is the intercept of the line through the steps of the two batch sizes that are farthest
    apart, T = a + b · batch.
    """
    here, batch = around.here, around.batch
    found: Shares = {"input": (lambda h: h["d"] / h["w"], [here])}
    if around.other_batches:
        other = max(around.other_batches, key=lambda size: abs(math.log(size / batch)))
        scale = other / (other - batch)
        found["fixed"] = (lambda h, o: scale * (h["w"] - o["w"]) / h["w"], [here, around.other_batches[other]])
    return found


def _evaluated(shares: Shares, confidence: float) -> dict[str, Part]:
    return {cause: _part(share, points, confidence) for cause, (share, points) in shares.items()}


def _part(share: Callable[..., Any], points: list[_Costs], confidence: float) -> Part:
    """The share at the means, and its interval: each point's launches are resampled in turn, and their
    variances add, since they are different launches."""
    distinct = list({id(point): point for point in points}.values())

    def at(moved: _Costs | None) -> Any:
        return share(*(point.draws if point is moved else point.values for point in points))

    centre = float(at(None))
    variances = [float(np.var(at(point))) for point in distinct]
    return Part(centre, *bootstrap.student(centre, variances, [point.n for point in distinct], confidence))


def _marked(found: list[Limit], factors: Sequence[str]) -> list[Limit]:
    """Those shown: the largest worker count of each curve, and where the answer is another than before."""
    curves: dict[tuple[Any, ...], list[Limit]] = {}
    for limit in found:
        curves.setdefault(tuple(limit.point[name] for name in ("scaling", "strategy", *factors)), []).append(limit)
    shown = set()
    for curve in curves.values():
        curve.sort(key=lambda limit: limit.point["workers"])
        for before, limit in zip([None, *curve], curve, strict=False):
            same = before is not None and (before.state, set(before.named)) == (limit.state, set(limit.named))
            if limit is curve[-1] or not same:
                shown.add(id(limit))
    return [limit if id(limit) in shown else replace(limit, shown=False) for limit in found]
