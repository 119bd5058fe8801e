"""Ratios with intervals and targets, printed and kept as JSON at once (build/bench.json, or where BENCH_JSON says).

A machine is shared, and no two are alike: so nothing is measured in seconds, but always over something else
that the same run has measured in turn with it. `make bench` runs all, `make bench PART=training` a part.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import numpy as np
from rich.table import Table
from scipy.stats import binom

from jobs.machine.cores import allowed_cores

LAUNCHES = int(os.environ.get("BENCH_LAUNCHES", "1"))  # 3 for narrower intervals, in three times the time
PACKAGES = ("torch", "tensorflow", "tensorflow-cpu", "horovod", "ray", "polars", "pandas", "matplotlib", "seaborn")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Goal:
    """What a ratio is wished to be, and the `limit` beyond which it is taken for a fault.

    Between the two is the room for what differs from launch to launch and from machine to machine.
    """

    sign: Literal["≥", "≤"]
    target: float
    limit: float

    def __str__(self) -> str:
        return f"{self.sign} {self.target:g}"


def at_least(target: float, limit: float) -> Goal:
    return Goal("≥", target, limit)


def at_most(target: float, limit: float) -> Goal:
    return Goal("≤", target, limit)


@dataclass(frozen=True)
class Figure:
    """The median of `count` ratios, the interval of the median, and its goal."""

    name: str
    median: float
    low: float
    high: float
    count: int
    goal: Goal
    note: str = ""

    @property
    def holds(self) -> bool:
        """False if the whole interval is beyond the limit."""
        return self._within(self.goal.limit, self.low, self.high)

    @property
    def verdict(self) -> str:
        """Whether the target is met by the whole interval, is open as the interval holds it, or is missed."""
        if not self.holds:
            return f"FAILED ({self.goal.sign} {self.goal.limit:g})"
        if self._within(self.goal.target, self.high, self.low):
            return "met"
        return "open" if self._within(self.goal.target, self.low, self.high) else "missed"

    def _within(self, bound: float, low: float, high: float) -> bool:
        return high >= bound if self.goal.sign == "≥" else low <= bound


class Part:
    """What one file of benchmarks has measured so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.figures: list[Figure] = []
        self.minutes = 0.0
        self._began = time.monotonic()
        self._about = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "cpus": len(allowed_cores()),
            "load": round(os.getloadavg()[0], 2),
            "versions": _versions(),
        }

    def keep(self, name: str, values: Sequence[float], goal: Goal, note: str = "") -> Figure:
        """Summarize `values`, print that and put it into the file, beside what other parts have there.

        The interval is free of distributions (order statistics) and covers at least 95 %; of fewer than
        six values it is their range.
        """
        assert len(values), f"{name}: nothing was measured, so busy is the machine"
        ordered = np.sort(values)
        n = len(ordered)
        below = max(0, int(binom.ppf(0.025, n, 0.5)) - 1)
        low, high = float(ordered[below]), float(ordered[n - 1 - below])
        figure = Figure(name, float(np.median(ordered)), low, high, n, goal, note)
        self.figures.append(figure)
        print(
            f"\n{self.name}: {name}: {figure.median:.4g} ({low:.4g} to {high:.4g}, n = {n}; "
            f"target {goal}, {figure.verdict}) {note}",
            flush=True,
        )
        self.save()
        return figure

    def save(self) -> None:
        """Whole or not at all: a run may be ended at any time."""
        self.minutes = round((time.monotonic() - self._began) / 60, 2)
        path = Path(os.environ.get("BENCH_JSON", ROOT / "build" / "bench.json"))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError):
            content = {}
        figures = [asdict(f) | {"verdict": f.verdict} for f in self.figures]
        content[self.name] = self._about | {"minutes": self.minutes, "figures": figures}
        new = path.with_name(f"{path.name}.new")
        new.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        new.replace(path)


def table(parts: Sequence[Part]) -> Table:
    shown = Table("part", "what", "median", "interval", "n", "target", "", "note", box=None)
    for part in parts:
        for f in part.figures:
            interval = f"{f.low:.4g} to {f.high:.4g}"
            median, count = f"{f.median:.4g}", str(f.count)
            shown.add_row(part.name, f.name, median, interval, count, str(f.goal), f.verdict, f.note)
    shown.caption = "intervals of the median: 95 %, of fewer than 6 values their range; minutes: " + ", ".join(
        f"{part.name} {part.minutes:.1f}" for part in parts
    )
    return shown


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
