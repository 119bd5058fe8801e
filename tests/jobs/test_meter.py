"""The timed loop and the watchdog."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jobs.data import Indices
from jobs.meter import Meter
from jobs.watchdog import Watchdog


@pytest.fixture
def watchdog(tmp_path: Path) -> Watchdog:
    dog = Watchdog(tmp_path / "alive", 60.0)
    yield dog
    dog.stop()


def test_each_step_is_timed_and_the_warm_up_is_marked(watchdog: Watchdog) -> None:
    order = np.arange(5 * 4, dtype=np.int32).reshape(5, 4)
    seen: list[Indices] = []

    def step(batch: Indices) -> float:
        seen.append(batch.copy())
        time.sleep(0.02 if len(seen) == 4 else 0.001)
        return float(len(seen))

    meter = Meter("train", order, warmup=2, steps_per_call=1)
    meter.run(step, watchdog, 60.0)
    rows = meter.rows()
    np.testing.assert_array_equal(np.concatenate(seen), order)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row.get("warmup", False) for row in rows] == [True, True, False, False, False]
    assert [row["loss"] for row in rows] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert {row["samples"] for row in rows} == {4}
    assert max(rows, key=lambda row: row["seconds"])["step"] == 3
    assert all(0 <= row["data_seconds"] <= row["seconds"] for row in rows)


def test_k_steps_per_call_share_the_calls_time(watchdog: Watchdog) -> None:
    meter = Meter("train", np.zeros((6, 2), np.int32), warmup=3, steps_per_call=3)
    meter.run(lambda batch: np.arange(len(batch), dtype=float), watchdog, 60.0)
    rows = meter.rows()
    assert [row["loss"] for row in rows] == [0, 1, 2] * 2
    assert len({row["seconds"] for row in rows[:3]}) == 1
    with pytest.raises(ValueError, match="multiples of 4"):
        Meter("train", np.zeros((6, 2), np.int32), warmup=2, steps_per_call=4)


def test_what_was_done_before_a_failure_is_kept(watchdog: Watchdog) -> None:
    def step(batch: Indices) -> float:
        if batch[0, 0] == 3:
            raise RuntimeError("gone")
        return float("nan")

    meter = Meter("train", np.arange(5, dtype=np.int32)[:, np.newaxis], warmup=0, steps_per_call=1)
    with pytest.raises(RuntimeError, match="gone"):
        meter.run(step, watchdog, 60.0)
    assert [row["loss"] for row in meter.rows()] == [None, None, None]


def test_a_rank_that_hangs_ends_itself_and_says_where(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from jobs.watchdog import Watchdog\n"
        "Watchdog(Path(sys.argv[1]), 0.5)\n"
        "def stuck_here(): time.sleep(60)\n"
        "stuck_here()"
    )
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", code, tmp_path / "alive"], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "stuck_here" in ended.stderr
    assert time.monotonic() - began < 30


def test_the_alive_file_tells_when_the_next_sign_is_due(tmp_path: Path, watchdog: Watchdog) -> None:
    watchdog.allow(1000.0)
    assert (tmp_path / "alive").stat().st_mtime == pytest.approx(time.time() + 1000, abs=10)
