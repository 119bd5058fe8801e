"""What all tests share: in CI nothing may be skipped but for want of an accelerator; who runs beside whom."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.machine.cores import allowed_cores
from tests import lanes
from tests.missing import MAY_LACK, missing
from tests.warm import forges

MISSING = missing()
IN_CI = os.environ.get("CI") == "true"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# In the background of a shell Ctrl-C is ignored, by what is started from there too: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: lanes.place(item.nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> lanes.Lanes:
    config.option.loadscopereorder = False  # not by how many tests there are in a lane
    return lanes.Lanes(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with lanes.beside_others(quiet=item.get_closest_marker("quiet") is not None):
        return (yield)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, why in MISSING.items():
        if item.get_closest_marker(marker):
            pytest.skip(why)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failure: there, everything that a test may need is installed."""
    report = yield
    allowed = any(item.get_closest_marker(name) for name in MAY_LACK)
    if IN_CI and report.skipped and not hasattr(report, "wasxfail") and not allowed:
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Likewise a whole file that skips itself while it is imported."""
    report = yield
    if IN_CI and report.skipped:
        _fail(report)
    return report


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    report.outcome = "failed"
    report.longrepr = f"skipped, which CI takes for a failure: {report.longrepr}"


@pytest.fixture(scope="session")
def forge_folder() -> Iterator[Path]:
    with forges.forges() as folder:
        yield folder


@pytest.fixture(scope="module")
def warm_ranks(forge_folder: Path) -> Iterator[None]:
    """Ranks that tests of this file start are forks of a process that has imported their framework.

    All of them are on one core, another one for each process that runs tests: what they compute does not depend
    on it, and two files of such tests get two cores.
    """
    before, cores = os.sched_getaffinity(0), allowed_cores()
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    with pytest.MonkeyPatch.context() as patch:
        forges.lead(patch, forges.warm(forge_folder))
        os.sched_setaffinity(0, {cores[worker % len(cores)]})
        yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def bare_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks that the test starts have no framework (tests/warm/site/bare_ranks.py)."""
    forges.lead(monkeypatch, forges.bare())
