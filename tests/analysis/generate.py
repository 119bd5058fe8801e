"""Results folders with a known truth: what the analysis must find is chosen, then written as files.

    from tests.analysis import generate
    folder = generate.study(tmp_path / "known", ways=[
        generate.Way("torch", rate=1000.0),
        generate.Way("torch-ddp", rate=1000.0, strong=generate.amdahl(0.05)),
    ], workers=(1, 2, 4, 8), repeats=5, launch_cv=0.02)

The expected throughput of `way` at N is exactly `way.throughput(mode, N)`: noise multiplies *times*
and has mean 1, so expected samples over expected time is the truth, whatever the noise. Ids, files
and fields are those of docs/results-format.md.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

Law = Callable[[int], float]
Floats = NDArray[np.float64]
Noise = Literal["normal", "lognormal"]
EPOCH = datetime(2025, 1, 1, tzinfo=UTC)


def linear(workers: int) -> float:
    """Ideal speedup, S(N) = N."""
    return float(workers)


def amdahl(serial: float) -> Law:
    """S(N) = 1 / (s + (1 - s) / N)  (Amdahl 1967)."""
    return lambda n: 1.0 / (serial + (1.0 - serial) / n)


def gustafson(serial: float) -> Law:
    """S(N) = N - s (N - 1)  (Gustafson 1988)."""
    return lambda n: n - serial * (n - 1)


def usl(contention: float, coherency: float) -> Law:
    """S(N) = N / (1 + σ(N - 1) + κN(N - 1))  (Gunther 2007)."""
    return lambda n: n / (1.0 + contention * (n - 1) + coherency * n * (n - 1))


def efficient(efficiency: float) -> Law:
    """The same efficiency at every N, also at one worker: S(N) = E N."""
    return lambda n: efficiency * n


@dataclass(frozen=True)
class Way:
    """How one strategy truly performs. `rate` is samples/s of pure compute of one worker; the laws
    give the speedup over it, so a wrapped run may have S(1) < 1. `input_share` of a step is waiting
    for the batch."""

    strategy: str
    rate: float = 1000.0
    strong: Law = linear
    weak: Law = linear
    input_share: float = 0.02
    accuracy: float = 0.97

    @property
    def framework(self) -> str:
        return "TensorFlow" if self.strategy.startswith("tf") else "PyTorch"

    @property
    def communication(self) -> str:
        if "-" not in self.strategy:
            return "none"
        return "horovod" if self.strategy.endswith("-horovod") else "native"

    def throughput(self, mode: str, workers: int) -> float:
        """The truth: samples per second over all workers."""
        return self.rate * (self.strong if mode == "strong" else self.weak)(workers)


TWO_BY_TWO = (
    Way("torch", 1000.0),
    Way("torch-ddp", 1000.0, amdahl(0.06), efficient(0.93)),
    Way("torch-horovod", 1000.0, amdahl(0.10), efficient(0.88)),
    Way("tf", 1150.0),
    Way("tf-multiworker", 1150.0, amdahl(0.16), efficient(0.80)),
    Way("tf-horovod", 1150.0, amdahl(0.12), efficient(0.86)),
)


@dataclass(frozen=True)
class Shape:
    """How much is measured and how noisy it is. `launch_cv` is the relative deviation between
    launches, `step_cv` between steps, `rank_spread` how much earlier (at most, as a share) the other
    ranks of a step are than its slowest."""

    warmup: int = 3
    measured: int = 20
    compute_only: int = 5
    launch_cv: float = 0.02
    step_cv: float = 0.05
    rank_spread: float = 0.04
    noise: Noise = "lognormal"
    drift: float = 0.0  # share by which the last measured step is slower than the first
    autocorrelation: float = 0.0  # lag-1, of the noise between steps


def study(
    folder: Path,
    *,
    name: str = "generated",
    ways: Sequence[Way] = TWO_BY_TWO,
    workers: Sequence[int] = (1, 2, 4),
    scaling: Sequence[str] = ("strong", "weak"),
    batch_global: int = 512,
    per_worker: int = 64,
    repeats: int = 5,
    shape: Shape | None = None,
    factors: dict[str, Any] | None = None,
    hardware: dict[str, Any] | None = None,
    launcher: str = "local",
    margin: float = 0.05,
    seed: int = 0,
    **shape_fields: Any,
) -> Path:
    """Write a whole results folder and return it.

    `shape_fields` are those of Shape (launch_cv=0.1, measured=100, …); `factors` overrides fields of
    trial.json. Base cases are run at one worker only. Launches are in random order, as a study's are.
    A point that both modes share (batch_global == per_worker * n) is written once, with the truth of
    the mode that is named first: choose batches that avoid it, or equal laws.
    """
    shape = shape or Shape(**shape_fields)
    rng = np.random.default_rng(seed)
    hardware = hardware or {"cpu": "Example CPU 9000", "physical_cores": 8}
    content = {
        "format": 1,
        "name": name,
        "strategies": [way.strategy for way in ways],
        "workers": list(workers),
        "scaling": list(scaling),
        "batch": {"global": batch_global, "per_worker": per_worker},
        "data": {"kind": "digits", "path": None},
        "steps": _steps(shape),
        "repeats": {"min": repeats, "max": None, "until_ci": None},
        "seed": 0,
        "margin": margin,
        "launcher": {"kind": launcher},
    }
    (folder / "trials").mkdir(parents=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    launches = [
        (way, n, batch, mode, repeat)
        for way, n, batch, mode in _points(ways, workers, scaling, batch_global, per_worker)
        for repeat in range(repeats)
    ]
    order = rng.permutation(len(launches))
    ids = [
        trial(
            folder, way, n, batch, mode, repeat=repeat, order=int(position), shape=shape, rng=rng,
            factors=factors, hardware=hardware, launcher=launcher,
        ).name
        for (way, n, batch, mode, repeat), position in zip(launches, order, strict=True)
    ]  # fmt: skip
    plan = {"format": 1, "trials": ids, "left_out": []}
    (folder / "plan.json").write_text(json.dumps(plan, indent=1), encoding="utf-8")
    return folder


def trial(
    folder: Path,
    way: Way,
    workers: int,
    global_batch: int,
    mode: str,
    *,
    repeat: int,
    order: int,
    shape: Shape,
    rng: np.random.Generator,
    factors: dict[str, Any] | None = None,
    hardware: dict[str, Any] | None = None,
    launcher: str = "local",
    sums: bool = False,
) -> Path:
    """Write one launch of one point into `folder`/trials and return its folder.

    With `sums` there are reports too, and the outcome has the sums of all, as those since 0.3.0 have.
    """
    content: dict[str, Any] = {
        "strategy": way.strategy,
        "workers": workers,
        "global_batch": global_batch,
        "repeat": repeat,
        "seed": 0,
        "data": {"kind": "digits", "path": None},
        "steps": _steps(shape),
        "precision": "float32",
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "steps_per_call": 1,
        "threads_per_worker": 1,
        "limits": {"startup": 180.0, "hang": 30.0, "trial": 900.0},
        **(factors or {}),
    }
    hashed = json.dumps({k: v for k, v in content.items() if k not in ("repeat", "limits")}, sort_keys=True)
    digest = hashlib.sha256(hashed.encode()).hexdigest()[:8]
    home = folder / "trials" / f"{way.strategy}-n{workers}-b{global_batch}-{digest}-r{repeat:02d}"
    home.mkdir(parents=True)
    (home / "trial.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    processes = 1 if way.strategy == "tf-mirrored" else workers
    for rank, lines in enumerate(_rank_files(way, workers, processes, global_batch, mode, shape, rng)):
        (home / f"rank-{rank:05d}.jsonl").write_text(lines, encoding="utf-8")
    started = EPOCH + timedelta(seconds=30 * order)
    outcome = {
        "format": 1,
        "trial_id": home.name,
        "status": "ok",
        "error": "",
        "framework": way.framework,
        "communication": way.communication,
        "launcher": launcher,
        "order": order,
        "started": started.isoformat(),
        "ended": (started + timedelta(seconds=25)).isoformat(),
        "workers": workers,
        "startup_seconds": float(2.0 * rng.lognormal(0, 0.05)),
        "first_step_seconds": float(0.5 * rng.lognormal(0, 0.05)),
        "test_accuracy": float(way.accuracy + rng.normal(0, 0.002)),
        "hosts": ["node-0"],
        "exits": [{"rank": r, "exit_code": 0, "last_lines": []} for r in range(processes)],
        "ranks": [{"rank": r, "host": "node-0", "device": "cpu"} for r in range(processes)],
        "versions": {"python": "3.11.7"},
        "hardware": hardware or {"cpu": "Example CPU 9000"},
    }
    if sums:
        for report in outcome["ranks"]:
            (home / f"rank-{report['rank']:05d}.json").write_text(json.dumps(report), encoding="utf-8")
        outcome["sums"] = {
            path.name: {"length": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in home.iterdir()
        }
    (home / "outcome.json").write_text(json.dumps(outcome, indent=1), encoding="utf-8")
    return home


def _points(
    ways: Sequence[Way], workers: Sequence[int], scaling: Sequence[str], batch_global: int, per_worker: int
) -> Iterator[tuple[Way, int, int, str]]:
    for way in ways:
        seen = set()
        for mode in scaling:
            for n in [1] if way.communication == "none" else workers:
                batch = batch_global if mode == "strong" else per_worker * n
                if (n, batch) not in seen:
                    seen.add((n, batch))
                    yield way, n, batch, mode


def _steps(shape: Shape) -> dict[str, int]:
    return {"warmup": shape.warmup, "measured": shape.measured, "compute_only": shape.compute_only}


def factor(rng: np.random.Generator, cv: float, size: int, noise: Noise) -> Floats:
    """`size` positive random factors with mean 1 and relative deviation `cv`."""
    if noise == "normal":
        return np.asarray(np.maximum(1.0 + cv * rng.standard_normal(size), 0.01), dtype=np.float64)
    sigma = math.sqrt(math.log1p(cv * cv))
    return rng.lognormal(-sigma * sigma / 2, sigma, size)


def step_noise(rng: np.random.Generator, shape: Shape, steps: int) -> Floats:
    """Random factors of `steps` steps in a row, with mean 1."""
    white = factor(rng, shape.step_cv, steps, shape.noise) - 1.0
    phi = shape.autocorrelation
    if phi:
        for i in range(1, steps):
            white[i] = phi * white[i - 1] + math.sqrt(1 - phi * phi) * white[i]
    return np.asarray(np.maximum(1.0 + white, 0.01), dtype=np.float64)


def _rank_files(
    way: Way, workers: int, processes: int, batch: int, mode: str, shape: Shape, rng: np.random.Generator
) -> Iterator[str]:
    """The text of each rank's file. In every step one rank, drawn at random, is the slowest."""
    launch = float(factor(rng, shape.launch_cv, 1, shape.noise)[0])
    steps = shape.warmup + shape.measured
    slowest = launch * batch / way.throughput(mode, workers) * step_noise(rng, shape, steps)
    slowest[: shape.warmup] *= 1.5
    slowest[shape.warmup :] *= 1.0 + shape.drift * (np.linspace(0, 1, shape.measured) - 0.5)
    last = rng.integers(processes, size=steps)
    compute = launch * batch / workers / way.rate
    samples = batch // processes
    loss = 2.3 * np.exp(-np.arange(steps) / 30)
    for rank in range(processes):
        seconds = slowest * (1.0 - shape.rank_spread * rng.random(steps) * (last != rank))
        alone = compute * factor(rng, shape.step_cv, shape.compute_only, shape.noise)
        yield _lines("train", seconds, way.input_share, samples, loss, shape.warmup) + _lines(
            "compute_only", alone, way.input_share, samples, np.full(len(alone), 0.1), 0
        )


def _lines(phase: str, seconds: Floats, input_share: float, samples: int, loss: Floats, warmup: int) -> str:
    """Step lines as one text, made with one format string since a benchmark wants millions."""
    count = len(seconds)
    line = (
        f'{{"phase": "{phase}", "step": %d, "seconds": %.9f, "data_seconds": %.9f, "samples": {samples}, "loss": %.9g'
    )
    text = (line + ', "warmup": true}\n') * warmup + (line + "}\n") * (count - warmup)
    columns = (range(count), seconds.tolist(), (input_share * seconds).tolist(), loss.tolist())
    return text % tuple(value for row in zip(*columns, strict=True) for value in row)
