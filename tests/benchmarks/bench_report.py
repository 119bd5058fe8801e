"""How fast the report of a study as large as the quick one is written. Run by `make bench`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.analysis import generate

pytestmark = pytest.mark.bench

LIMIT_SECONDS = 6.0
WRITE = "import sys; from pathlib import Path; from analysis.report import write; print(write(Path(sys.argv[1])))"


def test_the_quick_study_is_reported_in_six_seconds(tmp_path: Path) -> None:
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
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", WRITE, str(folder)], check=True)
    seconds = time.perf_counter() - begin
    print(f"report of the quick study, start of Python included: {seconds:.1f} s")
    assert seconds <= LIMIT_SECONDS
