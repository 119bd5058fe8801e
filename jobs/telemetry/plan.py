"""What a sampler is told by the worker that starts it, and what its file is called."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Sampled:
    """A rank to look at; `devices` is its CUDA_VISIBLE_DEVICES, None for all there are."""

    rank: int
    pid: int
    cpus: list[int]
    devices: str | None


@dataclass(frozen=True)
class Plan:
    """What a sampler is told. `address` is the ranks' on this node; `mask` the CPUs it may use first."""

    file: str
    host: str
    node_rank: int
    address: str
    hertz: float
    mask: list[int]
    ranks: list[Sampled]


def file_name(host: str, node_rank: int, alone: bool) -> str:
    """`alone`: no other node of the trial has this host's name (several may be one machine)."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", host)[:100]
    return f"telemetry-{safe}.jsonl" if alone else f"telemetry-{safe}-{node_rank}.jsonl"
