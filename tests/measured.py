"""Results folders as a machine leaves them, written by the project's own writer with chosen times.

    study(folder, ["tf", "torch"], seconds={"tf": 0.01}, hardware={"cpu": "AMD EPYC", "accelerator": "TPU v5e"})

For tests of what happens to results afterwards; tests/analysis/generate.py has noise and scaling laws.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.results.folder import ResultsFolder
from cluster.study.grid import grid
from cluster.study.schema import Study
from jobs.contract.folder import append_steps, write_trial
from jobs.contract.outcome import conclude, now
from jobs.contract.report import RankReport, write_rank_report
from jobs.contract.trial import Trial

HARDWARE = {"cpu": "Example CPU 9000", "physical_cores": 8}


def study(
    folder: Path,
    strategies: Sequence[str],
    *,
    seconds: Mapping[str, float] | None = None,
    repeats: int = 3,
    hardware: Mapping[str, Any] = HARDWARE,
    host: str = "elsewhere",
    spread: float = 0.01,
    **fields: Any,
) -> Path:
    """A finished study of one worker and 8 samples a step. Launch `i` is slower by `i` times `spread`."""
    content = {
        "name": "made",
        "strategies": list(strategies),
        "workers": [1],
        "scaling": ["strong"],
        "batch": {"global": 8},
        "steps": {"warmup": 1, "measured": 4, "compute_only": 0},
        "repeats": {"min": repeats},
    }
    made = Study.model_validate(content | fields)
    results = ResultsFolder(folder)
    results.open(made)
    points = grid(made, 8)
    results.write_study(made)
    results.write_plan(points, repeats, {})
    results.close()
    for order, (point, repeat) in enumerate((p, r) for r in range(repeats) for p in points.points):
        trial = point.model_copy(update={"repeat": repeat})
        each = (seconds or {}).get(trial.strategy, 0.01) * (1 + spread * repeat)
        launch(folder, trial, each, order=order, hardware=hardware, host=host)
    return folder


def launch(
    folder: Path,
    trial: Trial,
    seconds: float,
    *,
    order: int = 0,
    hardware: Mapping[str, Any] = HARDWARE,
    host: str = "elsewhere",
    status: Any = "ok",
) -> Path:
    """One launch whose steps all took `seconds`."""
    home = folder / "trials" / trial.id
    write_trial(home, trial)
    for rank in range(trial.processes):
        steps = range(trial.steps.warmup + trial.steps.measured)
        line = {"phase": "train", "seconds": seconds, "data_seconds": 0.0, "loss": 1.0}
        line["samples"] = trial.global_batch // trial.processes
        rows = [line | {"step": i} | ({"warmup": True} if i < trial.steps.warmup else {}) for i in steps]
        append_steps(home, rank, rows)
        (home / f"rank-{rank:05d}.log").write_text("started\n")
        write_rank_report(home, report(rank, host, hardware))
    conclude(home, status=status, error="" if status == "ok" else "rank 0 ended with exit code 1: no memory",
             launcher="local", order=order, started=now(), exits=[])  # fmt: skip
    return home


def report(rank: int, host: str, hardware: Mapping[str, Any]) -> RankReport:
    """A rank's report with something in every field that must be there."""
    plain: dict[Any, Any] = {int: 1, float: 1.0, str: "x", list[int]: [0]}
    required = {n: plain[f.annotation] for n, f in RankReport.model_fields.items() if f.is_required()}
    return RankReport.model_validate(required | {"rank": rank, "host": host, "hardware": dict(hardware)})


def edit(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
