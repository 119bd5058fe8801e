"""Run a node's sampler from tests, and read what it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.telemetry.plan import Plan, Sampled
from tests.running import until


@contextmanager
def sampler(
    file: Path,
    ranks: Sequence[tuple[int, list[int]]],
    hertz: float = 10.0,
    devices: Sequence[str | None] = ("",),
    variables: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A sampler of `ranks`, a pid and its CPUs each, which has taken its first sample; at the end it is asked to end.

    `devices` are their CUDA_VISIBLE_DEVICES, the last one of all that remain.
    """
    told = [Sampled(i, pid, cpus, devices[min(i, len(devices) - 1)]) for i, (pid, cpus) in enumerate(ranks)]
    plan = Plan(str(file), "host", 0, "127.0.0.1", hertz, sorted(os.sched_getaffinity(0)), told)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "jobs.telemetry.sampler", json.dumps(asdict(plan))],
        env=os.environ | dict(variables or {}),
    )
    try:
        until(lambda: file.exists() and read(file, "sample"), 30)
        time.sleep(2 / hertz)
        yield process
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def read(file: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of that kind."""
    return [row for line in file.read_text().splitlines() if (row := json.loads(line))["kind"] == kind]
