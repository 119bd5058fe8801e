"""Whatever may end a trial on Ray: the death of ranks, actors, nodes, of our own processes, and a user."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from cluster.ray.launcher import RayLauncher
from jobs.contract.outcome import read_outcome
from tests import failing
from tests.cluster.ray.conftest import Make, left_of
from tests.cluster.ray.nodes import Cluster, kill, of_session
from tests.cluster.ray.trials import begin, drivers, end, endless, goes_on, keepers_of, start, study, trial
from tests.running import in_blocks, ranks_of, stop_in_its_turn, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("bare_ranks")]

ROOT = Path(__file__).parents[3]
SCALING = Path(sys.executable).with_name("scaling")


@pytest.mark.parametrize("victim", ["rank", "keeper"])
def test_a_dead_rank_ends_the_trial(victim: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ranks as they are: bare ones die of each other sooner than anybody can see who was first."""
    monkeypatch.delenv("SCALING_TEST_BARE")
    spread = make(placement="spread")
    folder, ranks = begin(spread, endless(), tmp_path)
    kill({"rank": ranks, "keeper": keepers_of(tmp_path)}[victim][1])
    outcome = end(spread, folder, within=10)
    assert outcome.status == "failed"
    assert "SIGKILL" in outcome.error
    assert len(outcome.exits) == 2
    assert not ranks_of(tmp_path)


def test_a_stopped_rank_is_noticed(pack: RayLauncher, tmp_path: Path) -> None:
    """Which trains by turns with the base case, and is stopped in each turn of that."""
    folder, (rank,) = begin(pack, in_blocks(endless(1, hang=3.0)), tmp_path)
    stop_in_its_turn(rank, folder)
    outcome = end(pack, folder, within=20)
    assert (outcome.status, "no sign of life" in outcome.error) == ("timeout", True)


def test_a_dead_actor_takes_its_rank_with_it(spread: RayLauncher, reachable: Cluster, tmp_path: Path) -> None:
    folder, ranks = begin(spread, endless(), tmp_path)
    kill(reachable.actors()[0])
    until(lambda: len(ranks_of(tmp_path)) < len(ranks), 3)
    outcome = end(spread, folder, within=20)
    assert outcome.status == "lost"
    assert "ActorDiedError" in outcome.error
    goes_on(spread, tmp_path)


def test_a_rank_alone_dies_with_its_actor(pack: RayLauncher, reachable: Cluster, tmp_path: Path) -> None:
    """No other rank fails for its sake, and nobody is left to ask it to end."""
    folder, (rank,) = begin(pack, endless(1, "torch"), tmp_path)
    kill(reachable.actors()[0])
    until(lambda: not rank.is_running() or rank.status() == psutil.STATUS_ZOMBIE, 3)
    assert end(pack, folder, within=20).status == "lost"


def test_a_dead_node_costs_the_trial_and_not_the_study(spread: RayLauncher, reachable: Cluster, tmp_path: Path) -> None:
    folder, _ = begin(spread, endless(3), tmp_path)
    try:
        kill(reachable.raylet(2))
        outcome = end(spread, folder, within=20)
        assert outcome.status == "lost", outcome.error
        assert "rank" in outcome.error
        until(lambda: not ranks_of(tmp_path), 5)
        goes_on(spread, tmp_path)
    finally:
        reachable.end(2)
        reachable.add()


def test_a_node_that_hangs_is_noticed_in_seconds(spread: RayLauncher, reachable: Cluster, tmp_path: Path) -> None:
    folder, _ = begin(spread, endless(3), tmp_path)
    raylet = reachable.raylet(2)
    try:
        raylet.suspend()
        outcome = end(spread, folder, within=12)  # six, if the machine is quiet
        assert outcome.status == "lost", outcome.error
    finally:
        raylet.resume()
        reachable.end(2)
        reachable.add()
    until(lambda: not ranks_of(tmp_path), 40)


def test_the_study_outlives_the_process_that_talks_to_ray(pack: RayLauncher, tmp_path: Path) -> None:
    folder, _ = begin(pack, endless(), tmp_path)
    kill(psutil.Process(pack._child._process.pid))  # type: ignore[union-attr]
    outcome = end(pack, folder, within=10)
    assert (outcome.status, "the process that talks to Ray ended" in outcome.error) == ("lost", True)
    until(lambda: not ranks_of(tmp_path), 5)
    goes_on(pack, tmp_path)


