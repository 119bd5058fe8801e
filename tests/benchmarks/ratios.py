"""Ratios with their intervals: shown as a table, kept as JSON (build/bench.json, or where BENCH_JSON says)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import binom

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Measured:
    """A quantity: median of `count` paired values, the interval of the median, and its target."""

    name: str
    median: float
    low: float
    high: float
    count: int
    target: str
    note: str = ""


def summarize(name: str, values: Sequence[float], target: str, note: str = "") -> Measured:
    """The median and its distribution-free interval of at least 95 % (order statistics; the extremes
    where there are too few values for that)."""
    ordered = np.sort(values)
    n = len(ordered)
    below = max(0, int(binom.ppf(0.025, n, 0.5)) - 1)
    low, high = float(ordered[below]), float(ordered[n - 1 - below])
    return Measured(name, float(np.median(ordered)), low, high, n, target, note)


def publish(part: str, measured: Sequence[Measured]) -> None:
    """Print `measured`, and put it into the JSON file under `part`, beside what other benchmarks wrote."""
    table = Table("what", "median", "95 % interval", "n", "target", "note", title=part, box=None)
    for m in measured:
        table.add_row(m.name, f"{m.median:.3f}", f"{m.low:.3f} to {m.high:.3f}", str(m.count), m.target, m.note)
    print("\n")
    Console(width=max(120, Console().width)).print(table)
    path = Path(os.environ.get("BENCH_JSON", ROOT / "build" / "bench.json"))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        content = {}
    content[part] = [asdict(m) for m in measured]
    path.write_text(json.dumps(content, indent=1) + "\n")
