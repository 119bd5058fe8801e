"""A rank's side: where a turn of the base case is due, all ranks hand over and are stopped until it is over.

The first rank starts the process that changes turns (turns.py), which is on the same host as all of them; every rank
has a line to it. A rank asks for a turn and waits for the answer; when all have asked they are stopped, and go on when
the turn is over. Its watchdog, and whoever keeps it, are told before.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.beside import memory
from jobs.contract.environment import RankEnvironment, rank_variables
from jobs.machine import cores
from jobs.rank.parent import PARENT

if TYPE_CHECKING:
    from jobs.contract.trial import Trial
    from jobs.rank.rendezvous import Rendezvous
    from jobs.rank.watchdog import Watchdog

Turn = Callable[[int, int], None]  # of the base case on batches of this size, in this round


class BesideError(RuntimeError):
    """The base case beside has failed; the message says why."""


@contextmanager
def beside(
    trial: Trial, folder: Path, meeting: Rendezvous, watchdog: Watchdog, variables: Mapping[str, str]
) -> Iterator[Turn]:
    """Have the base case started on each of the trial's `base_batches`, and at the end write what it measured.

    `variables` are the environment that it starts with, as it was before a strategy changed it. What is given gives it
    a turn; all ranks call it alike. Raises BesideError.
    """
    if not trial.base_batches:
        yield _nobody
        return
    with _line(trial, folder, meeting, variables) as line:

        def ask(**what: Any) -> None:
            line.write(json.dumps(what) + "\n")
            line.flush()
            answer = line.readline()
            watchdog.take_back(trial.limits.hang)
            error = json.loads(answer)["error"] if answer.endswith("\n") else "the process that changes turns is gone"
            if error:
                raise BesideError(error)

        def give(batch: int, block: int) -> None:
            meeting.barrier()  # so that no watchdog runs for a rank that waits for the others
            watchdog.hand_over(trial.limits.hang)
            ask(batch=batch, block=block)

        for batch in trial.base_batches:
            watchdog.allow(trial.limits.startup)
            ask(batch=batch, block=0)
        yield give
        watchdog.allow(trial.limits.startup)
        ask(end=True)


def _nobody(batch: int, block: int) -> None:
    raise ValueError("no base case runs beside this launch")


@contextmanager
def _line(trial: Trial, folder: Path, meeting: Rendezvous, variables: Mapping[str, str]) -> Iterator[Any]:
    """This rank's line to the process that changes turns, which the first rank starts and awaits."""
    if len(hosts := {peer.host for peer in meeting.peers}) > 1:
        raise BesideError(f"the base case runs beside ranks of one host; these are on {', '.join(sorted(hosts))}")
    name, listener, process = "", None, None
    if meeting.place.rank == 0:
        memory.check(len(trial.base_batches))
        name = f"scaling-turns-{secrets.token_hex(16)}"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("\0" + name)
        listener.listen(64)
    name = meeting.gather(name)[0]
    with socket.socket(socket.AF_UNIX) as line:
        line.connect("\0" + name)
        if listener is not None:
            with listener:
                process = _start(trial, folder, meeting, listener.fileno(), variables)
        with line.makefile("rw", encoding="utf-8") as file:
            yield file
    if process is not None:
        process.wait()


def _start(
    trial: Trial, folder: Path, meeting: Rendezvous, listener: int, variables: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    apart = trial.workers // trial.processes
    of_each = [
        cpus[number * len(cpus) // apart : (number + 1) * len(cpus) // apart] or cpus
        for cpus in (peer.cpus for peer in meeting.peers)
        for number in range(apart)
    ]
    # Its memory is on the node of the cores where it starts, the first worker's, and it is not to read it from afar.
    home = cores.memory_node(of_each[0][0])
    workers = [(worker, cpus) for worker, cpus in enumerate(of_each) if cores.memory_node(cpus[0]) == home]
    told = {
        "listener": listener,
        "folder": str(folder.absolute()),
        "pids": [peer.pid for peer in meeting.peers],
        "workers": workers,
        "first": trial.repeat,
        "startup": trial.limits.startup,
        "hang": trial.limits.hang,
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "jobs.beside.turns", json.dumps(told)],
        env={**variables, **rank_variables(RankEnvironment()), PARENT: str(os.getpid())},
        stdin=subprocess.DEVNULL,
        pass_fds=[listener],
    )
