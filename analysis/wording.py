"""Numbers and names as text, the same in tables, sentences and figures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any


def percent(share: float) -> str:
    return (f"{100 * share:.1f}" if abs(share) < 0.0995 else f"{100 * share:.0f}").replace("-", "−")


def digits(value: float) -> str:
    """Three significant digits without an exponent: 1,234 · 56.7 · 0.891."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return "∞"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(places, 6)}f}".replace("-", "−")


def some(names: Iterable[str], most: int = 6) -> str:
    """A few names and how many more."""
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def within(row: dict[str, Any], name: str) -> str:
    """The interval of a quantity, as it follows its value; nothing where there is none."""
    low, high = row[name + "_low"], row[name + "_high"]
    return "" if low is None else f" ({digits(low)}–{digits(high)})"


def clean(text: str) -> str:
    """Text that can be encoded: a file name or a JSON escape may hold half a surrogate pair."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
