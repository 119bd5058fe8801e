"""A rank that hangs, and the signs of life of one that does not."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.rank.watchdog import Watchdog


def test_a_rank_that_hangs_ends_itself_and_says_where(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from jobs.rank.watchdog import Watchdog\n"
        "Watchdog(Path(sys.argv[1]), 0.5)\n"
        "def stuck_here(): time.sleep(60)\n"
        "stuck_here()"
    )
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", code, tmp_path / "alive"], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "stuck_here" in ended.stderr
    assert time.monotonic() - began < 30


def test_the_alive_file_tells_when_the_next_sign_is_due(tmp_path: Path) -> None:
    watchdog = Watchdog(tmp_path / "alive", 60.0)
    watchdog.allow(1000.0)
    assert (tmp_path / "alive").stat().st_mtime == pytest.approx(time.time() + 1000, abs=10)
    watchdog.stop()
