"""Who runs beside whom (tests/lanes.py)."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import pytest

from tests import lanes
from tests.running import until

ROOT = Path(__file__).parents[1]


def test_every_file_of_a_lane_is_there_and_in_no_other() -> None:
    files = [file for those in lanes.LANES.values() for file in those]
    assert len(files) == len(set(files))
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_tests_of_a_lane_come_first_and_in_its_order() -> None:
    first, second = lanes.LANES["launchers"][:2]
    names = [f"{second}::test_a", "tests/test_lanes.py::test_b[tests/x]", f"{first}::test_c"]
    assert sorted(names, key=lanes.place) == [names[2], names[0], names[1]]


def test_a_quiet_test_runs_alone_and_is_not_overtaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    order: list[str] = []
    may_end = threading.Event()

    def test(name: str, quiet: bool) -> threading.Thread:
        def run() -> None:
            with lanes.beside_others(quiet):
                order.append(name)
                may_end.wait(20)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    running = [test("one", False), test("another", False)]
    until(lambda: len(order) == 2, 10)  # these do not wait for each other
    running.append(test("quiet", True))
    running[-1].join(0.2)
    assert len(order) == 2
    running.append(test("late", False))
    running[-1].join(0.2)
    may_end.set()
    for thread in running:
        thread.join(20)
    assert order[2:] == ["quiet", "late"]
