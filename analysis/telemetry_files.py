"""A trial's telemetry files ─▶ what each node's sampler saw, and the trial's summary of it.

docs/results-format.md is the contract. A sampler may have been killed: a last line that was cut off is
no fault. Any other line that is not what it should be is named, and the rest is used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

# Cores of one node that others may take from its workers, their hypervisor's other guests among them, before
# the launch is said to have had a noisy neighbour.
NOISY_CORES = 0.1
FEWEST_SAMPLES = 2  # within the measured window, for a summary
# Reasons why a GPU's clocks are lower than they could be that are no loss: it has nothing to do, or was told so.
NO_THROTTLE = {"gpu_idle", "applications_clocks_setting", "sync_boost", "display_clock_setting"}

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


@dataclass(frozen=True)
class Node:
    """One telemetry file: `start` as written, the samples in order, what could not be read and why."""

    path: Path
    start: dict[str, Any]
    samples: list[dict[str, Any]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    @property
    def host(self) -> str:
        return str(self.start.get("host", ""))

    @property
    def node_rank(self) -> int:
        return int(number(self.start.get("node_rank")) or 0)

    @property
    def ranks(self) -> list[int]:
        return [entry["rank"] for entry in parts(self.start, "ranks") if isinstance(entry.get("rank"), int)]


@dataclass(frozen=True)
class Window:
    """When a node trained, in Unix seconds of its own clock; `measured` is the end of the warm-up."""

    started: float
    measured: float
    ended: float


def read(home: Path) -> tuple[list[Node], list[tuple[Path, str]]]:
    """The telemetry files in the trial's folder `home`, and what of them was not used and why."""
    nodes: list[Node] = []
    faults: list[tuple[Path, str]] = []
    for path in sorted(home.glob("telemetry-*.jsonl")):
        try:
            text = path.read_bytes()
        except OSError as error:
            faults.append((path, f"cannot be read ({error.strerror})"))
            continue
        node, fault = _read(path, text)
        nodes += [node] if node else []
        faults += [(path, fault)] if fault else []
    return nodes, faults


def _read(path: Path, text: bytes) -> tuple[Node | None, str]:
    node, broken = None, []
    for number_of_line, line in enumerate(text.split(b"\n")[:-1], start=1):  # what has no end was cut off
        try:
            row = json.loads(line)
            kind = row["kind"]
        except (ValueError, KeyError, TypeError, RecursionError):
            broken.append(number_of_line)
            continue
        if kind == "start" and node is None:
            node = Node(path, row)
        elif node is not None and kind == "sample" and number(row.get("unix")) is not None:
            node.samples.append(row)
        elif node is not None and kind == "note":
            node.notes.append((str(row.get("what", "")), str(row.get("why", ""))))
        elif node is None or kind == "sample":
            broken.append(number_of_line)
    if node is None:
        return None, "holds no telemetry: its first line does not say what was sampled"
    if broken:
        return node, f"line {broken[0]}{f' and {len(broken) - 1} more' if broken[1:] else ''} not readable; not used"
    return node, ""


