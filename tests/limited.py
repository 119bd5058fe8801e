"""A real control group with a CPU quota, of version 1 or 2 of control groups, for commands that a test starts.

with limited.group(0.5) as enter: subprocess.run([*enter, "python", ...])
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.machine import quota

PERIOD = 100_000  # microseconds
# The shell enters the group, and becomes the command.
ENTER = ("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"')


def absent() -> str | None:
    """Why no such group can be made here; None if it can."""
    try:
        with group(1.0):
            return None
    except OSError as error:
        return f"no control group with a CPU quota can be made here ({error})"


@contextmanager
def group(cores: float, within: bool = False) -> Iterator[list[str]]:
    """The words to put before a command, so that it runs in a group of `cores`, or in one within that which has no
    quota of its own. All that runs in it must have ended when the context is left."""
    top = quota.groups()[-1:] if Path("/sys/fs/cgroup/cgroup.controllers").exists() else quota.groups()[:1]
    if not top:
        raise OSError("control groups are not mounted")
    made: list[Path] = []
    try:
        home = top[0] / f"scaling-tests-{os.getpid()}"
        home.mkdir()
        made.append(home)
        limit(home, cores)
        if within:
            (home / "within").mkdir()
            made.append(home / "within")
        yield [*ENTER, str(made[-1])]
    finally:
        for home in reversed(made):
            _remove(home)


def limit(home: Path, cores: float) -> None:
    """Give a group this quota, at once."""
    if (home / "cpu.cfs_quota_us").exists():
        (home / "cpu.cfs_quota_us").write_text(str(int(cores * PERIOD)))
        return
    if not (home / "cpu.max").exists():
        (home.parent / "cgroup.subtree_control").write_text("+cpu")
    (home / "cpu.max").write_text(f"{int(cores * PERIOD)} {PERIOD}")


def _remove(home: Path) -> None:
    """A group can be removed once the last of its processes is gone."""
    for _ in range(100):
        try:
            home.rmdir()
            return
        except OSError:
            time.sleep(0.05)
    home.rmdir()
