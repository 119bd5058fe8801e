"""Rank environment ─▶ who am I, where are the others.

Every launcher gives each rank torchrun's variables. The ranks meet once at MASTER_ADDR:MASTER_PORT,
where rank 0 listens; there they exchange addresses and free ports. From these each strategy derives
what its framework wants (a store for torch, a TF_CONFIG, Horovod's Gloo variables), so whatever
starts a torchrun job starts every strategy: no ssh, no mpirun, no horovodrun.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jobs.contract.environment import LOOPBACK, PortTaken, RankEnvironment, RendezvousError
from jobs.machine.network import reserve_port, resolved, taken, towards

# Of a connection to a host that is not there, or behind a firewall: nobody has answered, not even to refuse.
SILENT = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT)


@dataclass(frozen=True)
class Peer:
    """What every rank knows of each other rank after they have met. `port` is held free for it, `cpus`
    are those it is pinned to, `devices` its CUDA_VISIBLE_DEVICES."""

    rank: int
    host: str
    address: str
    node_rank: int
    local_rank: int
    local_world_size: int
    port: int
    pid: int
    cpus: list[int]
    devices: str | None


class Rendezvous:
    """The meeting of the ranks, and a control channel between them that outlives it.

    `peers` are all ranks in order. `held` is this rank's reserved port, bound but not listening: no
    other process can be given it, and the framework's server (which sets SO_REUSEADDR) can take it.
    """

    def __init__(self, place: RankEnvironment, word: str, timeout: float) -> None:
        """Meet. `word` (the trial's id) keeps ranks of another trial out. Raises RendezvousError."""
        self.place = place
        self._word = word
        self._to_ranks: dict[int, socket.socket] = {}
        self._to_first: socket.socket | None = None
        deadline = time.monotonic() + timeout
        self.address = _own_address(place)
        if place.world_size > 1:
            if place.rank == 0:
                self._accept(deadline)
            else:
                self._connect(deadline, timeout)
        self.held = reserve_port(self.address)
        self._port = int(self.held.getsockname()[1])
        mine = {
            "rank": place.rank,
            "host": socket.gethostname(),
            "address": self.address,
            "node_rank": place.node_rank,
            "local_rank": place.local_rank,
            "local_world_size": place.local_world_size,
            "port": self._port,
            "pid": os.getpid(),
            "cpus": sorted(os.sched_getaffinity(0)),
            "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }
        self.peers = [Peer(**entry) for entry in self.gather(mine)]

    def gather(self, mine: Any) -> list[Any]:
        """All ranks' values (JSON), in order of rank, given to all ranks. Blocks until all came."""
        if self.place.world_size == 1:
            return [mine]
        try:
            if self._to_first is not None:
                _send(self._to_first, mine)
                everything: list[Any] = _receive(self._to_first)
                return everything
            gathered = {0: mine} | {rank: _receive(peer) for rank, peer in self._to_ranks.items()}
            everything = [gathered[rank] for rank in range(self.place.world_size)]
            for peer in self._to_ranks.values():
                _send(peer, everything)
        except (OSError, ValueError) as error:
            raise RendezvousError(f"a rank went away while the ranks were in step: {error}") from None
        return everything

    def barrier(self) -> None:
        """Return when every rank has called it."""
        self.gather(None)

    def listen(self) -> None:
        """Listen at the port that this rank holds. Raises PortTaken."""
        try:
            self.held.listen(socket.SOMAXCONN)
        except OSError as error:
            raise self.instead_of(error) from None

    def instead_of(self, error: OSError) -> OSError | PortTaken:
        """What a rank should say of an error that it met when it wanted to listen at the port that it holds."""
        return PortTaken(f"another program has port {self._port} of {self.address}") if taken(error) else error

    def meet_no_stranger(self) -> None:
        """Raises PortTaken if somebody listens at the port that this rank holds and does not listen at itself."""
        with suppress(OSError), socket.create_connection((self.address, self._port), timeout=1):
            raise PortTaken(f"another program has port {self._port} of {self.address}")

    def close(self) -> None:
        self.held.close()
        for peer in [*self._to_ranks.values(), *filter(None, [self._to_first])]:
            peer.close()

    def _accept(self, deadline: float) -> None:
        """Rank 0: listen on its own address only, until every other rank has said who it is."""
        place = self.place
        try:
            server = socket.create_server((self.address, place.master_port), backlog=place.world_size)
        except OSError as error:
            if taken(error):
                raise PortTaken(f"another program has port {place.master_port} of {self.address}") from None
            where = f"MASTER_ADDR {place.master_addr}"
            raise RendezvousError(f"rank 0 cannot listen on {where}, port {place.master_port}: {error}") from None
        with server:
            while len(self._to_ranks) < place.world_size - 1:
                remaining = deadline - time.monotonic()
                absent = sorted(set(range(1, place.world_size)) - set(self._to_ranks))
                if remaining <= 0:
                    raise RendezvousError(f"rank {', '.join(map(str, absent))} did not come in time")
                server.settimeout(remaining)
                try:
                    peer, _ = server.accept()
                    peer.settimeout(min(10.0, remaining))
                    hello = _receive(peer)
                    rank = hello["rank"] if hello["word"] == self._word else None
                except (OSError, ValueError, KeyError, TypeError):
                    continue
                welcome = rank in absent
                with suppress(OSError):
                    _send(peer, {"word": self._word, "welcome": welcome})
                if rank is not None and welcome:
                    peer.settimeout(None)
                    self._to_ranks[rank] = peer
                else:
                    peer.close()

    def _connect(self, deadline: float, timeout: float) -> None:
        """Every other rank: until rank 0 has said that this is the trial and that nobody else is this rank.

        Another program may have its port before rank 0 comes and finds that out, which is for rank 0 to tell. A host
        that does not even refuse is given up before the rank's watchdog strikes, which knows no address.
        """
        place, pause = self.place, 0.01
        while True:
            try:
                peer = socket.create_connection((place.master_addr, place.master_port), timeout=10)
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peer.settimeout(max(0.1, deadline - time.monotonic()))
                _send(peer, {"rank": place.rank, "word": self._word})
                answer = _receive(peer)
                if answer["word"] == self._word:
                    break
                why, silent = "another trial is there", False
            except (OSError, ValueError, KeyError, TypeError) as error:
                why, silent = str(error), getattr(error, "errno", 0) in SILENT or isinstance(error, TimeoutError)
            if time.monotonic() > deadline - (0.3 * timeout if silent else 0.0):
                where = f"{place.master_addr}:{place.master_port}"
                raise RendezvousError(f"rank 0 cannot be reached at {where}: {why}")
            time.sleep(pause)
            pause = min(0.25, pause * 2)
        if not answer["welcome"]:
            raise RendezvousError(f"there is a rank {place.rank} already")
        peer.settimeout(None)
        self._to_first = peer


def _own_address(place: RankEnvironment) -> str:
    """The address of this host by which the others reach it: of rank 0 the one they are told, of others that of
    the interface towards rank 0."""
    if place.world_size == 1:
        return LOOPBACK
    return towards(place.master_addr, place.master_port or 9) if place.rank else resolved(place.master_addr)


def _send(peer: socket.socket, value: Any) -> None:
    content = json.dumps(value).encode()
    peer.sendall(len(content).to_bytes(4, "big") + content)


def _receive(peer: socket.socket) -> Any:
    size = int.from_bytes(_exactly(peer, 4), "big")
    if size > 1 << 24:
        raise ValueError("a message of over 16 MiB: not one of ours")
    return json.loads(_exactly(peer, size))


def _exactly(peer: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        chunk = peer.recv(count - len(content))
        if not chunk:
            raise OSError("connection closed")
        content += chunk
    return content
