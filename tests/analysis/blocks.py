"""A generated results folder made into one that was measured in blocks, with the base case beside (format 2).

blocks.into(generate.study(folder, measured=30, compute_only=30), rounds=10, rates={"torch": 1000.0})

What is slow for a while is so for all phases of a round and of a launch: `launch_cv` and `round_cv` are factors that
the ratios within a launch do not have. The truth of these is that of the study: a Way's throughput over `rates`, those
of one plain process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.analysis import generate

PER_BLOCK = 5


def into(
    folder: Path,
    *,
    rounds: int,
    rates: Mapping[str, float],
    launch_cv: float = 0.1,
    round_cv: float = 0.1,
    step_cv: float = 0.03,
    seed: int = 1,
    sums: bool = False,
) -> Path:
    """Rewrite all trials of `folder` and return it. Plain processes have no companion."""
    rng = np.random.default_rng(seed)
    study = yaml.safe_load((folder / "study.yaml").read_text())
    study |= {"format": 2, "steps": study["steps"] | {"blocks": rounds}}
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps(plan | {"format": 2}))
    for home in sorted((folder / "trials").iterdir()):
        trial, outcome = (json.loads((home / name).read_text()) for name in ("trial.json", "outcome.json"))
        trial["steps"]["blocks"] = rounds
        base = "tf" if trial["strategy"].startswith("tf") else "torch"
        batches = _batches(trial, study) if outcome["communication"] != "none" else []
        outcome |= {"format": 2, "base_case": base, "base_beside": batches}
        trial["base_batches"] = batches
        slow = generate.factor(rng, launch_cv, 1, "lognormal") * generate.factor(rng, round_cv, rounds, "lognormal")
        for path in home.glob("rank-*.jsonl"):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            path.write_text("".join(json.dumps(line) + "\n" for line in _in_blocks(lines, slow)))
        for batch in batches:
            _companion(home, base, batch, slow, batch / rates[base], step_cv, rng)
        (home / "trial.json").write_text(json.dumps(trial))
        if sums:
            outcome["sums"] = {
                path.name: {"length": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
                for path in home.iterdir()
                if path.name != "outcome.json"
            }
        (home / "outcome.json").write_text(json.dumps(outcome))
    return folder


def _batches(trial: Mapping[str, Any], study: Mapping[str, Any]) -> list[int]:
    whole, workers, modes = trial["global_batch"], trial["workers"], study["scaling"]
    strong = "strong" in modes and whole == study["batch"]["global"]
    weak = "weak" in modes and whole == study["batch"]["per_worker"] * workers
    return sorted({*([whole] if strong else []), *([whole // workers] if weak else [])})


def _in_blocks(lines: list[dict[str, Any]], slow: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for phase in dict.fromkeys(line["phase"] for line in lines):
        here = [line for line in lines if line["phase"] == phase]
        rows = [line | {"block": 0} for line in here if line.get("warmup")]
        counted = [line for line in here if not line.get("warmup")]
        each = len(counted) // len(slow)
        for index, factor in enumerate(slow.tolist()):
            here = counted[index * each : (index + 1) * each]
            block = [line | {"seconds": line["seconds"] * factor} for line in here]
            rows += [line | {"block": index + 1} for line in [block[0] | {"warmup": True}, *block]]
        found += [line | {"step": step} for step, line in enumerate(rows)]
    return found


def _companion(
    home: Path, strategy: str, batch: int, slow: np.ndarray[Any, Any], seconds: float, step_cv: float,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    rows: list[dict[str, Any]] = []
    for block, factor in enumerate([1.0, *slow.tolist()]):
        took = seconds * factor * generate.factor(rng, step_cv, PER_BLOCK + 1, "lognormal")
        for at, each in enumerate(took.tolist()):
            line = {"phase": "base", "step": len(rows), "seconds": each, "data_seconds": 0.0, "samples": batch}
            warm = {"warmup": True} if block == 0 or at == 0 else {}
            rows.append(line | {"loss": 1.0, "block": block} | warm)
    (home / f"base-{batch}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    turns = [
        {"block": block, "worker": 0, "cpus": [0], "begin_unix": 1e9 + block, "end_unix": 1e9 + block + 0.5}
        | {"ranks_cpu_seconds": 0.0, "own_cpu_seconds_asleep": 0.01}
        for block in range(1, len(slow) + 1)
    ]
    report = {"strategy": strategy, "batch": batch, "pid": 1, "threads": 1, "turns": turns}
    (home / f"base-{batch}.json").write_text(json.dumps(report))
