"""Changes turns between the ranks of a launch and the base case beside them: `python -P -m jobs.beside.turns TOLD`.

One process per launch, started by its first rank and ended with it, whatever the launcher. It knows the ranks by their
lines (handover.py) and starts a companion (jobs/companion.py) for each batch, while they wait. When all ranks have
asked for a turn they are stopped, threads and all, by SIGSTOP; the companion goes on for a block of steps, says so and
is stopped; the ranks go on. So no step is cut. The CPU time of who should sleep is read at each change. The standard
library only: it stands on the ranks' cores.

A companion that dies or stands still ends the launch: every rank is told why. If a rank is gone in a turn the others
go on, and find out. If this process is killed its companions die with it, and ranks that were stopped are missed by
those who keep them.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.contract.files import base_file
from jobs.rank.parent import PARENT, die_with_parent

# A turn, and at most this part of limits.hang. TensorFlow takes a task for dead that has sent no heartbeat for some
# seconds, and a stopped rank sends none.
LONGEST_SECONDS = 4.0
OF_HANG = 0.25
STOP_SECONDS = 5.0  # in which a process that was sent SIGSTOP has to stand still


class Failed(Exception):
    """The launch cannot go on; the message is for the ranks."""


class Gone(Exception):
    """A rank has ended."""


@dataclass
class Told:
    """What the first rank says: `workers` are those whose CPUs turns are on, each with its CPUs, and `first` which of
    them the first round's is on; `startup` and `hang` are the trial's limits in seconds."""

    listener: int
    folder: str
    pids: list[int]
    workers: list[tuple[int, list[int]]]
    first: int
    startup: float
    hang: float


@dataclass
class Companion:
    """The base case on batches of one size, while it runs."""

    batch: int
    process: subprocess.Popen[str]
    log: Path
    slept_at: float = 0.0  # its CPU seconds when it was stopped
    turns: list[dict[str, Any]] = field(default_factory=list)

    def say(self, what: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it is gone, which is seen where its answer is awaited
            self.process.stdin.write(json.dumps(what) + "\n")
            self.process.stdin.flush()


def serve(told: Told) -> None:
    """Until the ranks are at the end, or one of them is gone."""
    lines = _accept(told)
    files = [line.makefile("rw", encoding="utf-8") for line in lines]
    companions: dict[int, Companion] = {}
    while True:
        asked = [file.readline() for file in files]
        if not all(line.endswith("\n") for line in asked):
            return
        error, what = "", json.loads(asked[0])
        try:
            if "end" in what:
                for companion in companions.values():
                    _finish(companion, told, lines)
            elif what["block"] == 0:  # not stopped: it may take longer than frameworks wait for a sign of a peer
                companions[what["batch"]] = _start(what["batch"], told, lines)
            else:
                with _stopped(told.pids):
                    _turn(companions[what["batch"]], what["block"], told, lines)
        except Failed as failed:
            error = str(failed)
        except Gone:
            return
        except Exception as failed:
            error = f"the base case beside: {type(failed).__name__}: {failed}"
        for file in files:
            with suppress(OSError):
                file.write(json.dumps({"error": error}) + "\n")
                file.flush()
        if error or "end" in what:
            return


def _accept(told: Told) -> list[socket.socket]:
    """A line to each rank. A name of this kind is seen by all on the machine: others are turned away."""
    found: dict[int, socket.socket] = {}
    with socket.socket(fileno=told.listener) as listener:
        listener.settimeout(told.startup)
        while len(found) < len(told.pids):
            line, _ = listener.accept()
            pid, user, _ = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if pid in told.pids and user == os.getuid():
                found[pid] = line
            else:
                line.close()
    return [found[pid] for pid in told.pids]


def _turn(companion: Companion, block: int, told: Told, ranks: list[socket.socket]) -> None:
    """One turn of a companion. The ranks are stopped."""
    pid = companion.process.pid
    worker, cpus = told.workers[(told.first + block - 1) % len(told.workers)]
    asleep = _cpu_seconds(pid) - companion.slept_at
    before = [_cpu_seconds(rank) for rank in told.pids]
    _move(pid, cpus)
    _signal(pid, signal.SIGCONT)
    companion.say({"block": block})
    _answer(companion, ranks, 0.75 * told.hang, f"gave no sign of life for limits.hang = {told.hang:g} s")
    _stop(companion)
    after = [_cpu_seconds(rank) for rank in told.pids]
    companion.turns.append(
        {
            "block": block,
            "worker": worker,
            "cpus": cpus,
            "ranks_cpu_seconds": round(max(b - a for a, b in zip(before, after, strict=True)), 6),
            "own_cpu_seconds_asleep": round(asleep, 6),
        }
    )


def _start(batch: int, told: Told, ranks: list[socket.socket]) -> Companion:
    """Start it, and let it warm up."""
    log = base_file(Path(told.folder), batch, "log")
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "jobs.companion", told.folder, str(batch)],
            env=os.environ | {PARENT: str(os.getpid())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    companion = Companion(batch, process, log)
    said = _answer(companion, ranks, 0.9 * told.startup, f"was not ready in limits.startup = {told.startup:g} s")
    longest = min(LONGEST_SECONDS, OF_HANG * told.hang)
    if said["turn_seconds"] > longest:
        raise Failed(
            f"a turn of the base case on batches of {batch} takes {said['turn_seconds']:.1f} s, more than "
            f"{longest:g} s ({LONGEST_SECONDS:g}, or a quarter of limits.hang): give fewer steps a block, or "
            "base_beside: never"
        )
    _stop(companion)
    return companion


def _finish(companion: Companion, told: Told, ranks: list[socket.socket]) -> None:
    _signal(companion.process.pid, signal.SIGCONT)
    companion.say({"turns": companion.turns})
    late = f"did not end in limits.startup = {told.startup:g} s"
    _answer(companion, ranks, 0.9 * told.startup / 2, late)
    if companion.process.wait():
        raise Failed(_last_words(companion))


def _answer(companion: Companion, ranks: list[socket.socket], seconds: float, late: str) -> dict[str, Any]:
    """What the companion says. Raises Failed if it dies or does not answer in time, Gone if a rank does."""
    assert companion.process.stdout is not None
    deadline = time.monotonic() + seconds
    heard: list[Any] = [companion.process.stdout, *ranks]
    while True:
        left = deadline - time.monotonic()
        ready, _, _ = select.select(heard, [], [], max(0.0, left))
        if companion.process.stdout in ready:
            line = companion.process.stdout.readline()
            if not line.endswith("\n"):
                companion.process.wait()
                raise Failed(_last_words(companion))
            answer: dict[str, Any] = json.loads(line)
            return answer
        if ready:  # a rank is stopped or waits, and has nothing to say
            raise Gone
        if left <= 0:
            raise Failed(f"the base case beside (batches of {companion.batch}) {late}")


def _last_words(companion: Companion) -> str:
    """How it ended and the last line of its log."""
    from jobs.contract.exits import in_words

    with suppress(OSError):
        lines = companion.log.read_text(encoding="utf-8", errors="replace").split("\n")
        said = next((line for line in reversed(lines) if line.strip()), "it left no message").removeprefix("reason: ")
        return f"the base case beside (batches of {companion.batch}) {in_words(companion.process.returncode)}: {said}"
    return f"the base case beside (batches of {companion.batch}) is gone"


class _stopped:
    """While the block runs these processes stand still."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids

    def __enter__(self) -> None:
        try:
            for pid in self._pids:
                _signal(pid, signal.SIGSTOP)
            for pid in self._pids:
                _await_stop(pid)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        for pid in self._pids:
            _signal(pid, signal.SIGCONT)


