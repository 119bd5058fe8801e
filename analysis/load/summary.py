"""What the samplers of a trial's nodes saw ─▶ one summary of the trial, within its measured steps.

In a launch whose phases took turns, these are the blocks of training alone. Where a block is too short for the samples
to tell it from the others, only what is told of all phases alike is known: neighbours and the highest of memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.load.telemetry import Node, Window, flat, total, window, worst_of

# Cores of one node that others may take from its workers, their hypervisor's other guests among them, before
# the launch is said to have had a noisy neighbour.
NOISY_CORES = 0.1
FEWEST_SAMPLES = 2  # within the measured window, for a summary
SHORTEST_BLOCK = 4  # times the time between two samples

# What `summarize` gives; null where no counter of the machine tells. Within the measured steps only.
SUMMARY: dict[str, Any] = {
    "telemetry_samples": pl.Int64,  # in the measured window, of the node that has the fewest
    "rank_cpu_percent": pl.Float64,  # mean over ranks; 100 is one core
    "peak_rss_bytes": pl.Float64,  # of the rank that has the most, whatever it started included
    "others_cores": pl.Float64,  # cores that others' processes took from the workers of a node; the worst node's
    "stolen_cores": pl.Float64,  # cores that the hypervisor gave to other guests; the worst node's
    "noisy_neighbour": pl.Boolean,  # either, or their sum, is above NOISY_CORES
    "gpu_sm_percent": pl.Float64,  # mean over GPUs
    "gpu_memory_peak_bytes": pl.Float64,  # of the GPU that has the most
    "gpu_power_watts": pl.Float64,  # mean, of all GPUs together
    "gpu_energy_joules": pl.Float64,  # over the measured window, all GPUs
    "cpu_energy_joules": pl.Float64,  # likewise all CPU packages, whoever used them
    "energy_joules": pl.Float64,  # of the GPUs where the trial has some, else of the CPU packages
    "energy_source": pl.String,  # which of them, and whether by a counter or by power × time
    "joules_per_sample": pl.Float64,  # energy_joules / samples
    "throttled_share": pl.Float64,  # of GPUs × samples
    "network_bytes_per_step": pl.Float64,  # sent, over all nodes, the ranks' interface and loopback
    "pcie_bytes_per_second": pl.Float64,  # sent and received, over all GPUs
    "nvlink_bytes_per_step": pl.Float64,  # sent, over all GPUs
    "telemetry_note": pl.String,  # why the rest is null although there are samples
}

Floats = NDArray[np.float64]


def summarize(
    nodes: Sequence[Node],
    ranks: Any,
    train_seconds: float | None,
    samples: int | None,
    steps: int | None,
    gpus: int = 0,
) -> dict[str, Any]:
    """The columns SUMMARY of one trial that has ended well; {} if its telemetry tells nothing.

    `ranks` are the reports in its outcome; `samples` and `steps` are those measured, over all ranks; `gpus`
    is how many GPUs it had. Where not all of them were seen, there is no total of them.
    """
    windows = [(node, at) for node in nodes if (at := window(node, ranks, train_seconds))]
    seen = [found for node, at in windows if (found := _Seen.of(node, at))]
    if not seen:
        return {}
    others, stolen = (worst_of(s.mean("node", key) for s in seen) for key in ("others_cores", "stolen_cores"))
    worst = worst_of(s.taken() for s in seen)
    peak_rss = worst_of(v for s in seen for v in s.peaks("ranks", "rss_bytes"))
    peak_memory = worst_of(v for s in seen for v in s.peaks("gpus", "memory_bytes"))
    count, note = min(len(s.inside) for s in seen), None
    if any(at.blocks for _, at in windows):
        note = _too_short(seen, windows)
        seen = [] if note else [s.of_blocks(at.blocks, train_seconds) for s, (_, at) in zip(seen, windows, strict=True)]
    subjects = {(s.node.host, uuid) for s in seen for uuid in s.subjects("gpus")}
    has_gpus, all_seen = bool(gpus or subjects), len(subjects) >= gpus

    def of_all(values: Iterable[float | None]) -> float | None:
        return total(values) if all_seen else None

    joules_of_gpus, source = _gpu_energy(seen)
    energy = of_all([joules_of_gpus])
    cpu = total(s.counter("node", "cpu_energy_joules") for s in _hosts(seen))
    joules = energy if has_gpus else cpu
    return {
        "telemetry_samples": count,
        "rank_cpu_percent": _mean(v for s in seen for v in s.means("ranks", "cpu_percent")),
        "peak_rss_bytes": peak_rss,
        "others_cores": others,
        "stolen_cores": stolen,
        "noisy_neighbour": None if worst is None else worst > NOISY_CORES,
        "gpu_sm_percent": _mean(v for s in seen for v in s.means("gpus", "sm_percent")),
        "gpu_memory_peak_bytes": peak_memory,
        "gpu_power_watts": of_all(v for s in seen for v in s.means("gpus", "power_watts")),
        "gpu_energy_joules": energy,
        "cpu_energy_joules": cpu,
        "energy_joules": joules,
        "energy_source": None if joules is None else source if has_gpus else "CPU package counters",
        "joules_per_sample": joules / samples if joules is not None and samples else None,
        "throttled_share": _mean(v for s in seen for v in s.means("gpus", "throttled")),
        "network_bytes_per_step": _per(total(s.counter("node", "sent_bytes") for s in _hosts(seen)), steps),
        "pcie_bytes_per_second": of_all(
            v for s in seen for key in ("sent", "received") for v in s.means("gpus", f"pcie_{key}_bytes_per_second")
        ),
        "nvlink_bytes_per_step": _per(of_all(v for s in seen for v in s.counters("gpus", "nvlink_sent_bytes")), steps),
        "telemetry_note": note,
    }


def _too_short(seen: Sequence[_Seen], windows: Sequence[tuple[Node, Window]]) -> str | None:
    """Why the samples cannot tell the blocks of training from what lies between them; None if they can."""
    shortest = min((end - begin for _, at in windows for begin, end in at.blocks), default=0.0)
    apart = max(s.apart for s in seen)
    if len(seen) == len(windows) and shortest >= SHORTEST_BLOCK * apart:
        return None
    return f"blocks of {shortest:.2g} s are too short for samples every {apart:.2g} s"


def _gpu_energy(seen: Sequence[_Seen]) -> tuple[float | None, str]:
    """Joules of all GPUs over the window, and where they are from."""
    by_counter = total(v for s in seen for v in s.counters("gpus", "energy_joules"))
    if by_counter is not None:
        return by_counter, "GPU energy counters"
    watts = [(s, v) for s in seen for v in s.means("gpus", "power_watts")]
    return total(None if v is None else v * s.seconds * s.counted for s, v in watts), "GPU power over time"


class _Seen:
    """The samples of a node around its measured window; those inside are enough for a summary."""

    def __init__(self, node: Node, rows: list[dict[str, Any]], at: Window) -> None:
        self.node, self.spans = node, [(at.measured, at.ended)]
        self.seconds = at.ended - at.measured
        self.counted = 1.0  # how much of these seconds were steps that are counted
        self._rows = [flat(row) for row in rows]
        self._unix = np.array([row["unix"] for row in rows], np.float64)
        self._since = np.diff(self._unix, prepend=self._unix[:1])
        self.inside = np.flatnonzero((self._unix >= at.measured) & (self._unix <= at.ended))
        self.apart = float(np.median(np.diff(self._unix))) if len(rows) > 1 else math.inf

    @classmethod
    def of(cls, node: Node, at: Window | None) -> _Seen | None:
        if at is None:
            return None
        found = cls(node, sorted(node.samples, key=lambda row: float(row["unix"])), at)
        return found if len(found.inside) >= FEWEST_SAMPLES else None

    def of_blocks(self, blocks: Sequence[tuple[float, float]], train_seconds: float | None) -> _Seen:
        """The same within these spans of time: of the samples, those that are of nothing else."""
        found = copy(self)
        found.spans, found.seconds = list(blocks), sum(end - begin for begin, end in blocks)
        found.counted = (train_seconds or found.seconds) / found.seconds
        begun = self._unix - self._since
        of_one = [(begun >= begin) & (self._unix <= end) for begin, end in blocks]
        found.inside = np.flatnonzero(np.any(of_one, axis=0))
        return found

    def subjects(self, kind: str) -> list[str]:
        return list(dict.fromkeys(key[1] for row in self._rows for key in row if key[0] == kind))

    def _values(self, kind: str, subject: str, name: str) -> Floats:
        return np.array([row.get((kind, subject, name), math.nan) for row in self._rows], np.float64)

    def mean(self, kind: str, name: str, subject: str = "") -> float | None:
        """Over the samples inside that have a value, each weighted by the time since the one before."""
        values = self._values(kind, subject, name)[self.inside]
        known = ~np.isnan(values)
        weights = self._since[self.inside][known]
        return float(np.average(values[known], weights=weights)) if weights.any() else None

    def taken(self) -> float | None:
        """Cores that others took from the workers. Where the ranks' CPU time holds what the hypervisor
        stole from them, as some kernels count, others' processes come out below zero by as much."""
        others, stolen = self.mean("node", "others_cores"), self.mean("node", "stolen_cores")
        return None if others is None and stolen is None else max(0.0, others or 0.0) + (stolen or 0.0)

    def means(self, kind: str, name: str) -> list[float | None]:
        return [self.mean(kind, name, subject) for subject in self.subjects(kind)]

    def peaks(self, kind: str, name: str) -> list[float | None]:
        values = [self._values(kind, subject, name)[self.inside] for subject in self.subjects(kind)]
        return [float(np.nanmax(v)) if not np.isnan(v).all() else None for v in values]

    def counter(self, kind: str, name: str, subject: str = "") -> float | None:
        """How far a counter went in the steps of the window: its value at both ends lies on the line between the
        samples around them. None where the samples cover less than nine tenths of the window."""
        values = self._values(kind, subject, name)
        known = ~np.isnan(values)
        if known.sum() < FEWEST_SAMPLES:
            return None
        unix, values = self._unix[known], values[known]
        first, last = float(unix[0]), float(unix[-1])
        ends = [(max(begin, first), min(end, last)) for begin, end in self.spans if begin < last and end > first]
        covered = sum(end - begin for begin, end in ends)
        if covered < 0.9 * self.seconds or (np.diff(values) < 0).any():
            return None
        went = [np.interp(each, unix, values) for each in ends]
        return float(sum(high - low for low, high in went)) * self.seconds / covered * self.counted

    def counters(self, kind: str, name: str) -> list[float | None]:
        return [self.counter(kind, name, subject) for subject in self.subjects(kind)]


def _hosts(seen: Sequence[_Seen]) -> list[_Seen]:
    """One of each host: what several nodes on one machine counted is the same."""
    return list({s.node.host: s for s in seen}.values())


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _per(total: float | None, count: int | None) -> float | None:
    return total / count if total is not None and count else None
