"""The cores of this machine that this process may use, and pinning a rank to its share of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.machine.quota import cgroup_quota


def allowed_cores() -> list[int]:
    """One logical CPU per physical core this process may run on, ascending.

    Respects the affinity mask and the CPU quotas of control groups: with a quota of 4.0 on 64 cores, four are
    returned. Second hardware threads are left out: two workers on one core are not two workers.
    """
    cores: dict[int, int] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        cores.setdefault(core_of(cpu), cpu)
    usable = sorted(cores.values())
    quota = cgroup_quota()
    return usable if quota is None else usable[: max(1, int(quota))]


def core_of(cpu: int) -> int:
    """The physical core of a logical CPU, by the number of its first hardware thread; `cpu` where nothing tells."""
    try:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
        return int(siblings.replace("-", ",").split(",")[0])  # "0,32" or "0-1"
    except (OSError, ValueError):
        return cpu


def memory_node(cpu: int) -> int:
    """The NUMA node of a logical CPU; 0 where nothing tells."""
    found = [path.name for path in Path(f"/sys/devices/system/cpu/cpu{cpu}").glob("node[0-9]*")]
    return int(found[0].removeprefix("node")) if found else 0


def quota_note() -> str:
    """That a CPU quota is no whole number of cores, and what comes of it; "" where it is one or there is none."""
    quota = cgroup_quota()
    if quota is None or (quota >= 1 and quota == int(quota)):
        return ""
    how = f"{int(quota)} can be used in full" if quota >= 1 else "not even one worker of one thread has a core's time"
    return f"a CPU quota of {quota:g} cores: {how}"


def needed(trial: Mapping[str, Any], processes: int) -> int:
    """Cores, and threads, of one process of a trial that runs as `processes` of them.

    `trial` is the trial as its JSON has it: those of all the workers in the process, or one for each
    reader of files.
    """
    return int(max(trial["threads_per_worker"] * (trial["workers"] // processes), trial.get("readers", 1)))


def share(cores: list[int], local_rank: int, local_processes: int, wanted: int) -> list[int]:
    """The cores of the process `local_rank` among `local_processes` on this node.

    If the node's mask has room for all of them, each takes its own slice. If not, either the launcher has bound this
    process already, and the mask is its own, or all share it: the slices go round, so that in a mask of as many cores
    as are wanted it takes them all, and in a shared one no core has two processes more than another. The rank's report
    shows what is shared.
    """
    if len(cores) >= local_processes * wanted:
        return cores[local_rank * wanted : (local_rank + 1) * wanted]
    start = local_rank * wanted
    return sorted({cores[(start + i) % len(cores)] for i in range(wanted)})


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
