"""Two results folders, point by point."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from analysis.load.results import load
from analysis.stats.ratios import LogRate, log_ratio
from analysis.verdicts.compare import compare, render
from scaling import app
from tests.analysis import blocks, generate, simulate


def folder(place: Path, rate: float = 1000.0, seed: int = 0, workers: tuple[int, ...] = (1, 2, 4)) -> Path:
    ways = [generate.Way("torch", rate=1000.0), generate.Way("torch-ddp", rate=rate)]
    return generate.study(place, ways=ways, workers=workers, repeats=8, launch_cv=0.02, seed=seed)


def test_what_became_slower_is_found_and_what_did_not_is_left_alone(tmp_path: Path) -> None:
    found = compare(load(folder(tmp_path / "a")), load(folder(tmp_path / "b", rate=800.0, seed=1)))
    slower = {c.point for c in found.changes if c.real}
    assert slower == {c.point for c in found.changes if c.strategy == "torch-ddp"}
    assert {c.point for c in found.regressions(10)} == slower
    assert found.regressions(30) == []
    assert all(c.low < 0.8 < c.high for c in found.changes if c.real)


def test_the_interval_of_a_change_excludes_equality_exactly_where_the_change_is_real() -> None:
    rng = np.random.default_rng(0)
    before, after = (simulate.study([generate.Way("torch")], workers=(1,), repeats=4, rng=rng) for _ in "ab")
    for faster in np.linspace(0.9, 1.1, 41):
        trials = after.trials.with_columns(throughput=faster * pl.col("throughput"))
        for c in compare(before, replace(after, trials=trials)).changes:
            assert c.real == (not c.low <= 1.0 <= c.high)


def test_two_runs_of_the_same_seldom_differ(tmp_path: Path) -> None:
    pairs = [(folder(tmp_path / f"a{i}", seed=2 * i), folder(tmp_path / f"b{i}", seed=2 * i + 1)) for i in range(12)]
    alarms = sum(any(c.real for c in compare(load(a), load(b)).changes) for a, b in pairs)
    assert alarms <= 3  # 5% of 12 is 0.6; more than 3 has a chance of 0.2%


def test_what_else_is_not_the_same_stands_above_the_table_and_in_the_gate(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a"), folder(tmp_path / "b", rate=700.0, seed=1)
    for path in b.glob("trials/*/outcome.json"):
        outcome = json.loads(path.read_text())
        outcome["launcher"] = "slurm"
        outcome["hardware"] = outcome.get("hardware", {}) | {"cpu": "Another CPU"}
        outcome["versions"] = outcome.get("versions", {}) | {"torch": "3.0.0"}
        path.write_text(json.dumps(outcome))
    assert compare(load(a), load(a)).differs == ()
    told = compare(load(a), load(b)).differs
    assert [line.partition(":")[0] for line in told] == ["launcher", "cpu", "torch"]
    assert told[0] == "launcher: local in A, slurm in B"
    assert "Another CPU in B" in told[1]
    done = CliRunner().invoke(app, ["compare", str(a), str(b), "--fail-on-regression", "5"], env={"COLUMNS": "100"})
    assert done.exit_code == 1
    assert done.stdout.index("not the same: launcher") < done.stdout.index("B / A")
    assert "not the same: launcher: local in A, slurm in B" in done.stderr


def test_points_without_counterpart_are_listed(tmp_path: Path) -> None:
    found = compare(load(folder(tmp_path / "a")), load(folder(tmp_path / "b", workers=(1, 2, 8))))
    assert all("-n4-" in p for p in found.only_before)
    assert all("-n8-" in p for p in found.only_after)
    assert found.only_before
    assert found.only_after
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(found))
    assert "only in A" in console.export_text()


@pytest.mark.parametrize("percent", [5.0, 0.0])
def test_the_same_folder_has_no_regression(percent: float, tmp_path: Path) -> None:
    results = load(folder(tmp_path / "a"))
    assert compare(results, results).regressions(percent) == []
    assert compare(results, results).unknown() == []


def test_what_was_measured_in_blocks_on_one_side_only_is_told_and_decides_nothing(tmp_path: Path) -> None:
    """In blocks a point has another id and other numbers of steps; whether it became slower cannot be told."""
    ways = [generate.Way("torch"), generate.Way("torch-ddp")]
    made = [generate.study(tmp_path / n, ways=ways, workers=(1, 2), scaling=("weak",), repeats=2) for n in "ab"]
    assert command(*made, "--fail-on-regression", 99).exit_code == 0
    shapes = {"measured": 30, "compute_only": 30}
    other = generate.study(tmp_path / "c", ways=ways, workers=(1, 2), scaling=("weak",), repeats=2, **shapes)  # type: ignore[arg-type]
    in_blocks = blocks.into(other, rounds=10, rates={"torch": 1000.0})
    gated = command(made[0], in_blocks, "--fail-on-regression", 99)
    assert gated.exit_code == 1
    ddp = "torch-ddp n2 b128: one phase after the other in A, in blocks with the base case beside in B"
    assert f"{ddp}, so not compared" in gated.stderr
    assert "torch n1 b64: one phase after the other in A, in blocks in B, so not compared" in gated.stderr
    assert "has no launch in B" not in gated.stderr
    assert f"not compared: {ddp}" in " ".join(gated.stdout.split())
    assert command(in_blocks, in_blocks, "--fail-on-regression", 99).exit_code == 0


def test_one_launch_on_either_side_leaves_it_unknown(tmp_path: Path) -> None:
    several = load(folder(tmp_path / "a", workers=(1,)))
    once = replace(several, trials=several.trials.filter(repeat=0))
    for pair in ((several, once), (once, several), (once, once)):
        found = compare(*pair)
        assert len(found.unknown()) == len(found.changes) > 0
        assert all("one launch on a side tells no change" in why for why in found.unknown())


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_the_command_fails_on_a_regression_and_on_what_cannot_be_told(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a"), folder(tmp_path / "b", rate=800.0, seed=1)
    assert command(a, b).exit_code == 0
    assert command(a, b, "--fail-on-regression", 30).exit_code == 0
    slower = command(a, b, "--fail-on-regression", 10)
    assert slower.exit_code == 1
    assert "slower by 2" in slower.stderr
    for outcome in b.glob("trials/torch-ddp-*/outcome.json"):  # everything of a strategy is gone
        outcome.unlink()
    broken = command(a, b, "--fail-on-regression", 30)
    assert broken.exit_code == 1
    assert broken.stderr.count("has no launch in B that is ok") == len({p.name[:-4] for p in a.glob("trials/*ddp*")})
    ways = [generate.Way("torch", rate=1000.0)]
    lonely = generate.study(tmp_path / "c", ways=ways, workers=(1,), repeats=1)
    once = command(lonely, lonely, "--fail-on-regression", 10)
    assert (once.exit_code, "one launch on a side tells no change" in once.stderr) == (1, True)
    other = generate.study(tmp_path / "d", ways=[generate.Way("tf", rate=1000.0)], workers=(1,), repeats=2)
    assert "has no launch in B" in command(lonely, other, "--fail-on-regression", 10).stderr


def test_bounds_beyond_what_a_float_holds_are_infinite() -> None:
    ratio = log_ratio([LogRate.of([100.0, 20.0])], [LogRate.of([100.0, 101.0])])
    assert ratio.high(1e-5) == math.inf
    assert ratio.low(1e-5) == 0.0
