"""A trial keeps its id and its file, a study its points: what was measured is found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.contract.trial import Trial
from tests.kept import files
from tests.kept.choose import points, trial_of, written

KEPT = files.read(files.IDS)
STUDIES = sorted((files.ROOT / "studies").glob("*.yaml"), key=lambda path: path.name)
LOST = "Results that were measured before would not be found again."


@pytest.fixture(scope="module")
def trials() -> dict[str, Trial | str]:
    """What is read of each kept trial.json, or why it cannot be read any more."""
    return {name: _read(content) for name, content in KEPT.items()}


def _read(content: dict[str, Any]) -> Trial | str:
    try:
        return trial_of(content)
    except ValueError as error:
        return "; ".join(str(error).splitlines()[1:3])


def test_a_trial_keeps_its_id(trials: dict[str, Trial | str]) -> None:
    """The id that is made from the content of trial.json is the one it has always had."""
    found = {name: trial if isinstance(trial, str) else trial.id for name, trial in trials.items()}
    lines = [f"ids.json / {name}: kept {name}, found {other}" for name, other in found.items() if name != other]
    assert not lines, files.told(lines, LOST)


def test_a_trial_keeps_its_file(trials: dict[str, Trial | str]) -> None:
    """trial.json has the same keys and values at the same places as ever; it may have more."""
    lines = [
        line
        for name, trial in trials.items()
        if not isinstance(trial, str)
        for line in files.differences(KEPT[name], written(trial), ("ids.json", name), exact=True)
    ]
    assert not lines, files.told(lines, "Every reader of trial.json relies on its keys.")


def test_ids_are_kept_of_every_factor() -> None:
    """Of each factor of a trial, at each value where there are few, some kept trial has another than the default."""
    values: dict[str, set[str]] = {}
    for content in KEPT.values():
        for factor, value in content.items():
            parts = value.items() if isinstance(value, dict) else [("", value)]
            for part, each in parts:
                values.setdefault(f"{factor} {part}".strip(), set()).add(str(each))
    assert not [factor for factor, seen in values.items() if len(seen) < 2]
    assert len(KEPT) >= 300


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_keeps_its_points(study: Path) -> None:
    """The same points in the same order, as the order of launches follows from it."""
    kept = files.read(files.GRIDS).get(study.name)
    assert kept, f"{study.name}: no points of it are kept yet; run `python -m tests.kept.choose`"
    fits, found = points(study)
    there = {"fits": fits, "points": [point.point for point in found]}
    lines = list(files.differences(kept, there, ("grids.json", study.name), exact=True))
    assert not lines, files.told(lines, LOST)


def test_a_kept_study_is_still_shipped() -> None:
    """A study that is renamed or removed leaves its results without a file to go on with."""
    assert set(files.read(files.GRIDS)) <= {path.name for path in STUDIES}
