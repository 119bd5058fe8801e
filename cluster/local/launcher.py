"""local: the ranks are processes of this machine, one trial at a time.

`launcher: {kind: local}`; `oversubscribe: true` allows more workers than physical cores, which
measures nothing but serves to try things out; `python` gives strategies interpreters of their own
(cluster/local/interpreters.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster.launcher import Launch, OptionsError, State
from cluster.local import interpreters
from cluster.setup import compiler
from cluster.setup.lacking import lacking, why_not
from jobs.contract.environment import LOOPBACK, RankEnvironment, rank_variables
from jobs.contract.exits import Status, verdict
from jobs.contract.files import RankExit
from jobs.contract.outcome import conclude, now
from jobs.contract.trial import Trial
from jobs.machine import gpus, tpu
from jobs.machine.cores import allowed_cores
from jobs.machine.network import master_port
from jobs.machine.quota import cgroup_quota
from jobs.rank.keeper import LOOK_SECONDS, Bounds, end, overstepped, silence, sleep_until_a_death, start_worker, stopped


@dataclass
class _Running:
    launch: Launch
    started: str
    began: float
    processes: dict[int, subprocess.Popen[bytes]]
    exits: dict[int, RankExit] = field(default_factory=dict)


def _without_a_gpu(points: Sequence[Trial]) -> list[str]:
    sizes = {p.workers for p in points if p.gpus_per_worker}
    if not sizes:
        return []
    there = len(gpus.visible(os.environ))
    if not there:
        return ["resources.gpus_per_worker: no NVIDIA GPU can be seen here (`scaling doctor` says more); take 0"]
    if too_many := sorted(n for n in sizes if n > there):
        return [f"workers: {', '.join(map(str, too_many))} with a GPU each do not fit on the {there} GPUs there are"]
    return []


class LocalLauncher:
    """Starts each rank as a process in a session of its own that dies with this process."""

    kind = "local"
    stays = False

    def __init__(self, options: dict[str, Any], results: Path) -> None:
        oversubscribe = options.get("oversubscribe", False)
        unknown = [key for key in options if key not in ("oversubscribe", "python")]
        faults = [f"{key}: is not an option of the local launcher; known: oversubscribe, python" for key in unknown]
        if not isinstance(oversubscribe, bool):
            faults.append(f"oversubscribe: {oversubscribe!r} is wrong; it is true or false")
        self._python, wrong = interpreters.read(options.get("python", {}))
        faults += wrong
        if faults:
            raise OptionsError(faults)
        self._oversubscribe = oversubscribe
        self._running: _Running | None = None

    def largest(self, threads_per_worker: int, gpus_per_worker: int = 0) -> int:
        most = len(allowed_cores()) // threads_per_worker
        return max(1, min(most, len(gpus.visible(os.environ))) if gpus_per_worker else most)

    def tpu_cores(self) -> int:
        why = []
        for python in dict.fromkeys([sys.executable, *self._python.values()]):
            try:
                return tpu.cores(python)
            except tpu.TpuError as error:
                why.append(str(error))
        raise tpu.TpuError("; ".join(why))

    def unavailable(self, strategy: str) -> str | None:
        if strategy in self._python:
            return interpreters.missing(self._python[strategy], strategy)
        return why_not(strategy)

    def elsewhere(self, strategy: str) -> bool:
        return strategy in self._python

    def interpreter(self, strategy: str) -> str:
        """The Python that the strategy's ranks have."""
        return self._python.get(strategy, sys.executable)

    def refuse(self, points: Sequence[Trial]) -> list[str]:
        faults = _without_a_gpu(points)
        if self._oversubscribe:
            return faults  # cores can be shared, GPUs cannot
        cores, quota = len(allowed_cores()), cgroup_quota()
        there = f"{cores} physical cores there are" + (f" (a CPU quota of {quota:g})" if quota is not None else "")
        wanted = {p.cores for p in points if p.cores[0] > cores and p.cores[1] != "threads"}
        for what in sorted({what for _, what in wanted}):
            too_many = ", ".join(str(n) for n, of in sorted(wanted) if of == what)
            faults.append(f"{what}: {too_many} are more than the {there}")
        for threads in sorted({p.threads_per_worker for p in points}):
            sizes = {p.workers for p in points if p.threads_per_worker == threads}
            if more := sorted(n for n in sizes if n * threads > cores):
                faults.append(
                    f"workers: {', '.join(map(str, more))} × {threads} threads do not fit on the {there}; use "
                    "fewer, or set launcher.oversubscribe: true"
                )
        return faults

    def on_one_host(self, trial: Trial) -> bool:
        return True

    def unfit(self, trial: Trial) -> str | None:
        python = self.interpreter(trial.strategy)
        lacks = interpreters.absent(python, trial.needs) if self.elsewhere(trial.strategy) else lacking(trial)
        return lacks or compiler.lacking(trial, python)

    def resume(self) -> int:
        return -1  # its trials end with the process that started them

    def observe(self) -> dict[str, State]:
        return {}

    def room(self) -> int:
        return 0 if self._running else 1

    def running(self) -> dict[str, State]:
        return {self._running.launch.trial.id: State("running")} if self._running else {}

    def start(self, launches: Sequence[Launch]) -> None:
        (launch,) = launches
        count = launch.trial.processes
        port = master_port() if count > 1 else 0
        python = self.interpreter(launch.trial.strategy)
        running = _Running(launch, now(), time.monotonic(), {})
        self._running = running
        for rank in range(count):
            place = RankEnvironment(rank, count, rank, count, 0, LOOPBACK, port)
            running.processes[rank] = start_worker(launch.folder, rank, rank_variables(place), python)

    def wait(self, seconds: float) -> list[str]:
        running = self._running
        if running is None:
            return []
        deadline = time.monotonic() + seconds
        while True:
            living = [p for rank, p in running.processes.items() if rank not in running.exits]
            sleep_until_a_death(living, min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
            for rank, process in running.processes.items():
                if rank not in running.exits and process.poll() is not None:
                    running.exits[rank] = RankExit(rank=rank, exit_code=process.returncode, ended_unix=time.time())
            ended = self._verdict(running)
            if ended is not None:
                self._conclude(running, *ended)
                return [running.launch.trial.id]
            if time.monotonic() >= deadline:
                return []

    def withdraw(self, trials: Collection[str]) -> list[str]:
        return []  # what is started has begun

    def cancel(self) -> None:
        self.close()

    def close(self) -> None:
        if self._running:
            end(list(self._running.processes.values()))
            self._running = None

    def _verdict(self, running: _Running) -> tuple[Status, str] | None:
        """How the trial has ended, None while it goes on."""
        folder, trial = running.launch.folder, running.launch.trial
        limits = Bounds(trial.limits.trial, trial.limits.hang)
        died = any(end.exit_code for end in running.exits.values())
        for rank, process in running.processes.items():
            if rank not in running.exits:
                why = overstepped(folder, rank, limits, time.monotonic() - running.began)
                if died and stopped(folder, rank, process.pid):
                    why = silence(limits)
                if why:
                    running.exits[rank] = RankExit(rank=rank, limit=why)
        return verdict(folder, list(running.exits.values()), trial.processes)

    def _conclude(self, running: _Running, status: Status, error: str) -> None:
        end(list(running.processes.values()))
        for rank, process in running.processes.items():
            record = running.exits.get(rank, RankExit(rank=rank, asked=True))
            running.exits[rank] = replace(record, exit_code=process.returncode)
        self._running = None
        conclude(
            running.launch.folder,
            status=status,
            error=error,
            launcher=self.kind,
            order=running.launch.order,
            started=running.started,
            exits=list(running.exits.values()),
        )


LAUNCHER = LocalLauncher
