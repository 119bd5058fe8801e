"""Comparisons of two frameworks at one number of workers, and the verdict on each.

"The best strategy of each framework" is not chosen by looking: that would favour the framework with
more strategies. It is tested as it stands. The best of A beats the best of B if some strategy of A beats
every one of B, so the p value of one strategy of A is the largest over B's (an intersection-union test,
Berger 1982, Technometrics 24(4), 295-300), and over A's strategies Bonferroni's correction is made. The
bounds of the ratio come from the same argument.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from analysis.load.results import Results, varied
from analysis.measures.beside import log_speedups
from analysis.stats.ratios import LogRate, LogRatio, holm, log_ratio

MODES = ("strong", "weak")
ALPHA = 0.05  # of a family of comparisons, two-sided


@dataclass(frozen=True)
class Side:
    """A product of rates over another, from launches `records` of one strategy: an efficiency, say.

    `steps_per_call` above 1 makes another way to train of a strategy, with a base case of its own.
    """

    name: str
    communication: str
    steps_per_call: int
    above: tuple[LogRate, ...]
    below: tuple[LogRate, ...]
    records: tuple[str, ...]
    launches: int
    base_records: tuple[str, ...] = ()  # those of them that are its base case's
    paired: tuple[LogRate, ...] = ()  # of its launches over the base case beside each, if there was one

    def over(self, other: Side) -> LogRatio:
        """The ratio of the two; a rate that both share cancels."""
        above, below = [*self.above, *other.below], [*self.below, *other.above]
        for rate in list(above):
            if rate in below:
                above.remove(rate)
                below.remove(rate)
        return log_ratio(above, below)


@dataclass(frozen=True)
class Comparison:
    """One ratio with its interval (at the level that Holm's correction leaves it) and verdict.

    `p` is two-sided; `launches` are the fewest on either side; `records` the trials it stands on.
    """

    name: str
    scaling: str
    workers: int
    factors: dict[str, Any]
    ratio: float
    low: float
    high: float
    p: float
    p_holm: float
    launches: tuple[int, int]
    sides: tuple[tuple[Side, ...], tuple[Side, ...]]
    verdict: str = "inconclusive"
    primary: bool = False
    warnings: tuple[str, ...] = ()  # of what its sides do not share

    @property
    def records(self) -> tuple[str, ...]:
        return tuple(sorted({r for side in self.sides for one in side for r in one.records}))

    def where(self) -> str:
        """The cell in a few words."""
        factors = "".join(f", {name} {value}" for name, value in self.factors.items())
        return (f"{self.scaling} at {self.workers}" if self.scaling in MODES else self.scaling) + factors

    @staticmethod
    def columns() -> tuple[str, ...]:
        return (
            "comparison", "primary", "scaling", "workers", "factors", "above", "below", "ratio", "low", "high",
            "p", "p_holm", "launches_above", "launches_below", "verdict",
        )  # fmt: skip

    def row(self) -> dict[str, Any]:
        """As plain values, by `columns`."""
        names = [", ".join(dict.fromkeys(s.name for s in side)) for side in self.sides]
        factors = ", ".join(f"{k}={v}" for k, v in self.factors.items())
        values = (
            self.name, self.primary, self.scaling, self.workers, factors, *names, self.ratio, self.low, self.high,
            self.p, self.p_holm, *self.launches, self.verdict,
        )  # fmt: skip
        return dict(zip(self.columns(), values, strict=True))


@dataclass(frozen=True)
class Rates:
    """The launches of one scaling mode, worker count and setting of the factors; base cases beside."""

    scaling: str  # or, where nothing is scaled, what the cell is, in words
    workers: int
    factors: dict[str, Any]
    here: pl.DataFrame
    bases: pl.DataFrame

    @staticmethod
    def cells(results: Results, trials: pl.DataFrame | None = None, from_one_worker: bool = False) -> Iterator[Rates]:
        """Every cell above one worker (or from it), with successful training launches only."""
        ok = (results.trials if trials is None else trials).filter(status="ok")
        if "workload" in ok.columns:
            ok = ok.filter(pl.col("workload").fill_null("train") == "train")
        # Eager PyTorch has one step per call: more make sides within a cell, not cells.
        shared = [name for name in results.factors if name != "steps_per_call"]
        apart = varied(ok, shared)
        for mode in ("strong", "weak"):
            rows = ok.filter(pl.col(mode))
            parts = rows.partition_by(apart, maintain_order=True) if apart and len(rows) else [rows]
            for part in parts:
                factors = {name: part[name][0] for name in apart} if len(part) else {}
                base = pl.col("communication") == "none"
                if "base_case" in part.columns:
                    base |= (pl.col("strategy") == pl.col("base_case")).fill_null(False)
                bases = part.filter(base & (pl.col("workers") == 1))
                for workers in sorted(part["workers"].unique().to_list()):
                    if workers > 1 or from_one_worker:
                        yield Rates(mode, workers, factors, part.filter(workers=workers), bases)

    @staticmethod
    def of_strategies(results: Results, trials: pl.DataFrame, without: Sequence[str]) -> Iterator[Rates]:
        """Every cell of one strategy at one number of workers and batch, with successful launches only;
        the factors `without` are what will be compared within it."""
        ok = trials.filter(status="ok")
        shared = [name for name in results.factors if name not in without]
        apart = varied(ok, shared)
        keys = ["strategy", "workers", "global_batch", *apart]
        for part in ok.partition_by(keys, maintain_order=True) if len(ok) else []:
            factors = {name: part[name][0] for name in apart}
            workers = part["workers"][0]
            here = f"batch {part['global_batch'][0]}" + (f", {workers} workers" if workers > 1 else "")
            yield Rates(here, workers, factors, part, part.clear())

    def sides(self, chosen: pl.Expr) -> list[Side]:
        """Per strategy: the throughput of the launches that are `chosen`."""
        return self._sides(self.here.filter(chosen))

    def efficiencies(self, framework: str) -> list[Side]:
        """Per strategy of `framework`: throughput over its base case's, from pairs where that ran beside each launch. N
        cancels between frameworks."""
        found = self._sides(self.bases.filter(framework=framework))
        bases = {side.steps_per_call: side for side in found if side.communication == "none"}
        own = {side.name: side for side in found if side.communication != "none"}
        wrapped = (pl.col("framework") == framework) & (pl.col("communication") != "none")
        sides = _pairs_first(self._sides(self.here.filter(wrapped)))
        return [replace(side, above=side.paired) for side in sides if side.paired] + [
            replace(
                side,
                below=base.above,
                records=(*side.records, *base.records),
                base_records=base.records,
                launches=min(side.launches, base.launches),
            )
            for side in sides
            if not side.paired and (base := own.get(side.name) or bases.get(side.steps_per_call))
        ]

    def throughputs(self, framework: str, other: bool = False) -> list[Side]:
        """Per strategy of `framework` (or of every other one): its throughput."""
        same = pl.col("framework") == framework
        return self._sides(self.here.filter(~same if other else same))

    def interaction(self) -> tuple[list[Side], list[Side]] | None:
        """(TF native / PyTorch native) over (TF Horovod / PyTorch Horovod); base cases cancel.

        TensorFlow's native strategy here is the one with a process per worker, as PyTorch's is.
        """
        names = ("tf-multiworker", "torch-ddp", "tf-horovod", "torch-horovod")
        found = {side.name: side for side in plain(_pairs_first(self._sides(self.here)))}
        if not all(name in found for name in names):
            return None
        four = [found[name] for name in names]
        if all(side.paired for side in four):
            four = [replace(side, above=side.paired) for side in four]
        native, native_other, horovod, horovod_other = four
        return [_quotient("native", native, native_other)], [_quotient("Horovod", horovod, horovod_other)]

    def _sides(self, rows: pl.DataFrame) -> list[Side]:
        sides = []
        keys = [name for name in ("strategy", "steps_per_call", "base_beside") if name in rows.columns]
        for part in rows.partition_by(keys, maintain_order=True) if len(rows) else []:
            rate = LogRate.of(part["throughput"].to_numpy())
            steps = int(part["steps_per_call"][0] or 1) if "steps_per_call" in keys else 1
            name = part["strategy"][0] + (f" ({steps} steps per call)" if steps > 1 else "")
            communication, records = part["communication"][0], tuple(part["trial_id"])
            logs = log_speedups(part, self.scaling) if self.scaling in MODES else None
            paired = () if logs is None else (LogRate.of_logs(logs),)
            sides.append(Side(name, communication, steps, (rate,), (), records, len(part), paired=paired))
        return sides


def without_stand_ins(trials: pl.DataFrame) -> pl.DataFrame:
    """Those that ran on what they are about: no verdict rests on CPU devices that stood in for a TPU's cores."""
    return trials.filter(~pl.col("emulated").fill_null(False))


def plain(sides: Sequence[Side]) -> list[Side]:
    """Those with the fewest steps per call: the closest there is to what the other framework does."""
    fewest = min((side.steps_per_call for side in sides), default=1)
    return [side for side in sides if side.steps_per_call == fewest]


def _pairs_first(sides: Sequence[Side]) -> list[Side]:
    """Without those of a strategy that had no base case beside, where others of it had."""
    known = {side.name for side in sides if side.paired}
    return [side for side in sides if side.paired or side.name not in known]


def _quotient(name: str, above: Side, below: Side) -> Side:
    records, launches = above.records + below.records, min(above.launches, below.launches)
    return Side(f"{above.name} / {below.name}", name, 1, above.above, below.above, records, launches)


def compared(name: str, cell: Rates, above: Sequence[Side], below: Sequence[Side]) -> Comparison:
    """The best of `above` against the best of `below`, not yet corrected for other comparisons."""
    ratios = [[a.over(b) for b in below] for a in above]
    best = max(min(r.log for r in row) for row in ratios)
    chosen = next(r for row in ratios for r in row if r.log == best)
    up = min(1.0, len(above) * min(max(r.p_not_above() for r in row) for row in ratios))
    down = min(1.0, len(below) * min(max(row[j].p_not_below() for row in ratios) for j in range(len(below))))
    p = min(1.0, 2 * min(up, down))
    launches = min(s.launches for s in above), min(s.launches for s in below)
    sides = (tuple(above), tuple(below))
    low, high = _bounds(ratios, ALPHA)
    return Comparison(name, cell.scaling, cell.workers, cell.factors, chosen.ratio, low, high, p, p, launches, sides)


def _bounds(ratios: Sequence[Sequence[LogRatio]], level: float) -> tuple[float, float]:
    """Bounds of max over rows of the least of a row, each missed with probability at most `level` / 2."""
    rows, columns = len(ratios), len(ratios[0])
    low = max(min(r.low(level / 2 / rows) for r in row) for row in ratios)
    high = min(max(row[j].high(level / 2 / columns) for row in ratios) for j in range(columns))
    return low, high


def decided(family: Sequence[Comparison], margin: float, primary: bool) -> list[Comparison]:
    """The family with Holm's correction and verdicts.

    supported: significant, above 1, and the estimate beyond the margin; contradicted: its mirror image;
    no difference: the whole interval within the margin; else inconclusive.
    """
    found = []
    for comparison, corrected in zip(family, holm([c.p for c in family], ALPHA), strict=True):
        ratios = [[a.over(b) for b in comparison.sides[1]] for a in comparison.sides[0]]
        low, high = _bounds(ratios, corrected.level)
        c = replace(comparison, low=low, high=high, p_holm=corrected.p, primary=primary)
        found.append(replace(c, verdict=word_for(c.ratio, low, high, c.p_holm, margin)))
    return found


def word_for(ratio: float, low: float, high: float, p: float, margin: float) -> str:
    """The verdict on one comparison from its interval and its corrected p value."""
    upper, lower = 1 + margin, 1 / (1 + margin)
    if lower < low and high < upper:
        return "no difference"
    if p <= ALPHA and low > 1 and ratio > upper:
        return "supported"
    if p <= ALPHA and high < 1 and ratio < lower:
        return "contradicted"
    return "inconclusive"


def overall(words: Sequence[str]) -> str:
    """The verdict on a claim from those on its primary comparisons.

    Hypotheses speak of *each* worker count, batch or benchmark: "supported" and "no difference" must hold
    for all, while one counterexample contradicts, unless another comparison says the opposite.
    """
    if not words:
        return "untested"
    said = set(words)
    if len(said) == 1:
        return words[0]
    return "contradicted" if "contradicted" in said and "supported" not in said else "inconclusive"
