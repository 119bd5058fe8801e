"""What the samplers of a trial's nodes saw ─▶ one summary of the trial, within its measured steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.load.telemetry import Node, Window, flat, total, window, worst_of

# Cores of one node that others may take from its workers, their hypervisor's other guests among them, before
# the launch is said to have had a noisy neighbour.
NOISY_CORES = 0.1
FEWEST_SAMPLES = 2  # within the measured window, for a summary

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
    seen = [found for node in nodes if (found := _Seen.of(node, window(node, ranks, train_seconds)))]
    if not seen:
        return {}
    others, stolen = (worst_of(s.mean("node", key) for s in seen) for key in ("others_cores", "stolen_cores"))
    worst = worst_of(s.taken() for s in seen)
    subjects = {(s.node.host, uuid) for s in seen for uuid in s.subjects("gpus")}
    has_gpus, all_seen = bool(gpus or subjects), len(subjects) >= gpus

    def of_all(values: Iterable[float | None]) -> float | None:
        return total(values) if all_seen else None

    joules_of_gpus, source = _gpu_energy(seen)
    energy = of_all([joules_of_gpus])
    cpu = total(s.counter("node", "cpu_energy_joules") for s in _hosts(seen))
    joules = energy if has_gpus else cpu
    return {
        "telemetry_samples": min(len(s.inside) for s in seen),
        "rank_cpu_percent": _mean(v for s in seen for v in s.means("ranks", "cpu_percent")),
        "peak_rss_bytes": worst_of(v for s in seen for v in s.peaks("ranks", "rss_bytes")),
        "others_cores": others,
        "stolen_cores": stolen,
        "noisy_neighbour": None if worst is None else worst > NOISY_CORES,
        "gpu_sm_percent": _mean(v for s in seen for v in s.means("gpus", "sm_percent")),
        "gpu_memory_peak_bytes": worst_of(v for s in seen for v in s.peaks("gpus", "memory_bytes")),
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
    }


def _gpu_energy(seen: Sequence[_Seen]) -> tuple[float | None, str]:
    """Joules of all GPUs over the window, and where they are from."""
    by_counter = total(v for s in seen for v in s.counters("gpus", "energy_joules"))
    if by_counter is not None:
        return by_counter, "GPU energy counters"
    watts = [(s, v) for s in seen for v in s.means("gpus", "power_watts")]
    return total(None if v is None else v * s.seconds for s, v in watts), "GPU power over time"


class _Seen:
    """The samples of a node around its measured window; those inside are enough for a summary."""

    def __init__(self, node: Node, rows: list[dict[str, Any]], at: Window) -> None:
        self.node, self.begin, self.end = node, at.measured, at.ended
        self.seconds = at.ended - at.measured
        self._rows = [flat(row) for row in rows]
        self._unix = np.array([row["unix"] for row in rows], np.float64)
        self._since = np.diff(self._unix, prepend=self._unix[:1])
        self.inside = np.flatnonzero((self._unix >= self.begin) & (self._unix <= self.end))

    @classmethod
    def of(cls, node: Node, at: Window | None) -> _Seen | None:
        if at is None:
            return None
        found = cls(node, sorted(node.samples, key=lambda row: float(row["unix"])), at)
        return found if len(found.inside) >= FEWEST_SAMPLES else None

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
        """How far a counter went within the window: its value at both ends lies on the line between the
        samples around them. None where the samples cover less than nine tenths of the window."""
        values = self._values(kind, subject, name)
        known = ~np.isnan(values)
        if known.sum() < FEWEST_SAMPLES:
            return None
        unix, values = self._unix[known], values[known]
        begin, end = max(self.begin, float(unix[0])), min(self.end, float(unix[-1]))
        if end - begin < 0.9 * self.seconds or (np.diff(values) < 0).any():
            return None
        low, high = np.interp([begin, end], unix, values)
        return float(high - low) * self.seconds / (end - begin)

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
