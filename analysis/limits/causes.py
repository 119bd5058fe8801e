"""Costs of the points around one ─▶ the share of its worker time that each cause takes; limit.py has what they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

from analysis.limits.costs import BESIDE, Costs, Part, Points
from analysis.stats import bootstrap

CAUSES = ("communication", "straggler", "input", "process", "contention", "batch", "growth", "wrapping", "fixed")


class Around:
    """The point of a row and the ones it is held against; None where they were not measured. `paired` says that the
    costs of `points` are in pairs."""

    def __init__(
        self, row: dict[str, Any], estimates: pl.DataFrame, points: Points, factors: Sequence[str], paired: bool
    ) -> None:
        setting = tuple(row[name] for name in factors)

        def at(strategy: str | None, batch: int | None) -> Costs | None:
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
        if paired:
            self.base = self.base if self.base and self.base.n > 1 else BESIDE
            if self.batch_shrinks:
                self.same_batch = None  # which is over another base case's time
                self.batch_shrinks = row["scaling"] == "strong" and row["workers"] > 1
        self.batch: int = row["global_batch"]
        self.other_batches = {
            key[2]: costs
            for key, costs in points.items()
            if key[:2] == (strategy, 1) and key[3:] == setting and key[2] != self.batch
        }


Shares = dict[str, tuple[Callable[..., Any], list[Costs]]]  # cause ─▶ its share of w as a function of points


def shares(around: Around, known: bool) -> Shares:
    """The causes of what the point of `around` loses; see the top of limit.py."""
    here, base, itself, same = around.here, around.base, around.itself, around.same_batch
    behind = "r" if here.values["r"] > here.values["s"] else "s"
    found: Shares = {"straggler": (lambda h: h[behind] / h["w"], [here])}
    if base or itself:
        found["input"] = (lambda h, one: (h["d"] - one["d"]) / h["w"], [here, base or itself])  # type: ignore[list-item]
    if not known:
        return found
    found["communication"] = (lambda h: (h["e"] - h[behind]) / h["w"], [here])
    if base and not math.isnan(here.values["b"]):
        found["process"] = (lambda h, one: (h["v"] - h["b"] + one["d"]) / h["w"], [here, base])
        if around.batch_shrinks:
            found["batch"] = (lambda h, one: (h["b"] - one["w"]) / h["w"], [here, base])
        return found
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


def shares_of_base_case(around: Around) -> Shares:
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


def evaluated(shares: Shares, confidence: float) -> dict[str, Part]:
    return {cause: _part(share, points, confidence) for cause, (share, points) in shares.items()}


def _part(share: Callable[..., Any], points: list[Costs], confidence: float) -> Part:
    """The share at the means, and its interval: each point's launches are resampled in turn, and their
    variances add, since they are different launches."""
    distinct = list({id(point): point for point in points}.values())

    def at(moved: Costs | None) -> Any:
        return share(*(point.draws if point is moved else point.values for point in points))

    centre = float(at(None))
    variances = [float(np.var(at(point))) for point in distinct]
    return Part(centre, *bootstrap.student(centre, variances, [point.n for point in distinct], confidence))
