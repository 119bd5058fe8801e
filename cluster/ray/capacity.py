"""What a Ray cluster has, what a trial needs of it, and how often the one goes into the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.contract.environment import RankEnvironment


@dataclass(frozen=True)
class Node:
    """A living node of the cluster and all it has, whether it is taken or not."""

    id: str
    address: str
    cpus: float
    gpus: float

    @property
    def name(self) -> str:
        return f"{self.address} ({self.id[:8]})"


@dataclass(frozen=True)
class Need:
    """What a trial takes: `count` processes with so much each; `spread`: each on a node of its own."""

    count: int
    cpus: int
    gpus: int
    spread: bool

    def most(self, nodes: Sequence[Node]) -> int:
        """How many such processes fit on the nodes while nothing else runs there."""
        each = [min([int(n.cpus // self.cpus), *([int(n.gpus // self.gpus)] if self.gpus else [])]) for n in nodes]
        return sum(min(1, fit) if self.spread else fit for fit in each)

    def bundle(self) -> dict[str, float]:
        return {"CPU": float(self.cpus)} | ({"GPU": float(self.gpus)} if self.gpus else {})


def what_there_is(nodes: Sequence[Node]) -> str:
    """`3 nodes with 2 CPUs each`, in words."""
    counts = Counter((n.cpus, n.gpus) for n in nodes)
    kinds = [
        f"{count} node{'s' if count > 1 else ''} with {cpus:g} CPUs"
        + (f" and {gpus:g} GPUs" if gpus else "")
        + (" each" if count > 1 else "")
        for (cpus, gpus), count in counts.items()
    ]
    return ", ".join(kinds) or "no nodes"


def places(nodes: Sequence[str], master: str, port: int) -> list[RankEnvironment]:
    """The rank environments of ranks on these nodes, those of a node one after the other."""
    distinct = list(dict.fromkeys(nodes))
    return [
        RankEnvironment(
            rank=rank,
            world_size=len(nodes),
            local_rank=list(nodes[:rank]).count(node),
            local_world_size=list(nodes).count(node),
            node_rank=distinct.index(node),
            master_addr=master,
            master_port=port,
        )
        for rank, node in enumerate(nodes)
    ]
