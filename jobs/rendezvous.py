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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LOOPBACK = "127.0.0.1"


class RendezvousError(RuntimeError):
    """The ranks did not meet; the message says which part failed."""


@dataclass(frozen=True)
class RankEnvironment:
    """One rank's place among the others, as torchrun's variables tell it."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    node_rank: int = 0
    master_addr: str = LOOPBACK
    master_port: int = 0

    @classmethod
    def from_variables(cls, variables: Mapping[str, str]) -> RankEnvironment:
        """Read RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, NODE_RANK, MASTER_ADDR, MASTER_PORT.

        All absent means a single process. Raises RendezvousError on a missing or wrong one.
        """
        if "RANK" not in variables and "WORLD_SIZE" not in variables:
            return cls()

        def number(name: str, otherwise: str | None = None) -> int:
            text = variables.get(name, otherwise)
            if text is None:
                raise RendezvousError(f"{name} is not set; a launcher gives every rank torchrun's variables")
            try:
                return int(text)
            except ValueError:
                raise RendezvousError(f"{name} is {text!r}; a whole number is wanted") from None

        place = cls(
            rank=number("RANK"),
            world_size=number("WORLD_SIZE"),
            local_rank=number("LOCAL_RANK", "0"),
            local_world_size=number("LOCAL_WORLD_SIZE", "1"),
            node_rank=number("NODE_RANK", "0"),
            master_addr=variables.get("MASTER_ADDR", LOOPBACK),
            master_port=number("MASTER_PORT", "0"),
        )
        if not 0 <= place.rank < place.world_size:
            raise RendezvousError(f"RANK {place.rank} is not within WORLD_SIZE {place.world_size}")
        if place.world_size > 1 and not place.master_port:
            raise RendezvousError("MASTER_PORT is not set; several ranks need it to meet")
        return place


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


def reserve_port(address: str) -> socket.socket:
    """A socket bound to a free port of `address`, not listening; keep it open to keep the port."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((address, 0))
    return held


def interface_of(address: str) -> str:
    """The name of the network interface that has `address` (Gloo is told to use only that one)."""
    import psutil

    for name, entries in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in entries):
            return str(name)
    raise RendezvousError(f"no network interface of this host has the address {address}")


def address_on(interface: str) -> str:
    """The IPv4 address of this host on a network interface; what interface_of does the other way."""
    import psutil

    entries = psutil.net_if_addrs().get(interface)
    if entries is None:
        known = ", ".join(sorted(psutil.net_if_addrs()))
        raise RendezvousError(f"this host has no network interface {interface}; it has {known}")
    for entry in entries:
        if entry.family == socket.AF_INET:
            return str(entry.address)
    raise RendezvousError(f"the network interface {interface} has no IPv4 address")


def tf_config(rendezvous: Rendezvous) -> str:
    """The TF_CONFIG of this rank: all ranks are workers, at the ports they hold."""
    workers = [f"{peer.address}:{peer.port}" for peer in rendezvous.peers]
    task = {"type": "worker", "index": rendezvous.place.rank}
    return json.dumps({"cluster": {"worker": workers}, "task": task})


def horovod_variables(rendezvous: Rendezvous) -> dict[str, str]:
    """The variables from which Horovod's Gloo controller finds its ranks.

    Nodes are told apart by their node rank, as several may share an address. Rank 0 must be serving
    Horovod's rendezvous on the port it holds (jobs/strategies/horovod.py).
    """
    place, peers = rendezvous.place, rendezvous.peers
    cross = [peer for peer in peers if peer.local_rank == place.local_rank]
    return {
        "HOROVOD_RANK": str(place.rank),
        "HOROVOD_SIZE": str(place.world_size),
        "HOROVOD_LOCAL_RANK": str(place.local_rank),
        "HOROVOD_LOCAL_SIZE": str(place.local_world_size),
        "HOROVOD_CROSS_RANK": str([peer.rank for peer in cross].index(place.rank)),
        "HOROVOD_CROSS_SIZE": str(len(cross)),
        "HOROVOD_HOSTNAME": f"node{place.node_rank}",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": peers[0].address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(peers[0].port),
        "HOROVOD_GLOO_IFACE": interface_of(rendezvous.address),
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
    }


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


def master_port(address: str = LOOPBACK) -> int:
    """A port that is free now on `address`, for a launcher to give out as MASTER_PORT."""
    with reserve_port(address) as held:
        return int(held.getsockname()[1])


def rank_variables(place: RankEnvironment) -> dict[str, str]:
    """The contract the other way round: what a launcher sets for one rank."""
    return {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.world_size),
        "LOCAL_RANK": str(place.local_rank),
        "LOCAL_WORLD_SIZE": str(place.local_world_size),
        "NODE_RANK": str(place.node_rank),
        "MASTER_ADDR": place.master_addr,
        "MASTER_PORT": str(place.master_port),
    }
