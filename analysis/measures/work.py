"""The work of a training step: its operations, and the numbers that it reads and writes.

A rank's report says it (`work` in outcome.json). Ranks did not always: of the models of then the same counts lie
in work.csv, a row for each side of the image; `own` marks the side that a model has if nothing is said.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

COUNTED = Path(__file__).with_name("work.csv")
FIELDS = ("flop", "parameters", "activations", "image")


@dataclass(frozen=True)
class Work:
    """Of one training step per sample: operations; and elements of parameters, activations and the image."""

    flop: int
    parameters: int
    activations: int
    image: int

    def bytes_per_step(self, batch: int) -> int:
        return 4 * (10 * self.parameters + batch * (5 * self.activations + 2 * self.image))

    def intensity(self, batch: int) -> float:
        """FLOP per byte."""
        return self.flop * batch / self.bytes_per_step(batch)


def reported(outcome: dict[str, Any]) -> Work | None:
    """What the first rank that says it says; None if none does."""
    reports = outcome.get("ranks")
    for report in reports if isinstance(reports, list) else []:
        said = report.get("work") if isinstance(report, dict) else None
        values: list[Any] = [said.get(name) for name in FIELDS] if isinstance(said, dict) else []
        if values and all(type(value) is int and value > 0 for value in values):
            return Work(*values)
    return None


def counted(model: str, side: Any = None) -> Work | None:
    """That of a model of before, on images with `side` pixels on a side, by default its own; None of any other."""
    return _table().get((model, str(side or "")))


@cache
def _table() -> dict[tuple[str, str], Work]:
    found = {}
    with COUNTED.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            work = Work(*(int(row[name]) for name in FIELDS))
            found[row["model"], row["side"]] = work
            if row["own"]:
                found[row["model"], ""] = work
    return found
