"""A rank's place among the others, in torchrun's variables: both sides of what launchers and ranks agree on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"


class RendezvousError(RuntimeError):
    """The ranks did not meet; the message says which part failed."""


class PortTaken(RendezvousError):
    """Another program listens at the port that was chosen for this rank; with another one all may be well."""

    EXIT_CODE = 75  # of the rank: "try again later" in sysexits(3)


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
