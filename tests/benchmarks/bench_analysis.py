"""How fast a results folder becomes estimates and figures: `make bench PART=analysis`, a minute on two cores.

Trials of 1,000 ranks × 1,000 steps, three of them: 3 million step lines, or BENCH_MILLIONS of them. They are
loaded, checked, summarized and drawn in turn with a plain pandas read of a tenth of their files, times ten.
What Python and its packages take to start is in neither.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.analysis import generate
from tests.benchmarks.ratios import Part, at_most

MILLIONS = int(os.environ.get("BENCH_MILLIONS", "3"))
TURNS = 5
SHAPE = generate.Shape(warmup=10, measured=940, compute_only=50)
ANALYZE = Path(__file__).with_name("analyze.py")

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Turns:
    """What analyze.py measured, a row for each turn, and the bytes of the larger folder's step lines."""

    rows: list[dict[str, float]]
    size: int

    def over(self, one: str, other: str) -> list[float]:
        return [row[one] / row[other] for row in self.rows]

    def note(self, one: str, other: str) -> str:
        a, b = (np.median([row[name] for row in self.rows]) for name in (one, other))
        return f"{MILLIONS} million lines: {a:.2f} s / {b:.2f} s"


@pytest.fixture(scope="module")
def turns(part: Part, tmp_path_factory: pytest.TempPathFactory) -> Turns:
    """One of the trials is also a folder of its own, by a link."""
    base = tmp_path_factory.mktemp("bench")
    large, small = base / "large", base / "small"
    way, rng = generate.Way("torch-ddp", strong=generate.amdahl(0.001)), np.random.default_rng(0)
    homes = [
        generate.trial(large, way, 1000, 64_000, "strong", repeat=repeat, order=repeat, shape=SHAPE, rng=rng, sums=True)
        for repeat in range(MILLIONS)
    ]
    (small / "trials").mkdir(parents=True)
    (small / "trials" / homes[0].name).symlink_to(homes[0])
    done = subprocess.run(
        [sys.executable, ANALYZE, small, large, str(TURNS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Turns(json.loads(done.stdout), sum(file.stat().st_size for file in large.glob("trials/*/rank-*.jsonl")))


def test_estimates_are_there_in_a_fifth_of_what_pandas_reads_for(turns: Turns, part: Part) -> None:
    note = turns.note("read", "pandas")
    assert part.keep("load and estimate / a pandas read", turns.over("read", "pandas"), at_most(0.2, 0.3), note).holds


def test_figures_are_there_long_before_pandas_has_read(turns: Turns, part: Part) -> None:
    note = turns.note("drawn", "pandas")
    what = "load, estimate and draw / a pandas read"
    assert part.keep(what, turns.over("drawn", "pandas"), at_most(0.35, 0.5), note).holds


def test_comparing_sums_takes_little_of_the_reading(turns: Turns, part: Part) -> None:
    """SHA-256 of all bytes beside the parsing of them; on a processor that has instructions for it, or has not."""
    note = turns.note("loaded", "without")
    ratios = turns.over("loaded", "without")
    assert part.keep("load and compare sums / load", ratios, at_most(1.15, 1.3), note).holds


def test_time_grows_linearly_with_lines(turns: Turns, part: Part) -> None:
    """Processor time for each line, at 3 million over at one."""
    ratios = [ratio / MILLIONS for ratio in turns.over("large_cpu", "small_cpu")]
    assert part.keep(f"CPU time per line, {MILLIONS} million / 1", ratios, at_most(1.1, 1.5)).holds


def test_memory_grows_by_less_than_the_files(turns: Turns, part: Part) -> None:
    """From one million lines to 3; whoever keeps the lines as text needs more than the files' size."""
    memory, size = turns.rows[0]["memory"], turns.size * (1 - 1 / MILLIONS)
    note = f"{memory / 1e9:.2f} GB / {size / 1e9:.2f} GB"
    assert part.keep("further memory / further files", [memory / size], at_most(0.5, 0.8), note).holds
