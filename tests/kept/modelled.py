"""A results folder that no machine has left: two frameworks on up to 16 workers, whose times follow a formula.

The kept real runs are too few and too small for a law to be fitted or a claim to be decided; these are not. It is
written anew for each test and holds nothing by chance, so that its numbers are kept like those of the others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from tests.kept.choose import trial_of, written

NAME = "modelled"
WORKERS, REPEATS, BATCH = (1, 2, 4, 8, 16), 3, 64
STEPS = {"warmup": 1, "measured": 5, "compute_only": 3}
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
# Strategy ─▶ framework, communication, base case, samples per second of one worker, and what of the time is lost with
# each further worker and with each pair of them, as in the universal scalability law.
WAYS: dict[str, tuple[str, str, str, float, float, float]] = {
    "torch": ("PyTorch", "none", "torch", 1000.0, 0.0, 0.0),
    "torch-ddp": ("PyTorch", "native", "torch", 980.0, 0.08, 0.002),
    "tf": ("TensorFlow", "none", "tf", 700.0, 0.0, 0.0),
    "tf-mirrored": ("TensorFlow", "native", "tf", 690.0, 0.02, 0.0),
}
ONE_PROCESS = ("tf-mirrored",)


def write(folder: Path) -> None:
    """All of its launches, in turns."""
    study = {
        "format": 1, "name": NAME, "strategies": list(WAYS), "workers": list(WORKERS), "steps": STEPS,
        "batch": {"global": BATCH, "per_worker": BATCH}, "repeats": {"min": REPEATS},
    }  # fmt: skip
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    names = []
    launches = ((repeat, *point) for repeat in range(REPEATS) for point in _points())
    for order, (repeat, strategy, workers, batch) in enumerate(launches):
        names.append(_launch(folder, order, repeat, strategy, workers, batch).rpartition("-r")[0])
    plan = {
        "format": 1, "points": list(dict.fromkeys(names)), "repeats": REPEATS, "left_out": [], "not_available": {},
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")


def _points() -> Iterator[tuple[str, int, int]]:
    for strategy, (_, communication, *_) in WAYS.items():
        for workers in WORKERS if communication != "none" else (1,):
            for batch in dict.fromkeys((BATCH, BATCH * workers)):
                yield strategy, workers, batch


def _launch(folder: Path, order: int, repeat: int, strategy: str, workers: int, batch: int) -> str:
    framework, communication, base, rate, contention, coherency = WAYS[strategy]
    trial = trial_of(
        {"strategy": strategy, "workers": workers, "global_batch": batch, "repeat": repeat, "steps": STEPS}
    )
    home = folder / "trials" / trial.id
    home.mkdir(parents=True)
    (home / "trial.json").write_text(json.dumps(written(trial)), encoding="utf-8")
    computing = batch / workers / rate * (1 + 0.01 * math.sin(7 * order))  # launches differ by a hundredth
    whole = computing * (1 + contention * (workers - 1) + coherency * workers * (workers - 1))
    processes = 1 if strategy in ONE_PROCESS else workers
    for rank in range(processes):
        rows = (
            _row(phase, step, seconds, batch // processes, rank) for phase, step, seconds in _steps(computing, whole)
        )
        path = home / f"rank-{rank:05d}.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    outcome = {
        "format": 1, "trial_id": trial.id, "status": "ok", "error": "", "framework": framework,
        "communication": communication, "base_case": base, "launcher": "local", "order": order, "workers": workers,
        "started": (BEGUN + timedelta(minutes=order)).isoformat(),
        "ended": (BEGUN + timedelta(minutes=order, seconds=30)).isoformat(),
        "startup_seconds": 5 + 0.1 * workers, "first_step_seconds": 3 * whole, "test_accuracy": 0.9 + 0.001 * repeat,
        "hosts": ["node1.example"], "hardware": {"cpu": "Example CPU 9000", "physical_cores": 16},
        "exits": [{"rank": rank, "exit_code": 0} for rank in range(processes)],
    }  # fmt: skip
    (home / "outcome.json").write_text(json.dumps(outcome), encoding="utf-8")
    return trial.id


def _steps(computing: float, whole: float) -> Iterator[tuple[str, int, float]]:
    for step in range(STEPS["warmup"] + STEPS["measured"]):
        yield "train", step, whole * (1 + 0.02 * math.sin(3 * step))
    for step in range(STEPS["compute_only"]):
        yield "compute_only", step, computing


def _row(phase: str, step: int, seconds: float, samples: int, rank: int) -> dict[str, Any]:
    row = {"phase": phase, "step": step, "seconds": seconds * (1.01 if rank == 1 else 1.0)}
    row |= {"data_seconds": 0.02 * seconds, "samples": samples, "loss": 2.3 / (1 + step)}
    return row | ({"warmup": True} if phase == "train" and step < STEPS["warmup"] else {})
