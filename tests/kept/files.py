"""What is kept, where it lies, and how what is found today is set against it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
IDS, GRIDS = HERE / "ids.json", HERE / "grids.json"
RESULTS, NUMBERS, WORDS, WRONG = HERE / "results", HERE / "numbers", HERE / "words", HERE / "wrong"
MOST_SHOWN = 20


def read(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, {} if there is no such file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def write(path: Path, content: dict[str, Any]) -> None:
    """One line for each entry, so that a diff names what has changed."""
    lines = (f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}" for key, value in content.items())
    path.parent.mkdir(exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def differences(kept: Any, found: Any, at: Sequence[str] = (), *, exact: bool = False) -> Iterator[str]:
    """Where `found` lacks what is `kept` or has something else there, a line each; what it has besides is no matter.
    Of a warning each part must still be said, and there may be more.

    Fractions may differ by a billionth of theirs, unless `exact`.
    """
    if isinstance(kept, dict) and isinstance(found, dict):
        for key, value in kept.items():
            if key == "warning" and isinstance(value, str) and isinstance(found.get(key), str):
                unsaid = [text for text in value.split("; ") if text not in found[key].split("; ")]
                yield from (f"{' / '.join((*at, key))}: no longer warns that {text}" for text in unsaid)
            elif key in found:
                yield from differences(value, found[key], (*at, str(key)), exact=exact)
            else:
                yield f"{' / '.join((*at, str(key)))}: is missing, kept {_short(value)}"
    elif isinstance(kept, list) and isinstance(found, list) and len(kept) == len(found):
        for index, (one, other) in enumerate(zip(kept, found, strict=True)):
            yield from differences(one, other, (*at, str(index)), exact=exact)
    elif not _same(kept, found, exact):
        yield f"{' / '.join(at)}: kept {_short(kept)}, found {_short(found)}"


def _same(kept: Any, found: Any, exact: bool) -> bool:
    if not exact and isinstance(kept, float) and isinstance(found, int | float):
        return kept == found or math.isclose(kept, found, rel_tol=1e-9, abs_tol=1e-12)
    return type(kept) is type(found) and bool(kept == found)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:300]}…"


def told(lines: Sequence[str], advice: str) -> str:
    """The message of a failed test."""
    more = [f"… and {len(lines) - MOST_SHOWN} more"] if len(lines) > MOST_SHOWN else []
    return "\n".join([f"{len(lines)} differ from what is kept. {advice}", *lines[:MOST_SHOWN], *more])
