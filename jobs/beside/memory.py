"""Whether there is memory for another process like this one, asked before it is started: for want of it the kernel
would end one of them in the middle."""

from __future__ import annotations

import os
from pathlib import Path

from jobs.machine.quota import groups

RESERVE = 1.25  # of what this process has


def check(processes: int) -> None:
    """Raises MemoryError if so many more processes like this one do not fit."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    wanted = int(RESERVE * processes * pages * os.sysconf("SC_PAGE_SIZE"))
    if (free := left()) is not None and free < wanted:
        raise MemoryError(
            f"the base case beside needs about {wanted >> 20} MiB, {free >> 20} MiB are left; "
            "set steps.base_beside: never, or ask for more memory"
        )


def left() -> int | None:
    """Bytes that this process's control groups and the machine still have, with what they would give up of files they
    hold; None if nothing tells."""
    found = [_of_the_machine(), *map(_of_a_group, groups("memory"))]
    return min((each for each in found if each is not None), default=None)


def _of_the_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _of_a_group(group: Path) -> int | None:
    """By version 2's names, else by version 1's."""
    for limit, used, files in (
        ("memory.max", "memory.current", ("inactive_file", "active_file")),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
    ):
        try:
            most = int((group / limit).read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            return most - int((group / used).read_text()) + sum(int(stat.get(name, 0)) for name in files)
        except (OSError, ValueError):  # not there, or "max"
            continue
    return None
