"""What a generated results folder may hold beside steps: telemetry, machine.json, training until an accuracy.

observed.telemetry(folder, watts=300.0); observed.accuracy(folder, seconds); observed.machine(folder)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

STARTED = 1_700_000_000.0
CPU, FLOP_PER_SECOND, BYTES_PER_SECOND = "Example CPU 9000", 100e9, 10e9


def homes(folder: Path) -> list[Path]:
    return sorted((folder / "trials").iterdir())


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def measured_seconds(home: Path) -> tuple[float, float]:
    """Seconds of the warm-up and of the measured steps, of the slowest rank."""
    rows = [json.loads(line) for p in home.glob("rank-*.jsonl") for line in p.read_text().splitlines()]
    slowest: dict[tuple[bool, int], float] = {}
    for row in rows:
        if row["phase"] == "train":
            key = row.get("warmup", False), row["step"]
            slowest[key] = max(slowest.get(key, 0.0), row["seconds"])
    return tuple(sum(s for (warm, _), s in slowest.items() if warm is w) for w in (True, False))  # type: ignore[return-value]


def telemetry(
    folder: Path, *, watts: float | None = None, gpu: bool = False, others: float = 0.0, busy: float = 98.0
) -> None:
    """Samples every tenth of the training. `watts` are what the GPU, or else the CPU package, takes."""
    for home in homes(folder):
        warm, measured = measured_seconds(home)
        ended = STARTED + warm + measured
        outcome = json.loads((home / "outcome.json").read_text())
        for report in outcome["ranks"]:
            report |= {"train_started_unix": STARTED, "train_ended_unix": ended}
        (home / "outcome.json").write_text(json.dumps(outcome))
        ranks = [report["rank"] for report in outcome["ranks"]]
        start = {"kind": "start", "unix": STARTED - 1, "host": "node-0", "node_rank": 0, "hertz": 2.0}
        rows: list[dict[str, Any]] = [start | {"ranks": [{"rank": rank} for rank in ranks]}]
        for unix in np.arange(STARTED - measured / 5, ended + measured / 5, measured / 20).tolist():
            joules = None if watts is None else 1e6 + watts * (unix - STARTED)
            node = {"cpu_percent": busy, "others_cores": others, "stolen_cores": 0.0}
            node |= {"cpu_energy_joules": None if gpu or joules is None else {"package-0": joules}}
            of_gpu = {"uuid": "GPU-0", "sm_percent": 70.0, "power_watts": watts, "energy_joules": joules}
            each = [{"rank": rank, "cpu_percent": busy} for rank in ranks]
            rows.append({"kind": "sample", "unix": unix, "ranks": each, "gpus": [of_gpu] if gpu else [], "node": node})
        (home / "telemetry-node-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def accuracy(folder: Path, seconds: Callable[[dict[str, Any]], float | None], goal: float = 0.9) -> None:
    """Let each launch train until `goal`, in so many seconds of 0.1 s steps as `seconds` of its trial.json says;
    None for one that gives up after 100 steps."""
    for home in homes(folder):
        trial = json.loads((home / "trial.json").read_text())
        took = seconds(trial)
        steps = 100 if took is None else round(took / 0.1)
        edit(home / "trial.json", until_accuracy=goal)
        curve = [
            {"step": step, "seconds": 0.1 * step, "accuracy": (goal if took else goal - 0.1) * step / steps}
            for step in range(steps // 5, steps + 1, max(1, steps // 5))
        ]
        curve[-1] |= {"step": steps, "seconds": 0.1 * steps, "accuracy": goal if took else goal - 0.1}
        for path in home.glob("rank-*.jsonl"):
            share = json.loads(path.read_text().splitlines()[0])["samples"]
            line = {"phase": "accuracy", "seconds": 0.1, "data_seconds": 0.0, "samples": share, "loss": 1.0}
            with path.open("a") as file:
                file.writelines(json.dumps(line | {"step": step}) + "\n" for step in range(steps))
        reached = {**curve[-1], "samples": steps * trial["global_batch"]} if took else None
        edit(home / "outcome.json", accuracy_reached=reached, accuracy_curve=curve)


def machine(folder: Path, **changes: Any) -> None:
    content = {
        "format": 1,
        "cpu": CPU,
        "threads": 1,
        "compute": {"flop_per_second": FLOP_PER_SECOND, "kernel": "float32 matrix product", "library": "a BLAS"},
        "bandwidth": {"bytes_per_second": BYTES_PER_SECOND, "kernel": "a = b + c"},
    }
    (folder / "machine.json").write_text(json.dumps(content | changes))
