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
MOST_LINES = 6
# What is not known where step lines were not read, and how many launches there are, which status shows itself.
NOT_READ = ("steadiness not checked", "whether one of the hosts")


def lines(folder: Path) -> list[str]:
    """The commonest first. Raises NotResults if `folder` holds no results."""
    few = _few(folder)
    results = load(folder, steps=few)
    unsaid = (FEW,) if few else (FEW, *NOT_READ)
    warned = {
        point: [text for text in texts if not text.startswith(unsaid)]
        for point, texts in caveats.by_point(results).items()
    }
    kinds = [f"warning, {line}" for line in caveats.counted(warned)]
    said = kinds[:MOST_LINES]
    if len(kinds) > MOST_LINES:
        said.append(f"and {len(kinds) - MOST_LINES} more kinds of warnings: `scaling report {folder}` has all")
    if not few and len(warned):
        said.append(f"step lines were not read, there are many: `scaling report {folder}` says what they tell")
    return said + _left_out(results)


def _few(folder: Path) -> bool:
    """Whether the step lines are no more than LARGEST_BYTES."""
    size = 0
    for path in (folder / "trials").glob("*/rank-*.jsonl"):
        size += path.stat().st_size
        if size > LARGEST_BYTES:
            return False
    return True


def _left_out(results: Results) -> list[str]:
    left_out, absent = results.plan.get("left_out"), results.plan.get("not_available")
    said = [f"left out: {line}" for line in left_out] if isinstance(left_out, list) else []
    absent = absent if isinstance(absent, dict) else {}
    said += [f"not available: {name}: {why}" for name, why in absent.items()]
    return said + [f"left out of {path}: {why}" for path, why in facts.left_out_of_data(results)]
