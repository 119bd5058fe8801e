"""What the sampler reads of processes, cores, network and the CPUs' energy counters."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from jobs.contract.environment import RendezvousError
from jobs.machine.network import interface_of

if TYPE_CHECKING:
    from jobs.telemetry.plan import Plan, Sampled

Note = Callable[[str, str], None]
# Context switches are told thread by thread, a file for each: at every sample that would be most of its cost.
SWITCHES_SECONDS = 5.0
POWERCAP = Path("/sys/class/powercap")
TICK = 1.0 / os.sysconf("SC_CLK_TCK")


def settle(mask: Iterable[int], workers: set[int]) -> tuple[list[int], bool]:
    """Move this process to CPUs that are no worker's: of `mask`, what its worker was given, else of
    all that the node lets it have. Returns the CPUs, and whether it shares a core with a worker after all."""
    taken = with_siblings(workers)
    for wanted in (set(mask), set(range(os.cpu_count() or 1))):
        try:
            os.sched_setaffinity(0, wanted)  # the kernel keeps of them what the cgroup allows
        except OSError:
            continue
        free = os.sched_getaffinity(0) - taken
        if free:
            os.sched_setaffinity(0, free)
            return sorted(free), False
    # The other hardware thread of a worker's core disturbs it, but less than a turn on its own.
    try:
        os.sched_setaffinity(0, os.sched_getaffinity(0) - workers or set(mask))
    except OSError:
        pass
    return sorted(os.sched_getaffinity(0)), True


def with_siblings(cpus: Iterable[int]) -> set[int]:
    """`cpus` and the other hardware threads of their cores."""
    found = set(cpus)
    for cpu in list(found):
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        for part in text.split(","):
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    return found


class Node:
    """One node's ranks, cores, network and packages; a sample covers the time since the last one."""

    def __init__(self, plan: Plan, note: Note) -> None:
        self._note = note
        self._ranks = [_Rank(rank, note) for rank in plan.ranks]
        self._cores = with_siblings(cpu for rank in plan.ranks for cpu in rank.cpus)
        self._own = psutil.Process()
        self._shares = bool(os.sched_getaffinity(0) & self._cores)
        self.interfaces = interfaces(plan.address, note)
        self._packages = Packages(note)
        self._switches_due = 0.0
        self._last: _Times | None = None

    def sample(self) -> dict[str, Any]:
        """The keys `unix`, `ranks` and `node` of a sample line. A rank that has ended is not in it."""
        # At the lowest priority the process may lose its core between two lines: each count has its own time.
        unix, now = time.time(), time.monotonic()
        times = _Times(now, *cpu_seconds(self._cores))
        switches = now >= self._switches_due
        if switches:
            self._switches_due = now + SWITCHES_SECONDS
        ranks = [entry for rank in self._ranks if (entry := rank.sample(switches))]
        living = len(ranks) == len(self._ranks)
        times.ours = sum(rank.cpu_seconds for rank in self._ranks) if living else None
        if self._shares and times.ours is not None:
            own = self._own.cpu_times()
            times.ours += own.user + own.system
        return {"unix": round(unix, 3), "ranks": ranks, "node": self._node(times)}

    def _node(self, times: _Times) -> dict[str, Any]:
        last, self._last = self._last, times
        found: dict[str, Any] = {"cpu_percent": None, "others_cores": None, "stolen_cores": None}
        if last is not None and times.now > last.now:
            seconds = times.now - last.now
            whole = times.whole - last.whole
            found["cpu_percent"] = round(100 * (times.busy - last.busy) / whole, 1) if whole else None
            found["stolen_cores"] = round((times.stolen - last.stolen) / seconds, 4)
            if times.ours is not None and last.ours is not None:
                others = times.used - last.used - (times.ours - last.ours)
                found["others_cores"] = round(others / seconds, 4)
        return found | self._traffic() | {"cpu_energy_joules": self._packages.sample()}

    def _traffic(self) -> dict[str, int | None]:
        counters = psutil.net_io_counters(pernic=True)
        mine = [counters[name] for name in self.interfaces if name in counters]
        if not mine:
            return {"sent_bytes": None, "received_bytes": None}
        return {"sent_bytes": sum(c.bytes_sent for c in mine), "received_bytes": sum(c.bytes_recv for c in mine)}


class _Times:
    """CPU seconds so far: of all CPUs `whole`, of which `busy`; on the workers' cores `used` by processes
    and `stolen` by the hypervisor; `ours` by the ranks, None where one has ended."""

    def __init__(self, now: float, whole: float, busy: float, used: float, stolen: float) -> None:
        self.now, self.whole, self.busy, self.used, self.stolen = now, whole, busy, used, stolen
        self.ours: float | None = None


def cpu_seconds(cores: set[int], stat: Path = Path("/proc/stat")) -> tuple[float, float, float, float]:
    """Of all CPUs: seconds, and busy ones; of `cores`: seconds of processes, and those that a hypervisor
    gave away. Interrupts are no process's: a trial's own network traffic makes them (proc(5))."""
    whole = busy = used = stolen = 0.0
    with stat.open("rb") as file:
        for line in file:
            if not line.startswith(b"cpu"):
                break
            name, *texts = line.split()
            user, nice, system, idle, iowait, irq, softirq, steal = (TICK * int(text) for text in texts[:8])
            if name == b"cpu":
                busy = user + nice + system + irq + softirq + steal
                whole = busy + idle + iowait
            elif int(name[3:]) in cores:
                used += user + nice + system
                stolen += steal
    return whole, busy, used, stolen


