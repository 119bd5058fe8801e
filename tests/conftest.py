"""What all tests share: in CI nothing may be skipped but for want of an accelerator."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import pytest

from cluster.horovod_build import why_not

MAY_BE_SKIPPED = ("gpu", "tpu")
IN_CI = os.environ.get("CI") == "true"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# In the background of a shell Ctrl-C is ignored, by what is started from there too: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("horovod") and (why := why_not()):
        pytest.skip(f"Horovod is missing: {why}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failure: there, everything that a test may need is installed."""
    report = yield
    allowed = any(item.get_closest_marker(name) for name in MAY_BE_SKIPPED)
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
