"""Rank environment ─▶ who am I, where are the others.

Every launcher gives each rank torchrun's variables. The ranks meet once at MASTER_ADDR:MASTER_PORT,
where rank 0 listens; there they exchange addresses and free ports. From these each strategy derives
what its framework wants (a store for torch, a TF_CONFIG, Horovod's Gloo variables), so whatever
starts a torchrun job starts every strategy: no ssh, no mpirun, no horovodrun.
"""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass
from typing import Any

from jobs.contract.environment import LOOPBACK, RankEnvironment, RendezvousError
from jobs.machine.network import reserve_port


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
                self._connect(deadline)
        self.held = reserve_port(self.address)
        mine = {
            "rank": place.rank,
            "host": socket.gethostname(),
            "address": self.address,
            "node_rank": place.node_rank,
            "local_rank": place.local_rank,
            "local_world_size": place.local_world_size,
            "port": self.held.getsockname()[1],
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
            where = f"{self.address}:{place.master_port}"
            raise RendezvousError(f"rank 0 cannot listen on {where}: {error}") from None
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
                if rank in absent:
                    peer.settimeout(None)
                    self._to_ranks[rank] = peer
                else:
                    peer.close()

    def _connect(self, deadline: float) -> None:
        place, pause = self.place, 0.01
        while True:
            try:
                peer = socket.create_connection((place.master_addr, place.master_port), timeout=10)
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peer.settimeout(None)
                _send(peer, {"rank": place.rank, "word": self._word})
                self._to_first = peer
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    where = f"{place.master_addr}:{place.master_port}"
                    raise RendezvousError(f"rank 0 cannot be reached at {where}: {error}") from None
                time.sleep(pause)
                pause = min(0.25, pause * 2)


def _own_address(place: RankEnvironment) -> str:
    """The address of this host by which the others reach it: of the interface towards rank 0."""
    if place.world_size == 1:
        return LOOPBACK
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((place.master_addr, place.master_port or 9))
            return str(probe.getsockname()[0])
    except OSError as error:
        raise RendezvousError(f"MASTER_ADDR {place.master_addr} cannot be reached: {error}") from None


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
