"""What the cores of one worker can do at most, measured: for the roofline of a study's base case.

    python -m jobs.machine.peaks [THREADS] > RESULTS/machine.json

Prints one JSON object (docs/results-format.md). A local study measures it by itself before its first
trial; elsewhere, run this on a node that nothing else uses. It takes about two seconds and up to a
quarter of the free memory.

Compute: the best float32 matrix product of NumPy's BLAS. Bandwidth: the best a = b + c over arrays of
at least four times the last-level cache, counted as three arrays as STREAM's Add does (McCalpin 1995,
"Memory Bandwidth and Machine Balance in Current High Performance Computers", IEEE TCCA Newsletter).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

SECONDS = 0.5  # each of the two goes on for, at least
SIZES = (512, 1024, 1536)  # of the matrices
FEWEST = 5  # passes over the arrays
SMALLEST_ARRAY, TIMES_CACHE = 64 * 2**20, 4  # bytes; × the last-level cache


def measure(threads: int = 1) -> dict[str, Any]:
    """Peaks of `threads` cores. Binds this process to them, so call it in one of its own, before NumPy is imported."""
    from jobs.machine import cores, provenance

    mine = cores.allowed_cores()[:threads]
    cores.pin(mine)
    for library in ("OMP", "MKL", "OPENBLAS"):
        os.environ[f"{library}_NUM_THREADS"] = str(len(mine))
    return {
        "format": 1,
        "measured_unix": time.time(),
        "cpu": provenance.cpu_model(),
        "cpus": mine,
        "threads": len(mine),
        "compute": _compute(),
        "bandwidth": _bandwidth(len(mine)),
    }


def _best(work: Callable[[], object], seconds: float, fewest: int) -> float:
    """The shortest time of `work`, done for `seconds` and at least `fewest` times after one to warm up."""
    work()
    shortest, done, ends = float("inf"), 0, time.perf_counter() + seconds
    while done < fewest or time.perf_counter() < ends:
        begin = time.perf_counter()
        work()
        shortest, done = min(shortest, time.perf_counter() - begin), done + 1
    return shortest


def _compute() -> dict[str, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    rates = {}
    for size in SIZES:
        a, b = (rng.random((size, size), dtype=np.float32) for _ in range(2))
        c = np.empty_like(a)
        rates[size] = 2 * size**3 / _best(partial(np.matmul, a, b, out=c), SECONDS / len(SIZES), FEWEST)
    size = max(rates, key=rates.__getitem__)
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "flop_per_second": rates[size],
        "kernel": f"float32 matrix product, {size} × {size}",
        "library": f"NumPy {np.__version__}, {blas.get('name')} {blas.get('version')}",
    }


def _bandwidth(threads: int) -> dict[str, Any]:
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    cache = last_level_cache()
    size = max(SMALLEST_ARRAY, TIMES_CACHE * (cache or 0))
    size = min(size, _free_memory() // 12)  # three arrays: a quarter of what is free
    count = size // 8 // threads
    parts = [tuple(np.full(count, value) for value in (0.0, 1.0, 2.0)) for _ in range(threads)]

    def add(part: tuple[Any, ...]) -> None:
        np.add(part[1], part[2], out=part[0])  # holds no lock of Python's

    with ThreadPoolExecutor(threads) as pool:
        seconds = _best(lambda: list(pool.map(add, parts)), SECONDS, FEWEST)
    moved = 3 * 8 * count * threads
    return {
        "bytes_per_second": moved / seconds,
        "kernel": "float64 a = b + c, three arrays counted",
        "array_bytes": 8 * count * threads,
        "last_level_cache_bytes": cache,
    }


def last_level_cache(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int | None:
    """Bytes of the largest cache that the first core sees; None where the kernel does not tell."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    sizes = []
    for path in root.glob("index*/size"):
        try:
            text = path.read_text(encoding="ascii").strip()
            sizes.append(int(text[:-1]) * units[text[-1]] if text[-1:] in units else int(text))
        except (OSError, ValueError):
            continue
    return max(sizes, default=None)


def _free_memory() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


def main(arguments: list[str]) -> None:
    if len(arguments) > 1 or not all(a.isdecimal() and int(a) > 0 for a in arguments):
        sys.exit("usage: python -m jobs.machine.peaks [THREADS]")
    print(json.dumps(measure(int(arguments[0]) if arguments else 1), indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
