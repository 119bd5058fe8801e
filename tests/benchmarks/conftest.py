"""Each file of benchmarks is a part; what was measured is shown at the end, also of a run that was interrupted."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from rich.console import Console

from tests.benchmarks.ratios import Part, table

PARTS: list[Part] = []


@pytest.fixture(scope="session", autouse=True)
def _end_in_order() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: what was started is ended, and the table shown."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def part(request: pytest.FixtureRequest) -> Iterator[Part]:
    made = Part(request.module.__name__.rpartition("bench_")[2])
    PARTS.append(made)
    yield made
    if made.figures:
        made.save()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if any(part.figures for part in PARTS):
        console = Console(width=max(150, Console().width))
        with console.capture() as text:
            console.print(table(PARTS))
        terminalreporter.section("ratios")
        terminalreporter.write(text.get())
