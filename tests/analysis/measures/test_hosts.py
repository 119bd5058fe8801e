"""Hosts that compute slower than their peers: named where launches show it, with an interval, and else not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from analysis.load.results import Results, load
from analysis.load.trial import COLUMNS
from analysis.measures.efficiency import estimate
from analysis.measures.hosts import hosts, slow
from tests.analysis import generate, observed


def results(launches: int, slower: dict[str, float], noise: float, seed: int = 0, names: int = 4) -> Results:
    """Launches on hosts n0, n1, …, whose compute-only step takes 10 ms but for the `slower`; all of a launch share
    what makes it longer than others."""
    rng, rows = np.random.default_rng(seed), []
    for launch in range(launches):
        step = 0.01 * rng.lognormal(0, 0.3)
        each = {f"n{i}": step * (1 + slower.get(f"n{i}", 0.0)) * float(rng.lognormal(0, noise)) for i in range(names)}
        row = {"trial_id": f"t-r{launch:02d}", "status": "ok", "host_seconds": json.dumps(each), "hosts": names}
        rows.append({name: row.get(name) for name in COLUMNS})
    return Results(Path("made"), {}, pl.DataFrame(rows, schema=COLUMNS), [], {})


def test_a_host_that_is_slower_in_all_launches_is_named_with_its_interval() -> None:
    found = slow(results(6, {"n2": 0.3}, 0.01))
    assert list(found) == ["n2"]
    assert found["n2"].startswith("n2 computes 1.3")
    assert found["n2"].endswith("times as long as its peers, over 6 launches")


@pytest.mark.parametrize(
    ("launches", "slower", "noise"),
    [(2, 0.5, 0.01), (6, 0.01, 0.001), (6, 0.1, 0.3)],
    ids=["in two launches", "by less than is of interest", "in noise"],
)
def test_a_host_is_not_named_that_is_not_shown_to_be_slower(launches: int, slower: float, noise: float) -> None:
    assert slow(results(launches, {"n1": slower}, noise)) == {}


def test_of_two_hosts_the_slower_is_named_and_not_its_peer() -> None:
    assert list(slow(results(5, {"n0": 0.2}, 0.01, names=2))) == ["n0"]


def test_hosts_that_are_alike_are_seldom_named() -> None:
    """At 95%, corrected for the number of hosts, and with a margin beside."""
    named = sum(bool(slow(results(5, {}, 0.05, seed))) for seed in range(50))
    assert named <= 3


def spread(folder: Path, names: tuple[str, ...], slower: float = 1.0) -> None:
    """Put rank r of every launch on host r, and let the last host's compute-only steps take `slower` times as long."""
    for home in observed.homes(folder):
        outcome = json.loads((home / "outcome.json").read_text())
        for report in outcome["ranks"]:
            report["host"] = names[report["rank"] % len(names)]
            if report["host"] == names[-1]:
                path = home / f"rank-{report['rank']:05d}.jsonl"
                lines = [json.loads(line) for line in path.read_text().splitlines()]
                for line in lines:
                    line["seconds"] *= slower if line["phase"] == "compute_only" else 1
                path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        observed.edit(
            home / "outcome.json", ranks=outcome["ranks"], hosts=sorted({r["host"] for r in outcome["ranks"]})
        )


WAYS = (generate.Way("torch"), generate.Way("torch-ddp", strong=generate.amdahl(0.1)))


def test_the_compute_only_step_tells_hosts_apart(tmp_path: Path) -> None:
    folder = generate.study(tmp_path / "two", ways=WAYS, workers=(1, 2), scaling=("strong",), repeats=4)
    spread(folder, ("good", "bad"), 1.4)
    found = hosts(load(folder)).rows(named=True)
    assert [(row["host"], row["n_launches"], row["slower"]) for row in found] == [("bad", 4, True), ("good", 4, False)]
    assert found[0]["relative"] == pytest.approx(1.4, rel=0.1)
    assert 1.2 < found[0]["relative_low"] < found[0]["relative"] < found[0]["relative_high"]


def test_hosts_with_other_numbers_of_ranks_are_no_peers(tmp_path: Path) -> None:
    """Where two ranks share a host's memory they are slower than one alone, on a host that is as good."""
    folder = generate.study(
        tmp_path / "uneven", ways=WAYS, workers=(1, 3), scaling=("strong",), batch_global=510, repeats=5
    )
    spread(folder, ("pair", "pair", "single"), 0.7)
    results = load(folder)
    assert not len(hosts(results))
    warned = estimate(results).filter(workers=3)["warning"].item()
    assert "cannot be told where each has another number of ranks" in warned
    even = results.trials.with_columns(
        host_seconds=pl.lit('{"a": 1.0, "b": 1.0, "c": 1.3, "d": 2.0}'),
        host_ranks=pl.lit('{"a": 2, "b": 2, "c": 2, "d": 3}'),
    )
    assert set(hosts(replace(results, trials=even))["host"]) == {"a", "b", "c"}
    assert list(slow(replace(results, trials=even))) == ["c"]


def test_a_slow_host_is_named_beside_launches_that_had_it_alone(tmp_path: Path) -> None:
    folder = generate.study(tmp_path / "alone", ways=WAYS, workers=(1, 2), scaling=("strong",), repeats=5)
    spread(folder, ("bad", "good"))
    for home in observed.homes(folder):
        if json.loads((home / "trial.json").read_text())["workers"] == 2:
            path = home / "rank-00000.jsonl"
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for line in lines:
                line["seconds"] *= 1.4 if line["phase"] == "compute_only" else 1
            path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    warned = estimate(load(folder))
    assert list(slow(load(folder))) == ["bad"]
    assert warned["warning"].str.contains(r"bad computes 1\.[34]").all()


def test_one_compute_only_step_that_stood_still_makes_no_host_slow(tmp_path: Path) -> None:
    folder = generate.study(tmp_path / "still", ways=WAYS, workers=(1, 2), scaling=("strong",), repeats=4)
    spread(folder, ("one", "other"))
    for home in observed.homes(folder):
        path = home / "rank-00001.jsonl"
        if path.exists():
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            lines[-1]["seconds"] += 5
            path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert slow(load(folder)) == {}
    assert hosts(load(folder))["relative"].max() < 1.1  # type: ignore[operator]
