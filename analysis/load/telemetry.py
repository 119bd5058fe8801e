"""A trial's telemetry files ─▶ what each node's sampler saw.

docs/results-format.md is the contract. A sampler may have been killed: a last line that was cut off is
no fault. Any other line that is not what it should be is named, and the rest is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.load.values import number, whole

# Reasons why a GPU's clocks are lower than they could be that are no loss: it has nothing to do, or was told so.
NO_THROTTLE = {"gpu_idle", "applications_clocks_setting", "sync_boost", "display_clock_setting"}


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
    """When a node trained, in Unix seconds of its own clock; `measured` is the end of the warm-up.

    Of a launch in blocks it is from the first round to the end of the last, and `blocks` are those of its training.
    """

    started: float
    measured: float
    ended: float
    blocks: tuple[tuple[float, float], ...] = ()


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
    started = worst_of(number(report.get("train_started_unix")) for report in mine)
    ended = worst_of(number(report.get("train_ended_unix")) for report in mine)
    if started is None or ended is None:
        return None
    if rounds := [blocks for report in mine if (blocks := _rounds(report))]:
        begins, ends = zip(*(times for blocks in rounds for times in blocks.values()), strict=True)
        train = [[blocks[key] for blocks in rounds if key in blocks] for key in rounds[0] if key[0] == "train"]
        of_all = [(max(begin for begin, _ in each), min(end for _, end in each)) for each in train]
        return Window(started, min(begins), max(ends), tuple(sorted(span for span in of_all if span[0] < span[1])))
    return Window(started, max(started, ended - train_seconds) if train_seconds else started, ended)


def _rounds(report: dict[str, Any]) -> dict[tuple[str, int], tuple[float, float]]:
    """Phase and round ─▶ when that block began and ended, of the rounds that are measured."""
    found = {}
    for block in parts(report, "blocks"):
        begin, end, index = number(block.get("begin_unix")), number(block.get("end_unix")), whole(block.get("block"), 1)
        if begin is not None and end is not None and index is not None:
            found[str(block.get("phase")), index] = begin, end
    return found


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
            value = total(map(number, value.values()))
        if (known := number(value)) is not None:
            found["node", "", key] = known
    return found


def parts(row: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The entries of a line's list `kind`."""
    entries = row.get(kind)
    return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []


def worst_of(values: Iterable[float | None]) -> float | None:
    return max((v for v in values if v is not None), default=None)


def total(values: Iterable[float | None]) -> float | None:
    """The sum; None if one is missing: a part of a total is not a total."""
    values = list(values)
    known = [v for v in values if v is not None]
    return sum(known) if known and len(known) == len(values) else None
