"""The probe of a machine's peaks: what it says was done, on the cores it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from cluster.local import machine
from jobs.machine import peaks
from tests.running import until


def test_peaks_are_measured_on_one_core_and_no_plain_product_is_faster() -> None:
    done = subprocess.run([sys.executable, "-m", "jobs.machine.peaks"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert len(found["cpus"]) == found["threads"] == 1
    a = np.random.default_rng(0).random((512, 512), dtype=np.float32)
    begin, cpu = time.perf_counter(), time.process_time()
    a @ a
    seconds = max(time.perf_counter() - begin, time.process_time() - cpu)  # of all threads, where there are several
    assert 2 * 512**3 / seconds < 1.5 * found["compute"]["flop_per_second"]
    moved = found["bandwidth"]
    assert moved["array_bytes"] >= min(64e6, 4 * (moved["last_level_cache_bytes"] or 0))
    assert 1e8 < moved["bytes_per_second"] < 1e13


def test_the_largest_cache_is_what_the_kernel_says(tmp_path: Path) -> None:
    for index, size in enumerate(("48K", "1024K", "32M")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(size + "\n")
    assert peaks.last_level_cache(tmp_path) == 32 * 2**20
    assert peaks.last_level_cache(tmp_path / "nowhere") is None


@pytest.mark.parametrize("arguments", [["0"], ["x"], ["1", "2"]])
def test_wrong_arguments_are_one_line(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="usage"):
        peaks.main(arguments)


def test_a_folder_with_trials_is_not_described_by_the_machine_that_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def answer(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        calls.append(command)
        return subprocess.CompletedProcess(command, 0, b'{"cpu": "x"}', b"")

    monkeypatch.setattr(subprocess, "run", answer)
    machine.describe(tmp_path, 2)
    assert json.loads((tmp_path / "machine.json").read_text()) == {"cpu": "x"}
    machine.describe(tmp_path, 2)
    assert [command[-1] for command in calls] == ["2"]
    old = tmp_path / "old"
    (old / "trials" / "torch-n1-b64-01234567-r00").mkdir(parents=True)
    machine.describe(old, 1)
    assert not (old / "machine.json").exists()
    assert len(calls) == 1


def test_where_peaks_cannot_be_measured_there_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    machine.describe(tmp_path, 1)
    monkeypatch.setattr(sys, "executable", "/bin/true" if os.path.exists("/bin/true") else "/usr/bin/true")
    machine.describe(tmp_path, 1)  # says nothing, so there is nothing to read
    assert not (tmp_path / "machine.json").exists()


def test_the_measurement_dies_with_who_asked_for_it(tmp_path: Path) -> None:
    code = "import sys, pathlib; from cluster.local import machine; machine.describe(pathlib.Path(sys.argv[1]), 1)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as asks:
        (measures,) = until(psutil.Process(asks.pid).children, 20)
        assert "jobs.machine.peaks" in until(measures.cmdline, 5)
        until(lambda: measures.cpu_times().user > 0.1, 20)  # it has tied itself to the other by then
        asks.kill()
    until(lambda: not measures.is_running() or measures.status() == psutil.STATUS_ZOMBIE, 2)
    assert not (tmp_path / "machine.json").exists()