def window(node: Node, ranks: Any, train_seconds: float | None) -> Window | None:
    """When the node's ranks trained, by their reports `ranks` as the outcome has them; None if these do not tell.

    `train_seconds` is the time of the measured steps, which are the last ones of the training.
    """
    reports = [r for r in ranks if isinstance(r, dict)] if isinstance(ranks, list) else []
    mine = [report for report in reports if report.get("rank") in node.ranks]
    started = _worst(number(report.get("train_started_unix")) for report in mine)
    ended = _worst(number(report.get("train_ended_unix")) for report in mine)
    if started is None or ended is None:
        return None
    return Window(started, max(started, ended - train_seconds) if train_seconds else started, ended)


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
    others, stolen = (_worst(s.mean("node", key) for s in seen) for key in ("others_cores", "stolen_cores"))
    worst = _worst(s.taken() for s in seen)
    subjects = {(s.node.host, uuid) for s in seen for uuid in s.subjects("gpus")}
    has_gpus, all_seen = bool(gpus or subjects), len(subjects) >= gpus

    def total(values: Iterable[float | None]) -> float | None:
        return _sum(values) if all_seen else None

    joules_of_gpus, source = _gpu_energy(seen)
    energy = total([joules_of_gpus])
    cpu = _sum(s.counter("node", "cpu_energy_joules") for s in _hosts(seen))
    joules = energy if has_gpus else cpu
    return {
        "telemetry_samples": min(len(s.inside) for s in seen),
        "rank_cpu_percent": _mean(v for s in seen for v in s.means("ranks", "cpu_percent")),
        "peak_rss_bytes": _worst(v for s in seen for v in s.peaks("ranks", "rss_bytes")),
        "others_cores": others,
        "stolen_cores": stolen,
        "noisy_neighbour": None if worst is None else worst > NOISY_CORES,
        "gpu_sm_percent": _mean(v for s in seen for v in s.means("gpus", "sm_percent")),
        "gpu_memory_peak_bytes": _worst(v for s in seen for v in s.peaks("gpus", "memory_bytes")),
        "gpu_power_watts": total(v for s in seen for v in s.means("gpus", "power_watts")),
        "gpu_energy_joules": energy,
        "cpu_energy_joules": cpu,
        "energy_joules": joules,
        "energy_source": None if joules is None else source if has_gpus else "CPU package counters",
        "joules_per_sample": joules / samples if joules is not None and samples else None,
        "throttled_share": _mean(v for s in seen for v in s.means("gpus", "throttled")),
        "network_bytes_per_step": _per(_sum(s.counter("node", "sent_bytes") for s in _hosts(seen)), steps),
        "pcie_bytes_per_second": total(
            v for s in seen for key in ("sent", "received") for v in s.means("gpus", f"pcie_{key}_bytes_per_second")
        ),
        "nvlink_bytes_per_step": _per(total(v for s in seen for v in s.counters("gpus", "nvlink_sent_bytes")), steps),
    }


def _gpu_energy(seen: Sequence[_Seen]) -> tuple[float | None, str]:
    """Joules of all GPUs over the window, and where they are from."""
    by_counter = _sum(v for s in seen for v in s.counters("gpus", "energy_joules"))
    if by_counter is not None:
        return by_counter, "GPU energy counters"
    watts = [(s, v) for s in seen for v in s.means("gpus", "power_watts")]
    return _sum(None if v is None else v * s.seconds for s, v in watts), "GPU power over time"


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


def flat(sample: dict[str, Any]) -> dict[tuple[str, str, str], float]:
    """A sample as (ranks | gpus | node, which of them, quantity) ─▶ value, without what is null.

    `throttled` of a GPU is 1 where one of the reasons costs speed, `cpu_energy_joules` of the node is
    that of all its packages.
    """
    found: dict[tuple[str, str, str], float] = {}
    for kind, name in (("ranks", "rank"), ("gpus", "uuid")):
        for entry in parts(sample, kind):
            for key, value in entry.items():
                if key == "throttle" and isinstance(value, list):
                    value, key = float(bool(set(map(str, value)) - NO_THROTTLE)), "throttled"
                if key != name and (known := number(value)) is not None:
                    found[kind, str(entry.get(name)), key] = known
    node = sample.get("node")
    for key, value in node.items() if isinstance(node, dict) else ():
        if isinstance(value, dict):
            value = _sum(map(number, value.values()))
        if (known := number(value)) is not None:
            found["node", "", key] = known
    return found


def parts(row: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The entries of a line's list `kind`."""
    entries = row.get(kind)
    return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []


def number(value: Any) -> float | None:
    """`value` if it is a number that can be measured."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    return None


def _hosts(seen: Sequence[_Seen]) -> list[_Seen]:
    """One of each host: what several nodes on one machine counted is the same."""
    return list({s.node.host: s for s in seen}.values())


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _worst(values: Iterable[float | None]) -> float | None:
    return max((v for v in values if v is not None), default=None)


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum; None if one is missing: a part of a total is not a total."""
    values = list(values)
    known = [v for v in values if v is not None]
    return sum(known) if known and len(known) == len(values) else None


def _per(total: float | None, count: int | None) -> float | None:
    return total / count if total is not None and count else None
