"""How fast a results folder becomes estimates and figures. Run by `make bench`.

Generates trials of 1,000 ranks × 1,000 steps (1, 3 and 10 of them: 1, 3 and 10 million step lines),
then loads, summarizes and plots each folder in a process of its own, so that its memory can be told.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.analysis import generate

pytestmark = pytest.mark.bench

SIZES = (1, 3, 10)  # million step lines
SHAPE = generate.Shape(warmup=10, measured=940, compute_only=50)
MEASURE = """
import json, resource, sys, time
from pathlib import Path
begin = time.perf_counter()
from analysis import efficiency, plots
from analysis.load import load
results = load(Path(sys.argv[1]))
loaded = time.perf_counter()
estimates = efficiency.estimate(results)
summarized = time.perf_counter()
plots.write_all(results, Path(sys.argv[1]) / "figures", estimates)
end = time.perf_counter()
assert results.trials["status"].unique().to_list() == ["ok"] and not results.set_aside
print(json.dumps({
    "load": loaded - begin, "summarize": summarized - loaded, "plot": end - summarized, "all": end - begin,
    "cpu": time.process_time(), "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
}))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Results folders by size; the trials of the smaller are linked into the larger."""
    base = tmp_path_factory.mktemp("bench")
    way, rng = generate.Way("torch-ddp", strong=generate.amdahl(0.001)), np.random.default_rng(0)
    made: dict[int, Path] = {}
    for size in SIZES:
        made[size] = base / f"{size}-million"
        (made[size] / "trials").mkdir(parents=True)
    for repeat in range(max(SIZES)):
        home = generate.trial(
            base / "all", way, 1000, 64_000, "strong", repeat=repeat, order=repeat, shape=SHAPE, rng=rng
        )
        for size in SIZES:
            if repeat < size:
                (made[size] / "trials" / home.name).symlink_to(home)
    return made


@pytest.fixture(scope="module")
def measured(folders: dict[int, Path]) -> dict[int, dict[str, float]]:
    found = {}
    for size, folder in folders.items():
        runs = []
        for _ in range(3 if size < max(SIZES) else 2):
            done = subprocess.run([sys.executable, "-c", MEASURE, folder], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            runs.append(json.loads(done.stdout))
        found[size] = min(runs, key=lambda run: run["all"])
        print(f"\n{size} million lines:", {name: round(value, 2) for name, value in found[size].items()})
    return found


@pytest.mark.timeout(900)
def test_ten_million_lines_take_at_most_20_seconds_and_3_gigabytes(measured: dict[int, dict[str, float]]) -> None:
    assert measured[10]["all"] <= 20
    assert measured[10]["gigabytes"] <= 3


@pytest.mark.timeout(900)
def test_time_grows_linearly_with_lines(measured: dict[int, dict[str, float]]) -> None:
    """Processor seconds per further million lines, from 1 to 3 and from 3 to 10: the same within half."""
    early = (measured[3]["cpu"] - measured[1]["cpu"]) / 2
    late = (measured[10]["cpu"] - measured[3]["cpu"]) / 7
    print(f"\nprocessor seconds per million lines: {early:.2f} from 1 to 3, {late:.2f} from 3 to 10")
    assert late <= 1.5 * early


@pytest.mark.timeout(900)
def test_load_is_five_times_as_fast_as_a_plain_pandas_read(
    folders: dict[int, Path], measured: dict[int, dict[str, float]]
) -> None:
    """Both at 1 million lines; ours checks and summarizes them too. Start-up of Python is in neither."""
    import pandas as pd

    from analysis.load import load

    files = sorted(folders[1].glob("trials/*/rank-*.jsonl"))
    begin = time.perf_counter()
    frame = pd.concat([pd.read_json(file, lines=True) for file in files])
    pandas_seconds = time.perf_counter() - begin
    assert len(frame) == 1_000_000
    load(folders[1])
    begin = time.perf_counter()
    load(folders[1])
    ours = time.perf_counter() - begin
    print(f"\npandas {pandas_seconds:.2f} s, ours {ours:.2f} s, ratio {pandas_seconds / ours:.1f}")
    assert pandas_seconds / ours >= 5


def test_the_figures_of_a_quick_study_take_at_most_6_seconds(tmp_path: Path) -> None:
    folder = generate.study(tmp_path / "quick", workers=(1, 2), repeats=5, measured=50)
    done = subprocess.run([sys.executable, "-c", MEASURE, folder], capture_output=True, text=True, check=True)
    print("\nquick study:", done.stdout.strip())
    assert json.loads(done.stdout)["all"] <= 6
