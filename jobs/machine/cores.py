"""The cores of this machine that this process may use, and pinning a rank to its share of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def allowed_cores() -> list[int]:
    """One logical CPU per physical core this process may run on, ascending.

    Respects the affinity mask and a cgroup CPU quota: with a quota of 4.0 on 64 cores, four are
    returned. Second hardware threads are left out: two workers on one core are not two workers.
    """
    cores: dict[str, int] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            key = siblings.read_text().strip()
        except OSError:
            key = str(cpu)
        cores.setdefault(key, cpu)
    usable = sorted(cores.values())
    quota = cgroup_quota()
    return usable if quota is None else usable[: max(1, int(quota))]


def cgroup_quota() -> float | None:
    """The CPU quota of this process's cgroup in cores, None if there is none (v2, then v1)."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit_us = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text())
        period_us = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return limit_us / period_us if limit_us > 0 else None


def needed(trial: Mapping[str, Any], processes: int) -> int:
    """Cores, and threads, of one process of a trial that runs as `processes` of them.

    `trial` is the trial as its JSON has it: those of all the workers in the process, or one for each
    reader of files.
    """
    return int(max(trial["threads_per_worker"] * (trial["workers"] // processes), trial.get("readers", 1)))


def share(cores: list[int], local_rank: int, local_processes: int, wanted: int) -> list[int]:
    """The cores of the process `local_rank` among `local_processes` on this node.

    If the node's mask has room for all of them, each takes its own slice; if the mask holds just
    this process's cores (the launcher has bound it already), it takes those. On a machine with too
    few cores the slices wrap around: oversubscribed, and the rank's report shows it.
    """
    if len(cores) >= local_processes * wanted:
        return cores[local_rank * wanted : (local_rank + 1) * wanted]
    if len(cores) >= wanted and local_processes * wanted > (os.cpu_count() or 1) >= len(cores):
        start = local_rank * wanted
        return sorted({cores[(start + i) % len(cores)] for i in range(wanted)})
    return cores[:wanted]


def claim(cores: list[int], first: int, wanted: int) -> tuple[list[int], list[socket.socket]]:
    """Take `wanted` of `cores` that no other rank on this machine has, from place `first` on.

    A claim is a name in the kernel that ends with its process. Returns no cores if there are not enough: then
    they are shared, and the rank's report shows it.
    """
    held: list[socket.socket] = []
    taken: list[int] = []
    for core in cores[first:] + cores[:first]:
        if len(taken) == wanted:
            break
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            name.bind(f"\0scaling-core-{core}")
        except OSError:
            name.close()
            continue
        held.append(name)
        taken.append(core)
    if len(taken) == wanted:
        return sorted(taken), held
    for name in held:
        name.close()
    return [], []


def claim_share(trial: Mapping[str, Any], processes: int, local_rank: int) -> list[socket.socket]:
    """Bind this process, and what it will start, to cores for one of `processes` of the trial, all its own.

    Schedulers count CPUs and need not bind jobs to them, so ranks of two trials, or of two studies, side by
    side would all pin themselves to the first ones. `share` leaves a rank in such a mask what is in it.
    Returns the claims, which last as long as they are kept; none, and nothing is bound, if too few are free.
    """
    wanted, allowed = needed(trial, processes), allowed_cores()
    mine, held = claim(allowed, local_rank * wanted % len(allowed), wanted)
    if mine:
        pin(mine)
    return held


def pin(cpus: list[int]) -> None:
    """Bind this process, and all threads it will start, to `cpus`."""
    os.sched_setaffinity(0, cpus)
