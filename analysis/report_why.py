"""Tables of the report on why a curve bends: what limits it."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.efficiency import KEY
from analysis.limit_words import says
from analysis.limits import THRESHOLD, Limit
from analysis.report_cells import Cell, Column, Table, number, text
from analysis.report_tables import point_cells, point_columns


def limits(found: Sequence[Limit]) -> Table:
    """What limits each curve at its largest worker count, and where the answer changes on the way there."""
    shown = [limit for limit in found if limit.shown]
    settings = [{name: value for name, value in limit.point.items() if name not in KEY} for limit in shown]
    factors = [name for name in (settings[0] if shown else ()) if len({str(s[name]) for s in settings}) > 1]
    columns = [*point_columns(factors), Column("lost", True, "1 − efficiency"), Column("what limits it")]
    rows = [
        [
            *point_cells(limit.point, factors),
            Cell("–") if limit.loss is None else number(limit.loss.share, limit.loss.low, limit.loss.high, "%"),
            text(says(limit)),
        ]
        for limit in shown
    ]
    caption = f"What limits each curve: what takes at least {THRESHOLD:.0%} of the worker time, its interval above zero"
    return Table("limits", caption, columns, rows, "limits", len(found) - len(shown))
