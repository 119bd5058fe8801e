"""The CPU quota of the control groups that this process is in, and how often it has held them back.

Containers are limited by it: Docker's --cpus, the limits of Kubernetes. A group that has used its quota of a period,
usually a tenth of a second, stands still until the next one, with all its ranks.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")


class Throttled(NamedTuple):
    """Of a group with a quota: periods in which it wanted to run, those of them in which it was held back, and for how
    many seconds, over all its cores together."""

    periods: int
    throttled: int
    seconds: float


def cgroup_quota() -> float | None:
    """The least quota of this process's group and of all above it, in cores; None if none has any."""
    return min((quota for group in groups() if (quota := _quota(group)) is not None), default=None)


def throttling() -> dict[Path, Throttled]:
    """What each of these groups that has a quota has counted so far."""
    found = {group: _throttled(group) for group in groups() if _quota(group) is not None}
    return {group: counted for group, counted in found.items() if counted is not None}


def throttled_since(before: dict[Path, Throttled]) -> Throttled | None:
    """What the group that was held back most has counted since `before`; None without a quota."""
    counted = [
        Throttled(now.periods - then.periods, now.throttled - then.throttled, now.seconds - then.seconds)
        for group, now in throttling().items()
        if (then := before.get(group))
    ]
    return max(counted, key=lambda each: each.throttled, default=None)


def added(one: Throttled | None, other: Throttled | None) -> Throttled | None:
    """Both together."""
    if one is None or other is None:
        return one or other
    return Throttled(one.periods + other.periods, one.throttled + other.throttled, one.seconds + other.seconds)


def groups(controller: str = "cpu") -> list[Path]:
    """The folders of this process's groups, and of those above, that count CPU time: version 2, and version 1's
    `controller`, either or both of which may be mounted (cgroups(7)).

    In a container the process may be told a path that lies outside of what is mounted there; what is mounted is then
    its own group.
    """
    try:
        told = (ROOT / "proc/self/cgroup").read_text().splitlines()
        mounts = (ROOT / "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return []
    paths: dict[str, str] = {}  # by the type of file system
    for line in told:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            paths["cgroup2"] = path
        elif controller in controllers.split(","):
            paths["cgroup"] = path
    found: dict[Path, None] = {}
    for line in mounts:
        place, _, what = line.partition(" - ")
        kind, *_, options = what.split()
        if kind == "cgroup2" or (kind == "cgroup" and controller in options.split(",")):
            top, mounted = place.split()[3:5]
            home = ROOT / mounted.replace("\\040", " ").lstrip("/")
            found |= dict.fromkeys(_upwards(home, top, paths.get(kind, "/")))
    return list(found)


def _upwards(home: Path, top: str, path: str) -> list[Path]:
    """The group at `path` of a hierarchy whose `top` is mounted at `home`, and those above it as far as is seen."""
    top = top.rstrip("/")
    inside = path[len(top) :].strip("/") if path.startswith(f"{top}/") and ".." not in path.split("/") else ""
    here = home / inside
    if not here.is_dir():
        here = home
    return [here, *(above for above in here.parents if above.is_relative_to(home))]


def _quota(group: Path) -> float | None:
    try:
        limit, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        return int(limit) / int(period) if int(limit) > 0 else None
    except ValueError:  # "max"
        return None


def _throttled(group: Path) -> Throttled | None:
    try:
        lines = (group / "cpu.stat").read_text().splitlines()
        found = {name: int(value) for name, value in (line.split() for line in lines)}
        seconds = found["throttled_usec"] / 1e6 if "throttled_usec" in found else found["throttled_time"] / 1e9
        return Throttled(found["nr_periods"], found["nr_throttled"], seconds)
    except (OSError, ValueError, KeyError):
        return None
