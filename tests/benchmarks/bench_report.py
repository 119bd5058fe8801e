"""How fast a study as large as the quick one is reported and drawn: `make bench PART=report`, a minute on two cores.

Over as many plain seaborn figures, each as SVG and PNG too, drawn in turn. All with the start of Python and of the
packages; the report also loads and checks the results, compares strategies, and writes tables and a page.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.analysis import generate
from tests.benchmarks.ratios import LAUNCHES, Part, at_most

ROUNDS = 3 * LAUNCHES
BARE = Path(__file__).with_name("bare") / "bare_figures.py"
LOAD = "import sys; from pathlib import Path; from analysis{}; folder = Path(sys.argv[1]); "
REPORT = LOAD.format(".report.page import write") + "write(folder, folder / 'report')"
DRAW = (
    LOAD.format(".load.results import load; from analysis.figures.write import write_all")
    + "write_all(load(folder), folder / 'drawn')"
)

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]


def test_the_quick_study_is_reported_almost_as_soon_as_plain_figures_are_drawn(tmp_path: Path, part: Part) -> None:
    ways = [*generate.TWO_BY_TWO, generate.Way("tf-mirrored", 1150.0, generate.amdahl(0.1), generate.efficient(0.9))]
    folder = generate.study(
        tmp_path / "quick",
        ways=ways,
        workers=(1, 2),
        repeats=3,
        measured=40,
        compute_only=10,
        batch_global=64,
        per_worker=64,
    )
    reported, drawn, plain = [], [], []
    for turn in range(ROUNDS):
        reported.append(seconds(REPORT, folder))
        drawn.append(seconds(DRAW, folder))
        pictures = len(list((folder / "report" / "figures").glob("*.png")))
        plain.append(plain_figures(pictures, tmp_path / f"plain{turn}"))
    fewer = len(list((folder / "drawn").glob("*.png")))
    assert pictures >= fewer > 0
    figures = []
    for what, ours, count, target, limit in (
        ("report", reported, pictures, 1.2, 1.8),
        ("figures", drawn, fewer, 1.2, 1.8),
    ):
        theirs = [times[count - 1] for times in plain]
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        note = f"{count} figures: {np.median(ours):.2f} s / {np.median(theirs):.2f} s"
        figures.append(part.keep(f"{what} of the quick study / plain figures", ratios, at_most(target, limit), note))
    for figure in figures:
        assert figure.holds


def seconds(program: str, folder: Path) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True)
    return time.perf_counter() - began


def plain_figures(count: int, folder: Path) -> list[float]:
    """Seconds after which the first, the second … was drawn."""
    began = time.time()
    done = subprocess.run([sys.executable, BARE, str(count), folder], capture_output=True, text=True, check=True)
    return [at - began for at in json.loads(done.stdout)]
