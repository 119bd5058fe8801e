"""A trial's folder: made, filled, set aside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from jobs.contract.files import TRIAL, rank_file, write_atomically
from jobs.contract.trial import Trial


def write_trial(folder: Path, trial: Trial) -> None:
    folder.mkdir(parents=True)
    write_atomically(folder / TRIAL, json.dumps(trial.content, indent=1) + "\n")


def read_trial(folder: Path) -> Trial:
    return Trial.model_validate_json((folder / TRIAL).read_text(encoding="utf-8"))


def set_aside(folder: Path, why: str) -> str:
    """Move a trial's folder to `set-aside/`, so that the trial can be done anew; one line about it."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    results = folder.parent.parent
    target = results / "set-aside" / f"{folder.name}-{stamp}"
    target.parent.mkdir(exist_ok=True)
    folder.rename(target)
    return f"{folder.name} {why}; kept in {target.relative_to(results)}"


def append_steps(folder: Path, rank: int, rows: Sequence[Mapping[str, object]]) -> None:
    """Append step lines of `rank`: phase, step, seconds, data_seconds, samples, loss, warmup."""
    with rank_file(folder, rank, "jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
