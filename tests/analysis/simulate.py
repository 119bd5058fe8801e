"""Studies drawn in memory: hundreds of them, where going through files would only take time.

    results = simulate.study([generate.Way("torch"), ...], workers=(1, 2, 4), repeats=3, rng=rng)

Each launch has the time that its truth gives it times a random factor with mean 1; what is not random
in tests of intervals (steps, ranks) is left at plain values. With `beside_cv` the base case runs beside each launch of
several workers: that factor is on both then, and another of that deviation on their ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from analysis.load.results import Results
from analysis.load.trial import COLUMNS
from tests.analysis import generate


def study(
    ways: Sequence[generate.Way],
    *,
    workers: Sequence[int],
    repeats: int,
    rng: np.random.Generator,
    launch_cv: float = 0.03,
    noise: generate.Noise = "lognormal",
    scaling: Sequence[str] = ("strong",),
    beside_cv: float | None = None,
) -> Results:
    rows: list[dict[str, Any]] = []
    for way in ways:
        for mode in scaling:
            for n in [1] if way.communication == "none" else workers:
                batch = 4096 * 3 if mode == "strong" else 64 * n
                seconds = batch / way.throughput(mode, n)
                for repeat, factor in enumerate(generate.factor(rng, launch_cv, repeats, noise)):
                    rows.append(_row(way, mode, n, batch, repeat, seconds * float(factor)))
                    if beside_cv is not None and way.communication != "none":
                        own = generate.factor(rng, beside_cv, 1, noise)[0]
                        rows[-1] |= _beside(way, mode, n, batch, float(factor / own))
    trials = pl.DataFrame([{name: row.get(name) for name in COLUMNS} for row in rows], schema=COLUMNS)
    return Results(Path("simulated"), {"name": "simulated"}, trials, [], {}, ())


def _beside(way: generate.Way, mode: str, n: int, batch: int, factor: float) -> dict[str, Any]:
    batches, cost = {"strong": batch, "weak": batch // n}, factor / way.rate
    costs = {"base_whole_cost": cost if mode == "strong" or n == 1 else None}
    costs |= {"base_each_cost": cost if mode == "weak" or n == 1 else None}
    plain = "tf" if way.framework == "TensorFlow" else "torch"
    return {"in_blocks": True, "base_beside": f"[{batches[mode]}]", "base_case": plain, **costs}


def _row(way: generate.Way, mode: str, n: int, batch: int, repeat: int, seconds: float) -> dict[str, Any]:
    steps = 50
    alone = batch / n / way.rate
    return {
        "trial_id": f"{way.strategy}-n{n}-b{batch}-00000000-r{repeat:02d}",
        "point": f"{way.strategy}-n{n}-b{batch}-00000000",
        "strategy": way.strategy,
        "framework": way.framework,
        "communication": way.communication,
        "workers": n,
        "global_batch": batch,
        "repeat": repeat,
        "strong": mode == "strong",
        "weak": mode == "weak",
        "status": "ok",
        "error": "",
        "launcher": "local",
        "emulated": False,
        "startup_seconds": 2.0,
        "first_step_seconds": 0.5,
        "samples": steps * batch,
        "train_seconds": steps * seconds,
        "throughput": batch / seconds,
        "step_p50": seconds,
        "step_p95": seconds,
        "step_p99": seconds,
        "compute_only_seconds": alone,
        "exposed_seconds": seconds - alone,
        "data_seconds": 0.0,
        "straggler_seconds": 0.0,
        "steady": True,
        "steady_note": "",
    }
