"""Turns of a plain pandas read and of this project's analysis, in one process: for bench_analysis.py.

    analyze.py SMALL LARGE TURNS         two results folders; prints a JSON list, one object a turn

pandas reads each tenth file of LARGE; `without` is LARGE loaded as if its outcomes had no sums. Imports, and the
first use of everything, are before the first turn; `memory` is what LARGE then took at the most beyond what SMALL had
taken.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import pandas as pd

from analysis.figures import write
from analysis.load import sums
from analysis.load.results import Results, load
from analysis.measures import efficiency

small, large, turns = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
files = sorted(large.glob("trials/*/rank-*.jsonl"))


def estimated(folder: Path) -> Results:
    results = load(folder)
    assert results.trials["status"].unique().to_list() == ["ok"]
    assert not results.set_aside
    efficiency.estimate(results)
    return results


def without_sums(folder: Path) -> None:
    stated = sums.stated
    sums.stated = lambda outcome: {}
    load(folder)
    sums.stated = stated


def most_memory() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def lap() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


write.write_all(estimated(small), small / "figures")
before = most_memory()
estimated(large)
memory = most_memory() - before
found = []
for _ in range(turns):
    laps = [lap()]
    pd.concat([pd.read_json(file, lines=True) for file in files[::10]])
    laps.append(lap())
    estimated(small)
    laps.append(lap())
    results = estimated(large)
    laps.append(lap())
    write.write_all(results, large / "figures")
    laps.append(lap())
    load(large)
    laps.append(lap())
    without_sums(large)
    laps.append(lap())
    clock, cpu = zip(*laps, strict=True)
    turn = {
        "pandas": len(files) / len(files[::10]) * (clock[1] - clock[0]),
        "read": clock[3] - clock[2],
        "drawn": clock[4] - clock[2],
        "small_cpu": cpu[2] - cpu[1],
        "large_cpu": cpu[3] - cpu[2],
        "loaded": clock[5] - clock[4],
        "without": clock[6] - clock[5],
        "memory": memory,
    }
    found.append(turn)
print(json.dumps(found))