KILLED = """
import sys, time
from pathlib import Path
from cluster.ray.launcher import RayLauncher
from tests.cluster.ray.trials import begin, drivers, endless
results = Path(sys.argv[1]); launcher = RayLauncher({}, results)
begin(launcher, endless(), results)
(driver,) = drivers()
print(driver.pid, launcher._child.folder, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("own", [False, True], ids=["existing cluster", "own cluster"])
def test_a_killed_study_leaves_nothing(
    own: bool, reachable: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if own:
        monkeypatch.delenv("RAY_ADDRESS")
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        session, folder = process.stdout.readline().split()
        assert len(ranks_of(tmp_path)) == 2
        if own:
            assert (Path(folder) / "token").stat().st_mode & 0o777 == 0o600
            assert len(of_session(int(session))) > 5
        process.kill()
    until(lambda: not ranks_of(tmp_path) and not keepers_of(tmp_path), 5)
    until(lambda: not of_session(int(session)), 5)
    if own:
        until(lambda: not Path(folder).exists(), 5)


def test_a_cluster_of_our_own_is_replaced_when_its_head_dies(
    reachable: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS")
    launcher, before = RayLauncher({}, tmp_path), drivers()
    try:
        folder, _ = begin(launcher, endless(), tmp_path)
        (driver,) = [d for d in drivers() if d not in before]
        (raylet,) = [p for p in driver.children() if p.name() == "raylet"]
        kill(raylet)
        assert end(launcher, folder, within=30).status == "lost"
        assert not of_session(driver.pid)
        goes_on(launcher, tmp_path)
    finally:
        launcher.close()
    assert not ranks_of(tmp_path)
    assert drivers() == before


def test_a_rank_that_cannot_be_started_fails_and_is_not_lost(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    launcher = make()
    assert launcher.refuse([trial("torch", 1)]) == []
    working.rmdir()
    outcome = end(launcher, start(launcher, trial("torch", 1), tmp_path), within=30)
    assert outcome.status == "failed"
    assert f" in {working}: " in outcome.error


def scaling(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCALING, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def test_a_study_is_cancelled_resumed_and_goes_on_after_a_loss(reachable: Cluster, tmp_path: Path) -> None:
    file, results = tmp_path / "study.yaml", tmp_path / "results"
    launcher = {"kind": "ray", "placement": "spread"}
    steps = {"warmup": 1, "measured": 2500, "compute_only": 0}
    only = {"strategies": ["torch-ddp"], "workers": [2], "repeats": {"min": 2}, "steps": steps}
    file.write_text(yaml.safe_dump(study() | only | {"batch": {"global": 8}, "launcher": launcher}))
    command = [SCALING, "run", file, "--results", results]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        until(lambda: len(ranks_of(results)) == 2)
        assert "0 of 2 planned launches are done" in scaling("status", results).stdout
        ended = scaling("cancel", results)
        assert (ended.returncode, running.wait(60)) == (0, 130), ended.stderr
    until(lambda: not left_of(results, reachable), 5)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        until(lambda: len(ranks_of(results)) == 2)
        kill(reachable.actors()[0])
        said, _ = running.communicate(timeout=120)
    assert running.returncode == 0, said
    outcomes = [read_outcome(folder) for folder in (results / "trials").iterdir()]
    assert [outcome.status for outcome in outcomes if outcome] == ["ok", "ok"]
    assert "was not finished" in said  # what was cancelled
    assert "was lost: " in said
    until(lambda: not left_of(results, reachable), 5)


def test_the_reason_is_told_as_by_any_launcher(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = failing.named("an exception in C++", "one fails, the other follows")
    monkeypatch.setenv(failing.DOES, failing.does(tmp_path, ways))
    launcher = make()
    for way in ways:
        outcome = end(launcher, start(launcher, failing.trial(way), tmp_path), within=20)
        assert re.fullmatch(failing.pattern(way, tmp_path), outcome.error), outcome.error
