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
same rule. tests/analysis/limits/test_limit.py holds how often a cause is named that is none.

Where the base case ran beside, all of these are in pairs: each launch's over what its own companion took, so that
w_base is 1 and noise that both had cancels; they add up to 1 - E up to half the variance of its logarithm, since E is a
geometric mean then. If a companion has a worker's batch, two take the place of the last four, from the same launches:

    process         compute at N less the step of that companion: what workers share, and what a rank does beside
                    computing, as Horovod's thread that never sleeps
    batch           the step of that companion less the one of the batch of the curve's start, in strong scaling
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from analysis.limits.causes import Around, evaluated, shares, shares_of_base_case
from analysis.limits.costs import THRESHOLD, Part, Points, costs_by_rank, costs_of, pairs_of
from analysis.load.results import Results
from analysis.measures.beside import COSTS
from analysis.measures.efficiency import KEY, MODES
from analysis.stats import bootstrap


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
    by_rank = {} if ranks is None or not len(ranks) else costs_by_rank(ranks)
    names = ["strategy", "workers", "global_batch", *results.factors]
    ok = results.trials.filter(pl.col("status") == "ok", pl.any_horizontal(*MODES))

    def costs(launches: pl.DataFrame) -> Points:
        alike = launches.partition_by([*names, "base_beside"], maintain_order=True) if len(launches) else []
        # Of two of the same factors, the one without companions is the one that is asked for here.
        alike.sort(key=lambda rows: rows["base_beside"][0] in (None, "[]"))
        return {rows.select(names).row(0): costs_of(rows, by_rank, confidence, resamples) for rows in alike}

    points, in_blocks = costs(ok), ok.filter("in_blocks")
    pairs = {mode: costs(pairs_of(in_blocks.filter(pl.col(mode)), cost)) for mode, cost in COSTS.items()}
    found: list[Limit] = []
    for row in estimates.iter_rows(named=True):
        paired = row["efficiency_from"] == "beside"
        around = Around(row, estimates, pairs[row["scaling"]] if paired else points, results.factors, paired)
        found.append(_limit(row, around, results.factors, confidence))
    return _marked(found, results.factors)


def _limit(row: dict[str, Any], around: Around, factors: Sequence[str], confidence: float) -> Limit:
    here = around.here
    point = {name: row[name] for name in (*KEY, *factors)}
    known = not math.isnan(here.values["e"])
    if row["communication"] == "none" or (row["workers"] == 1 and row["strategy"] == row["base_case"]):
        return Limit(point, "base", None, evaluated(shares_of_base_case(around), confidence), here.seen)
    against_itself = row["efficiency"] is None
    suffix = "_self" if against_itself else ""
    kept, low, high = (row[f"efficiency{suffix}{end}"] for end in ("", "_low", "_high"))
    if kept is None or (against_itself and row["workers"] == 1):
        return Limit(point, "unclear", None, seen=here.seen, broken_down=known)
    loss = Part(1 - kept, math.nan if high is None else 1 - high, math.nan if low is None else 1 - low)
    state = "bends" if loss.named else "straight" if loss.high < THRESHOLD else "unclear"
    parts = evaluated(shares(around, known), confidence)
    slow_rank = here.slow_rank if here.values["r"] > here.values["s"] else None
    return Limit(point, state, loss, parts, here.seen, slow_rank, known, against_itself)


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
