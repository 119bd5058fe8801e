"""Values of files that anybody may have written: as what they should be, or as nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.wording import clean


def read_json(path: Path) -> tuple[dict[str, Any] | None, str]:
    """The JSON object in `path`, or None and why there is none ("" if the file is absent)."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError, RecursionError) as error:
        return None, f"{path.name} is not readable as JSON ({str(error)[:80]})"
    if not isinstance(content, dict):
        return None, f"{path.name} is not a JSON object"
    return content, ""


def whole(value: Any, least: int = 0) -> int | None:
    """`value` if it is a whole number from `least` to 10^12."""
    return value if isinstance(value, int) and not isinstance(value, bool) and least <= value <= 10**12 else None


def number(value: Any) -> float | None:
    """`value` if it is a number that can be measured."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    return None


def text(value: Any) -> str | None:
    return None if value is None else clean(str(value))


def time(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
