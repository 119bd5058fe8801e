"""Two results folders, point by point: what changed for real?

    compare(load(Path("results/monday")), load(Path("results/tuesday")))

Yesterday and today, Ray and SLURM, two clusters: points are matched by everything that defines them. A launch in blocks
measures other stretches of time than one of a phase after the other: such two are told, and not compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from analysis.load.results import Results
from analysis.load.trial import COLUMNS
from analysis.measures import caveats
from analysis.stats.ratios import LogRate, holm, log_ratio
from analysis.verdicts.contrast import ALPHA

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Change:
    """One point in both folders. `ratio` is throughput of B over A, with its interval at the level that
    Holm's correction leaves it; `real` says that the corrected test rejects "no change"."""

    point: str
    strategy: str
    workers: int
    global_batch: int
    launches: tuple[int, int]
    before: float
    after: float
    ratio: float
    low: float
    high: float
    p_holm: float

    @property
    def real(self) -> bool:
        return self.p_holm <= ALPHA

    @property
    def judged(self) -> bool:
        """Whether it could be told: one launch on a side tells no change."""
        return min(self.launches) > 1


@dataclass(frozen=True)
class Comparison:
    """All common points, and those that only one of the folders has. `differs` is what else than time is not the
    same where they were measured, a line each; `warned` what to warn of in either folder; `otherwise` the points that
    were measured in blocks, or with the base case beside, in one of the folders and not in the other."""

    changes: tuple[Change, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    differs: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()
    otherwise: tuple[str, ...] = ()

    def regressions(self, percent: float) -> list[Change]:
        """Points that became slower for real, by more than `percent` (estimate)."""
        return [c for c in self.changes if c.real and c.ratio < 1 - percent / 100]

    def unknown(self) -> list[str]:
        """Why it cannot be said that nothing became slower, a line each."""
        why = [f"{name}: has no launch in B that is ok" for name in self.only_before]
        why += [f"{line}, so not compared" for line in self.otherwise]
        why += [f"{c.point}: one launch on a side tells no change" for c in self.changes if not c.judged]
        return why or ([] if self.changes else ["the folders have no point in common"])


def compare(before: Results, after: Results) -> Comparison:
    """Match the points of two folders and compare their throughput; only launches that are ok count.

    A point's name is made from all its factors, so equal names are equal configurations.
    """
    sides = [results.trials.filter(status="ok") for results in (before, after)]
    names = [list(dict.fromkeys(side["point"])) if len(side) else [] for side in sides]
    apart = _otherwise(*sides)
    names = [[name for name in each if name not in out] for each, out in zip(names, apart, strict=True)]
    common = [point for point in names[0] if point in set(names[1])]
    rates = [[side.filter(point=point)["throughput"] for side in sides] for point in common]
    ratios = [log_ratio([LogRate.of(b.to_numpy())], [LogRate.of(a.to_numpy())]) for a, b in rates]
    corrected = holm([min(1.0, 2 * min(r.p_not_above(), r.p_not_below())) for r in ratios], ALPHA)
    changes = []
    for point, (a, b), ratio, c in zip(common, rates, ratios, corrected, strict=True):
        row = sides[0].filter(point=point).row(0, named=True)
        changes.append(
            Change(
                point=point,
                strategy=row["strategy"],
                workers=row["workers"],
                global_batch=row["global_batch"],
                launches=(len(a), len(b)),
                before=_harmonic(a),
                after=_harmonic(b),
                ratio=ratio.ratio,
                low=ratio.low(c.level / 2),
                high=ratio.high(c.level / 2),
                p_holm=c.p,
            )
        )
    measured = [_measured_by(results, side, common) for results, side in zip((before, after), sides, strict=True)]
    warned = [f"in {name}, {line}" for name, each in (("A", before), ("B", after)) for line in _warned(each, common)]
    differs = _differences(*measured)
    rest = [_rest(each, common) for each in names]
    return Comparison(tuple(changes), rest[0], rest[1], differs, tuple(warned), tuple(apart[0].values()))


def _otherwise(before: pl.DataFrame, after: pl.DataFrame) -> tuple[dict[str, str], dict[str, str]]:
    """Of each side, the points that the other has too, but measured in another way: point ─▶ what to say of it. The
    ways make another id, and are planned with other numbers of steps."""
    found: tuple[dict[str, str], dict[str, str]] = {}, {}
    if not len(before) or not len(after):
        return found
    shared = [name for name in before.columns if name in after.columns and name not in COLUMNS]
    same = ["strategy", "workers", "global_batch", *(name for name in shared if not name.startswith("steps_"))]
    one, two = (side.unique("point", keep="first", maintain_order=True).rows(named=True) for side in (before, after))
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for b in two:
        alike.setdefault(tuple(str(b[name]) for name in same), []).append(b)
    for a in one:
        others = alike.get(tuple(str(a[name]) for name in same), [])
        if others and all(_way(a) != _way(b) for b in others):
            b = others[0]
            said = f"{a['strategy']} n{a['workers']} b{a['global_batch']}: {_way(a)} in A, {_way(b)} in B"
            found[0][a["point"]] = said
            found[1].update((b["point"], said) for b in others)
    return found


def _way(launch: dict[str, Any]) -> str:
    if not launch["in_blocks"]:
        return "one phase after the other"
    return "in blocks" if launch["base_beside"] in (None, "[]") else "in blocks with the base case beside"


def _warned(results: Results, points: Sequence[str]) -> list[str]:
    """What to warn of in launches of these points, but for how few they are, which the table shows."""
    warned = caveats.by_point(results)
    return caveats.counted({point: [text for text in warned[point] if text != caveats.FEW] for point in points})


def _measured_by(results: Results, launches: pl.DataFrame, points: Sequence[str]) -> dict[str, set[str]]:
    """What the launches of these points were measured by and on: name ─▶ all that they say of it."""
    found: dict[str, set[str]] = {}
    for trial_id, launcher in launches.filter(pl.col("point").is_in(points)).select("trial_id", "launcher").iter_rows():
        outcome = results.outcome(trial_id)
        said: dict[str, Any] = {"launcher": launcher, "container": outcome.get("container")}
        for group in ("hardware", "versions", "environment"):
            values = outcome.get(group)
            said |= values if isinstance(values, dict) else {}
        for name, value in said.items():
            if value not in (None, "", [], {}):
                found.setdefault(name, set()).add(str(value))
    return found


def _differences(before: dict[str, set[str]], after: dict[str, set[str]]) -> tuple[str, ...]:
    """A line for each that is not the same."""
    names = dict.fromkeys([*before, *after])
    told = [
        (name, *(" / ".join(sorted(side.get(name, ()))) or "nothing" for side in (before, after))) for name in names
    ]
    return tuple(f"{name.replace('_', ' ')}: {a} in A, {b} in B" for name, a, b in told if a != b)


def _harmonic(rates: pl.Series) -> float:
    return float(len(rates) / (1 / rates).sum())


def _rest(names: Sequence[str], common: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in set(common))


def render(comparison: Comparison) -> RenderableType:
    """For the terminal: a row per point, and the points that have no counterpart."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("point", "n", "A", "B", "B / A", "changed"):
        table.add_column(name, justify="left" if name == "point" else "right", no_wrap=True)
    for c in comparison.changes:
        word, style = ("not shown" if c.judged else "one launch", "")
        if c.real:
            word, style = ("faster", "green") if c.ratio > 1 else ("slower", "red")
        cells = (
            *(f"{c.strategy} n{c.workers} b{c.global_batch}", f"{c.launches[0]}, {c.launches[1]}"),
            *(f"{c.before:,.0f}", f"{c.after:,.0f}", f"{c.ratio:.3f} [{c.low:.3f}, {c.high:.3f}]", word),
        )
        table.add_row(*(Text(cell) for cell in cells), style=style)
    above = [Text(f"not the same: {line}", style="yellow") for line in comparison.differs]
    above += [Text(f"warning: {line}", style="yellow") for line in comparison.warned]
    above += [Text(f"not compared: {line}", style="yellow") for line in comparison.otherwise]
    notes = [
        f"{len(comparison.changes)} common points (n workers, b global batch), in samples/s; intervals and tests are "
        "corrected for that number (Holm)."
    ]
    for folder, names in (("A", comparison.only_before), ("B", comparison.only_after)):
        notes += [f"only in {folder}: {name}" for name in names]
    return Group(*above, table, *(Text(note, style="dim") for note in notes))
