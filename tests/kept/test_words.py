"""Report, terminal and figures say and show the same of the same results."""

from __future__ import annotations

import difflib

import pytest

from tests.kept import files
from tests.kept.conftest import Analysed
from tests.kept.found import folders

MOST_LINES = 40
ADVICE = "If that is meant: `python -m tests.kept.renew`, read the diff, commit it with the reason."


@pytest.mark.parametrize("folder", folders())
def test_results_keep_their_words_and_pictures(folder: str, analysed: Analysed) -> None:
    """The visible text of the page, what the commands print, and every figure."""
    home = files.WORDS / folder
    kept = {path.name: path.read_text(encoding="utf-8") for path in sorted(home.iterdir())} if home.is_dir() else {}
    found = analysed(folder).words()
    lines = [
        line for name in kept | found for line in _differences(f"{folder}/{name}", kept.get(name), found.get(name))
    ]
    assert not lines, "\n".join([ADVICE, *lines])


def _differences(name: str, kept: str | None, found: str | None) -> list[str]:
    if kept is None or found is None:
        return [f"{name}: {'is not kept yet' if kept is None else 'is not made any more'}"]
    lines = list(difflib.unified_diff(kept.splitlines(), found.splitlines(), f"kept {name}", "found", lineterm="", n=0))
    more = [f"… and {len(lines) - MOST_LINES} more lines"] if len(lines) > MOST_LINES else []
    return [line[:300] for line in lines[:MOST_LINES]] + more