def _stop(companion: Companion) -> None:
    _signal(companion.process.pid, signal.SIGSTOP)
    _await_stop(companion.process.pid)
    companion.slept_at = _cpu_seconds(companion.process.pid)


def _await_stop(pid: int) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    while _state(pid) not in "TtZX":
        if time.monotonic() > deadline:
            raise Failed(f"process {pid} does not stop for the turn of the base case")
        time.sleep(0.0005)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _tasks(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def _cpu_seconds(pid: int) -> float:
    """Of all its living threads, to the nanosecond (proc(5), schedstat); where the kernel does not count so, of all
    it ever had, to a tick."""
    found = 0
    for task in _tasks(pid):
        with suppress(OSError):
            found += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    if not found:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found / 1e9


def _move(pid: int, cpus: list[int]) -> None:
    for task in _tasks(pid):
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task), cpus)


def main(arguments: list[str]) -> None:
    told = Told(**json.loads(arguments[0]))

    def leave(*_: object) -> None:
        for pid in told.pids:
            _signal(pid, signal.SIGCONT)
        os._exit(1)

    signal.signal(signal.SIGTERM, leave)  # whoever is stopped goes on, and finds that the first rank is gone
    die_with_parent(signal.SIGTERM)
    serve(told)


if __name__ == "__main__":
    main(sys.argv[1:])
