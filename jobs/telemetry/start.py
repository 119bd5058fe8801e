"""The worker's side of the sampler: its plan, its start, and its end in good order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.rank.parent import PARENT
from jobs.telemetry.lines import as_line
from jobs.telemetry.plan import Plan, Sampled, file_name

if TYPE_CHECKING:
    from jobs.rank.rendezvous import Rendezvous

END_SECONDS = 5.0  # that the worker waits for it; it has the lowest priority


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
            [sys.executable, "-P", "-m", "jobs.telemetry.sampler", json.dumps(asdict(plan))],
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
                out.write(as_line("note", what="sampler", why=why))
        except OSError as error:
            print(f"telemetry: the sampler {why}; its file cannot be written: {error}", flush=True)
