"""What `scaling status` says of launches that have ended: their warnings, and what the study leaves out.

Step lines are read for it where there are few (LARGEST_BYTES in all, which take about a second); of more, as a study of
many ranks leaves them, only what the outcomes say is told, and that.
"""

from __future__ import annotations

from pathlib import Path

from analysis.load.results import Results, load
from analysis.measures import caveats
from analysis.measures.caveats import FEW
from analysis.report import facts

LARGEST_BYTES = 32 * 2**20
MOST_LINES, MOST_LEFT_OUT = 6, 10
# What is not known where step lines were not read, and how many launches there are, which status shows itself.
NOT_READ = ("steadiness not checked", "whether one of the hosts")


def lines(results: Results, *, few: bool) -> list[str]:
    """The commonest first, and what is left out; `results` and `few` are those of `read`."""
    unsaid = (FEW,) if few else (FEW, *NOT_READ)
    warned = {
        point: [text for text in texts if not text.startswith(unsaid)]
        for point, texts in caveats.by_point(results).items()
    }
    kinds = [f"warning, {line}" for line in caveats.counted(warned)]
    said = kinds[:MOST_LINES]
    if len(kinds) > MOST_LINES:
        said.append(f"and {len(kinds) - MOST_LINES} more kinds of warnings: `scaling report {results.folder}` has all")
    if not few and len(warned):
        said.append(f"step lines were not read, there are many: `scaling report {results.folder}` says what they tell")
    said += [without] if (without := facts.without_sums(results)) else []
    left_out = facts.left_out_of_status(results)
    said += left_out[:MOST_LEFT_OUT]
    if len(left_out) > MOST_LEFT_OUT:
        said.append(f"and {len(left_out) - MOST_LEFT_OUT} more: `scaling report {results.folder}` lists them")
    return said


def read(folder: Path) -> tuple[Results, bool]:
    """The results in `folder`, and whether their step lines were read, which are no more than LARGEST_BYTES. Raises
    NotResults if it holds none."""
    few = _few(folder)
    return load(folder, steps=few), few


def _few(folder: Path) -> bool:
    size = 0
    for path in (folder / "trials").glob("*/rank-*.jsonl"):
        size += path.stat().st_size
        if size > LARGEST_BYTES:
            return False
    return True
