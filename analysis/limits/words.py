"""What limits a curve, in words and as tables: each sentence says what its numbers say, and no more.

frame(limits(...), results)     for the report and its data
render(limits(...))             for a terminal of 100 columns
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from analysis.limits.causes import CAUSES
from analysis.limits.costs import THRESHOLD, Part
from analysis.limits.limit import Limit
from analysis.load.results import Results, varied
from analysis.load.summary import NOISY_CORES
from analysis.measures.efficiency import KEY
from analysis.wording import digits, percent

if TYPE_CHECKING:
    from rich.table import Table

NAMES = {
    "communication": "exposed communication",
    "straggler": "waiting for the slowest rank",
    "input": "input wait",
    "process": "computing that takes longer in a rank than in the plain process beside it",
    "contention": "computing that is slower beside other workers, with the same batch each",
    "batch": "computing that is slower in the smaller batch per worker",
    "growth": "computing that takes longer per sample",
    "wrapping": "what the strategy adds to computing even with one worker",
    "fixed": "cost per step that does not shrink with the batch (launches, optimizer)",
}
MEASURED = ("loss", *CAUSES, "neighbour", "throttled", "idle")


def says(limit: Limit) -> str:
    """What limits this point, in one or two sentences."""
    said = _of_base_case(limit) if limit.state == "base" else _of_curve(limit)
    if limit.against_itself:
        said = f"Against itself at one worker: {said[0].lower()}{said[1:]}"
    return " ".join([said, *_seen(limit)])


def _of_base_case(limit: Limit) -> str:
    if limit.named:
        return f"Base case: {_list(limit)} of its step."
    seen = ", ".join(f"{NAMES[cause]} {_range(part)}" for cause, part in limit.parts.items())
    said = f"Base case: nothing beside computing is shown to take {THRESHOLD:.0%} of its step ({seen})."
    return said if "fixed" in limit.parts else f"{said} One batch size cannot tell cost per step from cost per sample."


def _of_curve(limit: Limit) -> str:
    loss = limit.loss
    if loss is None:
        return "Nothing to compare with: neither the base case nor one worker of the strategy was measured."
    if math.isnan(loss.low):
        return f"Loses {percent(loss.share)}%; one launch has no interval, so no cause is named."
    if limit.state == "straight":
        return f"Does not bend: loses {_range(loss)} of the worker time."
    if limit.state == "unclear":
        return f"Not shown to bend: loses {_range(loss)} of the worker time."
    if limit.named:
        rest = loss.share - sum(limit.parts[cause].share for cause in limit.named)
        more = f"; {percent(rest)}% in parts that are small or not clear of zero" if rest >= THRESHOLD else ""
        return f"Loses {_range(loss)} of the worker time: {_list(limit)}{more}.{_undivided(limit)}"
    largest = max(limit.parts, key=lambda cause: limit.parts[cause].share, default=None)
    part = "" if largest is None else f" (largest part: {NAMES[largest]}, {_range(limit.parts[largest])})"
    return f"Loses {_range(loss)} of the worker time; nothing measured here explains it{part}.{_undivided(limit)}"


def _undivided(limit: Limit) -> str:
    if not limit.broken_down:
        return " Without compute-only steps communication and computing are not told apart."
    if "growth" in limit.named:
        batch = limit.point["global_batch"] // limit.point["workers"]
        return f" A run of one worker with batch {batch} would tell smaller batches from what workers share."
    return ""


def _list(limit: Limit) -> str:
    slow = "" if limit.slow_rank is None else f" (rank {limit.slow_rank} computes slowest)"
    horovod = limit.point["communication"] == "horovod"
    who = {"straggler": slow, "process": " (Horovod's own thread included)" if horovod else ""}
    return ", ".join(f"{NAMES[cause]}{who.get(cause, '')} {_range(limit.parts[cause])}" for cause in limit.named)


def _seen(limit: Limit) -> list[str]:
    """What telemetry adds, as far as it is more than nothing."""
    found = []
    part = limit.seen.get("neighbour")
    if part is not None and part.share > NOISY_CORES:
        bounds = "" if math.isnan(part.low) else f" ({digits(max(0.0, part.low))}–{digits(part.high)})"
        found.append(f"Others took {digits(part.share)}{bounds} cores from the workers meanwhile.")
    part = limit.seen.get("throttled")
    if part is not None and part.named:
        found.append(f"The GPUs were throttled for {_range(part)} of the time.")
    part = limit.seen.get("idle")
    if part is not None and part.named and limit.state == "base":
        found.append(f"The GPU had no kernel for {_range(part)} of the time: it waits for its host.")
    return found


def _range(part: Part) -> str:
    if math.isnan(part.low):
        return f"{percent(part.share)}% (no interval)"
    return f"{percent(part.share)}% ({percent(part.low)} to {percent(part.high)}%)"


def frame(found: Sequence[Limit], results: Results) -> pl.DataFrame:
    """One row per point: KEY, the factors, `state`; MEASURED, shares of the worker time (`neighbour` in cores),
    with `_low` and `_high`, null where it could not be told; `named`, `slow_rank`, `shown` and `says`."""
    rows = []
    for limit in found:
        row: dict[str, Any] = {**limit.point, "state": limit.state}
        for name in MEASURED:
            part = limit.loss if name == "loss" else (limit.parts | limit.seen).get(name)
            for end in ("", "_low", "_high"):
                value = None if part is None else getattr(part, end[1:] or "share")
                row[name + end] = None if value is None or math.isnan(value) else value
        row |= {"named": "; ".join(limit.named), "slow_rank": limit.slow_rank, "shown": limit.shown}
        rows.append(row | {"says": says(limit)})
    kinds = results.trials.schema
    schema: dict[str, Any] = {name: kinds.get(name, pl.String) for name in (*KEY, *results.factors)}
    schema |= {"state": pl.String}
    schema |= {name + end: pl.Float64 for name in MEASURED for end in ("", "_low", "_high")}
    schema |= {"named": pl.String, "slow_rank": pl.Int64, "shown": pl.Boolean, "says": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def varied_settings(limits: Sequence[Limit]) -> list[str]:
    """The factors that differ among these points."""
    settings = pl.DataFrame([limit.point for limit in limits], infer_schema_length=None)
    return varied(settings, [name for name in settings.columns if name not in KEY])


def render(found: Sequence[Limit]) -> Table:
    """One line per point shown, without those of one worker where nothing is named."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = [limit for limit in found if limit.shown and (limit.named or limit.point["workers"] > 1)]
    apart = varied_settings(shown)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), caption_justify="left")
    for name in ("scaling", "strategy", *apart):
        table.add_column(name, no_wrap=name == "strategy")
    table.add_column("N", justify="right")
    table.add_column("what limits it")
    for limit in shown:
        point = limit.point
        cells = [point["scaling"], point["strategy"], *(str(point[name]) for name in apart), str(point["workers"])]
        table.add_row(*map(Text, (*cells, says(limit))))
    table.caption = Text(
        f"[95% interval over launches]. Named is what takes at least {THRESHOLD:.0%} of the worker time and whose "
        "interval is clear of zero.",
        style="not italic dim",
    )
    return table