class _Rank:
    """A rank and the processes it has started (readers of files), but for the sampler."""

    def __init__(self, told: Sampled, note: Note) -> None:
        self._rank, self._note = told.rank, note
        self._processes: dict[int, psutil.Process] = {}
        self._pid = told.pid
        self._at = 0.0
        self.cpu_seconds = 0.0

    def sample(self, switches: bool) -> dict[str, Any] | None:
        """Its entry in a sample; None once it has ended. `cpu_percent` is null in the first."""
        now = time.monotonic()
        try:
            own = self._process(self._pid)
            with own.oneshot():
                seconds, resident = _cpu(own), own.memory_info().rss
        except psutil.Error:
            return None
        if not resident:
            return None  # it is dead, and its launcher has not looked yet
        for child in self._children(self._pid):
            try:
                process = self._process(child)
                with process.oneshot():
                    seconds, resident = seconds + _cpu(process), resident + process.memory_info().rss
            except psutil.Error:
                self._processes.pop(child, None)
        percent = None
        if self._at:
            percent = round(100 * (seconds - self.cpu_seconds) / (now - self._at), 1)
        self._at, self.cpu_seconds = now, seconds
        found = {"rank": self._rank, "cpu_percent": percent, "rss_bytes": resident}
        return found | self._switches() if switches else found

    def _process(self, pid: int) -> psutil.Process:
        if pid not in self._processes:
            self._processes[pid] = psutil.Process(pid)
        return self._processes[pid]

    def _children(self, pid: int) -> list[int]:
        """What the main threads of `pid` and of its descendants have started (proc(5), task/[tid]/children)."""
        try:
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        except OSError:
            if Path(f"/proc/{pid}").exists():
                self._note("the processes that ranks start", "not told by this kernel; they count as others'")
            return []
        own = [child for child in map(int, text.split()) if child != os.getpid()]
        return own + [grandchild for child in own for grandchild in self._children(child)]

    def _switches(self) -> dict[str, int]:
        """Context switches of all threads that live."""
        voluntary = involuntary = 0
        try:
            for thread in os.listdir(f"/proc/{self._pid}/task"):
                with open(f"/proc/{self._pid}/task/{thread}/status", "rb") as file:
                    *_, first, second = file.read().splitlines()
                voluntary += int(first.split()[1])
                involuntary += int(second.split()[1])
        except OSError:
            return {}  # a thread, or all of it, has ended just now
        return {"voluntary_switches": voluntary, "involuntary_switches": involuntary}


def _cpu(process: psutil.Process) -> float:
    """CPU seconds of a process and of those that it has started and that have ended."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def interfaces(address: str, note: Note) -> list[str]:
    """The network interfaces that the ranks use: that of their address, and the loopback, over which
    the kernel sends what goes to a node's own address."""
    found = ["lo"]
    try:
        found.append(interface_of(address))
    except RendezvousError as error:
        note("sent_bytes and received_bytes: the ranks' interface", str(error))
    return list(dict.fromkeys(found))


class Packages:
    """The energy counters of the CPU packages (Linux powercap, intel-rapl; AMD's CPUs have them too)."""

    def __init__(self, note: Note, root: Path = POWERCAP) -> None:
        self._note = note
        self._joules: dict[Path, float] = {}
        self._last: dict[Path, int] = {}
        self._names: dict[Path, str] = {}
        self._ranges: dict[Path, int] = {}
        for domain in sorted(root.glob("intel-rapl:*")):
            if domain.name.count(":") != 1:
                continue  # a part of a package
            try:
                name = (domain / "name").read_text(encoding="ascii").strip()
                if not name.startswith("package"):
                    continue  # psys, the whole platform, on laptops
                self._last[domain] = int((domain / "energy_uj").read_text(encoding="ascii"))
                self._ranges[domain] = int((domain / "max_energy_range_uj").read_text(encoding="ascii"))
            except (OSError, ValueError) as error:
                note("cpu_energy_joules", f"{getattr(error, 'strerror', error)}: {domain / 'energy_uj'}")
                self._last.pop(domain, None)
                continue
            self._names[domain], self._joules[domain] = name, 0.0
        if not self._names:
            note("cpu_energy_joules", f"no package's counter in {root}")

    def sample(self) -> dict[str, float] | None:
        """Joules of each package since the start; None without a counter."""
        for domain in self._names:
            try:
                now = int((domain / "energy_uj").read_text(encoding="ascii"))
            except (OSError, ValueError) as error:
                self._note("cpu_energy_joules", f"{getattr(error, 'strerror', error)}: {domain / 'energy_uj'}")
                return None
            went = now - self._last[domain]
            self._joules[domain] += 1e-6 * (went if went >= 0 else went + self._ranges[domain])
            self._last[domain] = now
        return {self._names[d]: round(joules, 3) for d, joules in self._joules.items()} or None
