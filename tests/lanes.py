"""Which tests run beside each other, on two cores and whatever else there is.

Two processes of pytest-xdist take lanes of tests, the longest first. Real launchers, whose tests mostly wait, are
one lane: none of them finds another's ranks, and each cluster is started once. Beside it runs what computes. Files
that are in no lane here are one each, in the order in which they are found.

A test marked `quiet` is about how much of the machine something takes: while it runs, no other does.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

# The first of each is begun first; a lane's tests keep this order.
LANES = {
    "launchers": (
        "tests/cluster/slurm/test_launcher.py",
        "tests/cluster/slurm/test_meeting.py",
        "tests/cluster/slurm/test_ends.py",
        "tests/cluster/slurm/test_ray.py",
        "tests/cluster/slurm/test_accounting.py",
        "tests/cluster/slurm/test_states.py",
        "tests/cluster/ray/test_launcher.py",
        "tests/cluster/ray/test_ends.py",
        "tests/cluster/local/test_launcher.py",
        "tests/cluster/driver/test_run.py",
        "tests/jobs/beside/test_turns.py",
        "tests/jobs/telemetry/test_sampler.py",
    ),
    "parity": ("tests/jobs/strategies/test_parity.py",),
    "resnet": ("tests/jobs/strategies/test_resnet.py",),
    "kept": ("tests/kept/test_numbers.py", "tests/kept/test_words.py", "tests/kept/test_wrong_studies.py"),
}
LANE_OF = {file: lane for lane, files in LANES.items() for file in files}
PLACE_OF = {file: place for place, file in enumerate(LANE_OF)}


class Lanes(LoadScopeScheduling):
    """pytest-xdist's scheduling by scope, with a lane for a scope."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return LANE_OF.get(file, file)


def place(nodeid: str) -> int:
    """Where a test stands in the order of all; those of one file are equal."""
    return PLACE_OF.get(nodeid.partition("::")[0], len(PLACE_OF))


@contextmanager
def beside_others(quiet: bool) -> Iterator[None]:
    """Hold the machine, with others or alone, for a test.

    Whoever waits to be alone holds the first of the two locks, so that nobody overtakes it.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:  # one process: nobody else is there
        yield
        return
    lock = Path(tempfile.gettempdir()) / f"scaling-tests-{os.getuid()}"
    with lock.with_suffix(".turn").open("w") as turn, lock.with_suffix(".machine").open("w") as machine:
        fcntl.flock(turn, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX if quiet else fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield
