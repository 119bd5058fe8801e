"""What a law's parameter says, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.laws.law import Parameter


def too_few(law: str, there: int, wanted: int) -> str:
    """Why a law was not fitted."""
    counts = "worker count" if there == 1 else "worker counts"
    return f"{law} was not fitted: {there} {counts} measured, it takes at least {wanted}"


def of(law: str, parameter: Parameter, largest: int, reach: int) -> str:
    """One sentence on `parameter` of `law`, measured up to `largest` workers."""
    name, value, low, high = parameter.name, parameter.value, parameter.low, parameter.high
    if name == "peak":
        return _peak(value, low, high, largest, reach)
    said = f"{_percent(value)}{_range(low, high)}"
    if law == "Amdahl":
        limit = "no limit is shown"
        if value > 0 and not low <= 0:
            limit = f"at most {1 / value:.3g} times one worker, extrapolated to any N"
        return f"{said} of one worker's time does not shrink with more workers: {limit}"
    if law == "Gustafson":
        return f"{said} of a worker's time adds nothing when the work grows with the workers"
    if name == "contention":
        return f"{said} of the work waits for something shared, such as a link or a lock"
    if low <= 0 or not value > 0:
        return f"{said} per pair of workers for keeping them consistent: the interval reaches 0, no peak is shown"
    return f"{said} per pair of workers for keeping them consistent: throughput has a peak"


def _peak(value: float, low: float, high: float, largest: int, reach: int) -> str:
    if not value <= reach * largest:
        return (
            f"no peak of throughput up to {reach * largest} workers ({reach} times the largest measured), extrapolated"
        )
    beyond = "" if value <= largest else " (extrapolated)"
    if high == math.inf:
        return f"no peak of throughput is shown: the interval reaches to none (estimate: {value:.0f} workers{beyond})"
    top = f"{high:.0f}" if high <= reach * largest else f"more than {reach * largest}"
    span = "" if math.isnan(low) else f" [{low:.0f}, {top}]"
    return f"throughput peaks at {value:.0f}{span} workers{beyond} and falls beyond"


def _percent(value: float) -> str:
    return f"{100 * value:.3g}%"


def _range(low: float, high: float) -> str:
    return "" if math.isnan(low) else f" [{100 * low:.2g}, {100 * high:.2g}]"
