"""The estimates as a table for a terminal of 100 columns.

rich.print(render(estimate(load(folder))))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import polars as pl

from analysis.load.results import varied
from analysis.measures.beside import told
from analysis.measures.caveats import lettered
from analysis.measures.efficiency import KEY, base_words

if TYPE_CHECKING:
    from rich.table import Table


def render(estimates: pl.DataFrame, against: pl.DataFrame | None = None) -> Table:
    """Throughput, speedup and efficiency with their 95% intervals per strategy and worker count.

    The base cases are named below the table, and so is what a reader must know of a row before he
    trusts it, under the letter that the row carries. Where the base case ran beside launches, separate launches'
    efficiency stands in a column of its own, and `against` (of `beside.against_alone`) is told below too.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    apart = _varied_factors(estimates)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), caption_justify="left")
    for name in ("scaling", "strategy", *apart):
        table.add_column(name.replace("_", " "), no_wrap=name == "strategy")
    for name in ("N", "n", "samples/s", "speedup", "efficiency"):
        table.add_column(name, justify="right", no_wrap=True)
    paired = estimates["efficiency_from"].eq("beside").any()
    if paired:
        table.add_column("apart", justify="right", no_wrap=True)
    table.add_column("")
    marks, said = lettered(estimates["warning"])
    last = None
    for row, mark in zip(estimates.iter_rows(named=True), marks, strict=True):
        here = (row["scaling"], *(row[name] for name in apart))
        if last is not None and here != last:
            table.add_section()
        last = here
        is_base = row["strategy"] == row["base_case"] and row["workers"] == 1
        cells = [
            *(row["scaling"], row["strategy"], *(str(row[name]) for name in apart)),
            *(str(row["workers"]), str(row["n_launches"])),
            _throughput(row),
            "base case" if is_base else _speedup(row, with_interval=not paired),
            "" if is_base else _with_interval(row, "efficiency", _percent, "%"),
            *(["" if is_base else _apart(row)] if paired else []),
            mark,
        ]
        table.add_row(*(Text(cell) for cell in cells), style="bold" if is_base else "")
    lines = [*_base_cases(estimates), *(_beside(against) if paired else []), *said]
    table.caption = Text("\n".join(lines), style="not italic dim")
    return table


def _varied_factors(estimates: pl.DataFrame) -> list[str]:
    begin = len(KEY)
    factors = estimates.columns[begin : estimates.columns.index("n_launches")]
    return varied(estimates, factors)


def _with_interval(row: dict[str, Any], name: str, write: Callable[[float], str], unit: str = "") -> str:
    value, low, high = (row[name + end] for end in ("", "_low", "_high"))
    if value is None:
        return "–"
    if low is None or high is None:
        return f"{write(value)}{unit} [?]"
    return f"{write(value)}{unit} [{write(low)}, {write(high)}]"


def _speedup(row: dict[str, Any], with_interval: bool) -> str:
    """N times the efficiency: beside two of these there is no room for its interval."""
    if with_interval or row["speedup"] is None:
        return _with_interval(row, "speedup", _three_digits)
    return _three_digits(row["speedup"])


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _apart(row: dict[str, Any]) -> str:
    """The efficiency of separate launches, which is what stands before it where no base case ran beside."""
    return _with_interval(row, "efficiency_apart", _percent, "%") if row["efficiency_from"] == "beside" else "the same"


def _beside(against: pl.DataFrame | None) -> list[str]:
    lines = ["Speedup and efficiency: over the base case beside each launch. Apart: over launches of its own."]
    rows = [] if against is None else against.rows(named=True)
    if said := "; ".join(f"{row['base_case']}, batch {row['batch']}, {told(row)}" for row in rows):
        lines.append(f"The base case beside takes, of its time alone [99% interval]: {said}.")
    return lines


def _throughput(row: dict[str, Any]) -> str:
    """The rate, and half of its interval in percent (on the log scale it is symmetric)."""
    value, low, high = row["throughput"], row["throughput_low"], row["throughput_high"]
    if low is None:
        return f"{_rate(value)} ± ?"
    percent = 100 * (math.sqrt(high / low) - 1) if low > 0 else math.inf
    return f"{_rate(value)} ±{_rate(percent) if percent >= 9.95 else f'{percent:.1f}'}%"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def _three_digits(value: float) -> str:
    return f"{value:.{max(0, 2 - len(f'{value:.0f}') + 1)}f}" if value >= 1 else f"{value:.2f}"


def _called(name: str, settings: list[Any]) -> str:
    return f"{name} ({', '.join(map(str, settings))})" if settings else name


def _base_cases(estimates: pl.DataFrame) -> list[str]:
    lines, apart = ["N workers, n launches; [95% interval over launches]."], _varied_factors(estimates)
    for (scaling,), rows in estimates.group_by("scaling", maintain_order=True):
        columns = ("base_case", "base_throughput", *apart)
        bases = rows.select(columns).drop_nulls(columns[:2]).unique(maintain_order=True).rows()
        if bases:
            said = ", ".join(f"{_called(name, settings)} {_rate(rate)} samples/s" for name, rate, *settings in bases)
            lines.append(f"Base case, {scaling}: {said} ({base_words(estimates)}).")
    return lines
