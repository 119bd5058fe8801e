"""local: the ranks are processes of this machine, one trial at a time.

`launcher: {kind: local}`; `oversubscribe: true` allows more workers than physical cores, which
measures nothing but serves to try things out.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster import horovod_build
from cluster.launcher import Launch, OptionsError
from jobs.cores import allowed_cores
from jobs.rendezvous import LOOPBACK, RankEnvironment, master_port, rank_variables
from jobs.results import Status, conclude, last_lines, rank_file
from jobs.strategies import STRATEGIES, missing
from jobs.trial import Trial
from jobs.worker import PARENT

GRACE_SECONDS = 2.0  # between being asked to end and being ended
LATE_SECONDS = 3.0  # how far past its own deadline a sign of life may be
LOOK_SECONDS = 1.0  # how often limits are looked at; a death is seen at once

# What another launcher, or a shell, may have set and a rank must not inherit.
FOREIGN = ("RANK", "WORLD_SIZE", "LOCAL_", "NODE_RANK", "MASTER_", "TF_CONFIG", "HOROVOD_", "OMP_", "GLOO_")


@dataclass
class _Running:
    launch: Launch
    started: str
    began: float
    processes: dict[int, subprocess.Popen[bytes]]
    exits: dict[int, int | None] = field(default_factory=dict)


class LocalLauncher:
    """Starts each rank as a process in a session of its own that dies with this process."""

    kind = "local"

    def __init__(self, options: dict[str, Any], results: Path) -> None:
        oversubscribe = options.get("oversubscribe", False)
        faults = [f"{key}: is not an option of the local launcher; known: oversubscribe" for key in options]
        faults = [fault for fault in faults if not fault.startswith("oversubscribe:")]
        if not isinstance(oversubscribe, bool):
            faults.append(f"oversubscribe: {oversubscribe!r} is wrong; it is true or false")
        if faults:
            raise OptionsError(faults)
        self._oversubscribe = oversubscribe
        self._running: _Running | None = None

    def largest(self, threads_per_worker: int) -> int:
        return max(1, len(allowed_cores()) // threads_per_worker)

    def unavailable(self, strategy: str) -> str | None:
        if "horovod" in STRATEGIES[strategy].needs and (why := horovod_build.why_not()):
            return why
        return missing(strategy)

    def refuse(self, points: Sequence[Trial]) -> list[str]:
        if self._oversubscribe:
            return []
        cores = len(allowed_cores())
        faults = []
        for threads in sorted({p.threads_per_worker for p in points}):
            sizes = {p.workers for p in points if p.threads_per_worker == threads}
            if too_many := sorted(n for n in sizes if n * threads > cores):
                faults.append(
                    f"workers: {', '.join(map(str, too_many))} × {threads} threads do not fit on the {cores} physical "
                    "cores there are; use fewer, or set launcher.oversubscribe: true"
                )
        return faults

    def room(self) -> int:
        return 0 if self._running else 1

    def running(self) -> dict[str, str]:
        return {self._running.launch.trial.id: "running"} if self._running else {}

    def start(self, launches: Sequence[Launch]) -> None:
        (launch,) = launches
        count = launch.trial.processes
        port = master_port() if count > 1 else 0
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        running = _Running(launch, _now(), time.monotonic(), {})
        self._running = running
        for rank in range(count):
            place = RankEnvironment(rank, count, rank, count, 0, LOOPBACK, port)
            environment = inherited | rank_variables(place) | {PARENT: str(os.getpid())}
            with rank_file(launch.folder, rank, "log").open("wb") as log:
                running.processes[rank] = subprocess.Popen(
                    # -P: a torch.py in the user's folder is not PyTorch.
                    [sys.executable, "-P", "-m", "jobs.worker", str(launch.folder)],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

    def wait(self, seconds: float) -> list[str]:
        running = self._running
        if running is None:
            return []
        deadline = time.monotonic() + seconds
        while True:
            self._sleep_until_a_death(running, min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
            for rank, process in running.processes.items():
                if rank not in running.exits and process.poll() is not None:
                    running.exits[rank] = process.returncode
            verdict = self._verdict(running)
            if verdict is not None:
                self._conclude(running, *verdict)
                return [running.launch.trial.id]
            if time.monotonic() >= deadline:
                return []

    def close(self) -> None:
        if self._running:
            _end(self._running)
            self._running = None

    def _sleep_until_a_death(self, running: _Running, seconds: float) -> None:
        poller, watched = select.poll(), []
        for rank, process in running.processes.items():
            if rank not in running.exits:
                try:
                    watched.append(os.pidfd_open(process.pid))
                except ProcessLookupError:
                    continue
                poller.register(watched[-1], select.POLLIN)
        try:
            if len(watched) == len(running.processes) - len(running.exits):
                poller.poll(seconds * 1000)
        finally:
            for descriptor in watched:
                os.close(descriptor)

    def _verdict(self, running: _Running) -> tuple[Status, str] | None:
        """How the trial has ended, None while it goes on."""
        launch, limits = running.launch, running.launch.trial.limits
        for rank, code in running.exits.items():
            if code != 0:
                reason = (last_lines(launch.folder, rank, 1) or ["it left no message"])[0]
                return "failed", f"rank {rank} {_how(code)}: {reason}"
        if len(running.exits) == len(running.processes):
            return "ok", ""
        if time.monotonic() - running.began > limits.trial:
            return "timeout", f"not done after limits.trial = {limits.trial:g} s"
        for rank in running.processes:
            if rank not in running.exits and _silent(launch.folder, rank):
                return "timeout", f"rank {rank} gave no sign of life for limits.hang = {limits.hang:g} s"
        return None

    def _conclude(self, running: _Running, status: Status, error: str) -> None:
        _end(running)
        for rank, process in running.processes.items():
            running.exits.setdefault(rank, process.returncode)
        self._running = None
        conclude(
            running.launch.folder,
            status=status,
            error=error,
            launcher=self.kind,
            order=running.launch.order,
            started=running.started,
            ended=_now(),
            exit_codes=running.exits,
        )


def _silent(folder: Path, rank: int) -> bool:
    """Whether the sign of life that the rank's `alive` file promises is overdue."""
    try:
        due = rank_file(folder, rank, "alive").stat().st_mtime
    except FileNotFoundError:
        return False
    return time.time() > due + LATE_SECONDS


def _end(running: _Running) -> None:
    """End every process of the trial and whatever these have started: ask, then force."""
    living = [p for p in running.processes.values() if p.poll() is None]
    for process in living:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in living:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            continue
    for process in running.processes.values():
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)  # start_new_session: its group has its pid
    except (ProcessLookupError, PermissionError):
        pass


def _how(code: int | None) -> str:
    if code is None:
        return "was lost"
    if code < 0:
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"
    return f"ended with exit code {code}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
