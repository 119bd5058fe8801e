"""Cells of a page's tables: the text that is read, and beside it the number that is sorted by.

So "70%" with its interval sorts as 0.7, and a missing value sorts last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from analysis.wording import digits, percent


@dataclass(frozen=True)
class Cell:
    """`sort` is what the column sorts by, None to sort last; `interval` is shown smaller."""

    text: str
    sort: float | str | None = None
    interval: str = ""


@dataclass(frozen=True)
class Column:
    name: str
    numeric: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """`data` is the name of the CSV beside the report; `left_out` counts rows that are only there."""

    id: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    data: str = ""
    left_out: int = 0


def noted(table: Table, notes: Sequence[str]) -> Table:
    """The table with a note for each row, if there is any."""
    if not any(notes):
        return table
    rows = [[*row, text(note)] for row, note in zip(table.rows, notes, strict=True)]
    return replace(table, columns=[*table.columns, Column("note")], rows=rows)


def text(value: Any) -> Cell:
    return Cell("–") if value is None or value == "" else Cell(str(value), str(value))


def whole(value: int | None) -> Cell:
    return Cell("–") if value is None else Cell(f"{value:,}", value)


def number(value: float | None, low: float | None = None, high: float | None = None, unit: str = "") -> Cell:
    """Three digits that carry meaning, and the interval in the same unit; `unit` may be % or ms."""
    if value is None or not math.isfinite(value):
        return Cell("–")
    scale = {"%": 100.0, "ms": 1e3}.get(unit, 1.0)

    def write(v: float) -> str:
        return percent(v) if unit == "%" else digits(v * scale)

    sign = "%" if unit == "%" else ""
    # What is compared with itself has no interval to show.
    interval = f"{write(low)} – {write(high)}" if low is not None and high is not None and low < high else ""
    return Cell(write(value) + sign, value, interval)


def three(row: dict[str, Any], name: str) -> tuple[Any, Any, Any]:
    """A quantity with both ends of its interval."""
    return row[name], row[name + "_low"], row[name + "_high"]
