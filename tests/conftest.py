"""What all tests share: in CI nothing may be skipped but for want of an accelerator."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator

import pytest

MAY_BE_SKIPPED = ("gpu", "tpu")
# jobs.worker pins ranks to cores by the mask of its parent; the suite itself stays where it is.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("horovod") and importlib.util.find_spec("horovod") is None:
        from cluster.horovod_build import why_not

        pytest.skip(f"Horovod is missing: {why_not()}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failure: there, everything that a test may need is installed."""
    report = yield
    allowed = any(item.get_closest_marker(name) for name in MAY_BE_SKIPPED)
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail") and not allowed:
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI takes for a failure: {report.longrepr}"
    return report
