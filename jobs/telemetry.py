"""The sampler of one node: what its cores, GPUs and network do while a trial runs, and who else uses them.

    python -P -m jobs.telemetry PLAN        (the worker of local rank 0 starts it; see `sampling`)

A process of its own, on cores that no worker has where the node has such, at the lowest priority. It dies
with that worker and writes `telemetry-<host>.jsonl` into the trial's folder, a line per sample, from memory
every few seconds: the folder may be on a slow file system that all ranks use. What cannot be read is null
and has a note that says why, once. Nothing that goes wrong here is worth a trial.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.rank.parent import PARENT, die_with_parent

if TYPE_CHECKING:
    from jobs.rank.rendezvous import Rendezvous
    from jobs.telemetry_gpu import Gpus

FLUSH_SECONDS = 10.0
HUNG_SECONDS = 60.0  # in one sample, as in a driver that does not answer: then it ends itself
END_SECONDS = 5.0  # that the worker waits for it; it has the lowest priority


@dataclass(frozen=True)
class Sampled:
    """A rank to look at; `devices` is its CUDA_VISIBLE_DEVICES, None for all there are."""

    rank: int
    pid: int
    cpus: list[int]
    devices: str | None


@dataclass(frozen=True)
class Plan:
    """What a sampler is told. `address` is the ranks' on this node; `mask` the CPUs it may use first."""

    file: str
    host: str
    node_rank: int
    address: str
    hertz: float
    mask: list[int]
    ranks: list[Sampled]


def file_name(host: str, node_rank: int, alone: bool) -> str:
    """`alone`: no other node of the trial has this host's name (several may be one machine)."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", host)[:100]
    return f"telemetry-{safe}.jsonl" if alone else f"telemetry-{safe}-{node_rank}.jsonl"


@contextmanager
def sampling(folder: Path, hertz: float, mask: set[int], rendezvous: Rendezvous) -> Iterator[None]:
    """Have this node sampled from here on, if this is its first rank; ended in good order after the block.

    An exception in the block does not wait for that: the sampler then dies with this process, which is
    not to be outlived by the ranks that die of its death. `mask`: the CPUs this process was given.
    """
    place, peers = rendezvous.place, rendezvous.peers
    if not hertz or place.local_rank:
        yield
        return
    here = peers[place.rank].host
    alone = all(peer.node_rank == place.node_rank for peer in peers if peer.host == here)
    plan = Plan(
        file=str(folder / file_name(here, place.node_rank, alone)),
        host=here,
        node_rank=place.node_rank,
        address=rendezvous.address,
        hertz=hertz,
        mask=sorted(mask),
        ranks=[Sampled(p.rank, p.pid, p.cpus, p.devices) for p in peers if p.node_rank == place.node_rank],
    )
    process = _start(plan)
    yield
    if process is not None:
        _end(process, Path(plan.file))


def _start(plan: Plan) -> subprocess.Popen[bytes] | None:
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "jobs.telemetry", json.dumps(asdict(plan))],
            env=os.environ | {PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # the last line of this rank's log is for the reason why it failed
        )
    except OSError as error:
        print(f"telemetry: the sampler cannot be started: {error}", flush=True)
        return None


def _end(process: subprocess.Popen[bytes], file: Path) -> None:
    """Ask the sampler to write the rest; that it had died, or does not answer, becomes a note."""
    from jobs.contract.exits import in_words

    process.terminate()
    try:
        code = process.wait(END_SECONDS)
        why = in_words(code) if code else ""
    except subprocess.TimeoutExpired:
        process.kill()  # and not waited for: in a driver or a file system that hangs it cannot even die
        why = f"did not end within {END_SECONDS:g} s"
    if why:
        try:
            with file.open("ab") as out:
                out.write(_line("note", what="sampler", why=why))
        except OSError as error:
            print(f"telemetry: the sampler {why}; its file cannot be written: {error}", flush=True)


def _line(kind: str, **content: Any) -> bytes:
    row = {"kind": kind, "unix": round(time.time(), 3)} | content
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


class Lines:
    """The file, written from memory in whole lines; a note of the same thing is written once."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._held: list[bytes] = []
        self._due = 0.0  # the first lines at once: a file that is there says that somebody looked
        self._noted: set[str] = set()

    def begin(self, **content: Any) -> None:
        """The start line: the first of the file, before notes of what was found missing meanwhile."""
        self._held.insert(0, _line("start", **content))

    def add(self, kind: str, **content: Any) -> None:
        self._held.append(_line(kind, **content))

    def note(self, what: str, why: str) -> None:
        if what not in self._noted:
            self._noted.add(what)
            self.add("note", what=what, why=why)

    def flush(self, now: float | None = None) -> None:
        """Write what is held, if it is due at the monotonic time `now`, or in any case."""
        if now is not None and now < self._due:
            return
        content = b"".join(self._held)
        while content:
            content = content[os.write(self._descriptor, content) :]
        self._held.clear()
        self._due = time.monotonic() + FLUSH_SECONDS


def run(plan: Plan) -> None:
    """Sample until SIGTERM, which must be blocked."""
    from jobs import telemetry_cpu

    lines = Lines(Path(plan.file))
    cpus, shares = telemetry_cpu.settle(plan.mask, {cpu for rank in plan.ranks for cpu in rank.cpus})
    gpus = _gpus(plan, lines)
    node = telemetry_cpu.Node(plan, lines.note)
    lines.begin(
        host=plan.host,
        node_rank=plan.node_rank,
        hertz=plan.hertz,
        sampler_cpus=cpus,
        shares_cores=shares,
        ranks=[
            {"rank": r.rank, "pid": r.pid, "cpus": r.cpus, "gpus": gpus.of(r.devices) if gpus else []}
            for r in plan.ranks
        ],
        gpus=gpus.found if gpus else [],
        interfaces=node.interfaces,
        cpus=os.cpu_count(),
    )
    period, due, count, start_up = 1 / plan.hertz, time.monotonic(), 0, time.process_time()
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    asked = False
    while True:
        signal.setitimer(signal.ITIMER_REAL, HUNG_SECONDS + period)  # its default action ends the process
        lines.add("sample", **node.sample(), gpus=gpus.sample() if gpus else [])
        count += 1
        if asked:
            break
        lines.flush(time.monotonic())
        due = max(due + period, time.monotonic())
        told = signal.sigtimedwait({signal.SIGTERM}, max(0.0, due - time.monotonic()))
        # Python answers with an empty record, not with None, after a stop (SIGSTOP) past the time-out.
        asked = told is not None and told.si_signo == signal.SIGTERM
    cost = round(time.process_time() - start_up, 4)
    lines.add("end", samples=count, cpu_seconds=cost, start_cpu_seconds=round(start_up, 4))
    lines.flush()


def _gpus(plan: Plan, lines: Lines) -> Gpus | None:
    """The GPUs that the ranks may use; None if none may use any, and then no driver is asked."""
    if all(rank.devices == "" for rank in plan.ranks):
        return None
    from jobs import telemetry_gpu

    return telemetry_gpu.Gpus([rank.devices for rank in plan.ranks], lines.note)


def main(arguments: list[str]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    die_with_parent(signal.SIGTERM)  # which lets it write what it holds
    content = json.loads(arguments[0])
    run(Plan(**content | {"ranks": [Sampled(**rank) for rank in content["ranks"]]}))


if __name__ == "__main__":
    main(sys.argv[1:])
