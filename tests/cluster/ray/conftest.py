"""One cluster of three nodes for all tests of this folder that need it, and launchers on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.ray.launcher import RayLauncher
from tests.cluster.ray.nodes import Cluster, of_session, short_folder, started
from tests.cluster.ray.trials import drivers, keepers_of, trial
from tests.running import ranks_of, until
from tests.warm.forges import bare, lead, warm

Make = Callable[..., RayLauncher]


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    """Three nodes with two CPUs each. Whatever a test does to it, the next one finds three nodes."""
    with short_folder() as folder:
        made = started(Path(folder), 3)
        yield made
        sessions = [node.pid for node in made.nodes]
        made.close()
        assert not [p for session in sessions for p in of_session(session)]


@pytest.fixture
def reachable(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    for variable in [v for v in os.environ if v.startswith("RAY_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(cluster.token))
    return cluster


@pytest.fixture(scope="package")
def connected(cluster: Cluster, forge_folder: Path) -> Iterator[dict[str, RayLauncher]]:
    """A launcher for each placement and kind of rank, which many tests share: connecting takes some seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(cluster.token))
        patch.setenv("OMP_NUM_THREADS", "64")  # must not reach a rank
        others = drivers()
        unused = cluster.folder / "results"
        made: dict[str, RayLauncher] = {}
        for kind, variables in (("", bare()), ("warm ", warm(forge_folder))):
            with pytest.MonkeyPatch.context() as ranks:
                lead(ranks, variables)
                for placement in ("pack", "spread"):
                    launcher = RayLauncher({"address": cluster.address, "placement": placement}, unused)
                    assert launcher.refuse([trial("torch", 1)]) == []  # connects, and takes the environment
                    made[kind + placement] = launcher
        yield made
        for launcher in made.values():
            launcher.close()
        assert drivers() == others


@pytest.fixture
def pack(connected: dict[str, RayLauncher], reachable: Cluster, tmp_path: Path) -> Iterator[RayLauncher]:
    yield from idle_again(connected["pack"], reachable, tmp_path)


@pytest.fixture
def spread(connected: dict[str, RayLauncher], reachable: Cluster, tmp_path: Path) -> Iterator[RayLauncher]:
    yield from idle_again(connected["spread"], reachable, tmp_path)


@pytest.fixture
def warm_one(
    request: pytest.FixtureRequest, connected: dict[str, RayLauncher], reachable: Cluster, tmp_path: Path
) -> Iterator[RayLauncher]:
    """A launcher whose ranks are warm, with the placement that the test is parametrized with."""
    yield from idle_again(connected[f"warm {request.param}"], reachable, tmp_path)


def idle_again(launcher: RayLauncher, cluster: Cluster, results: Path) -> Iterator[RayLauncher]:
    """A launcher that others have used and will use; after the test nothing of its trials is left."""
    try:
        yield launcher
    finally:
        if launcher.running():  # the test has failed
            launcher.close()
    until(lambda: not left_of(results, cluster), 5)


@pytest.fixture
def make(reachable: Cluster, tmp_path: Path) -> Iterator[Make]:
    """Launchers on the cluster, closed at the end; then no process of theirs is left."""
    launchers: list[RayLauncher] = []
    others = drivers()

    def made(**options: Any) -> RayLauncher:
        launchers.append(RayLauncher(options, tmp_path))
        return launchers[-1]

    yield made
    for launcher in launchers:
        launcher.close()
    assert drivers() == others
    until(lambda: not left_of(tmp_path, reachable), 5)


def left_of(results: Path, cluster: Cluster) -> list[psutil.Process]:
    """Ranks, keepers and actors that live; no test leaves a trial running for the next."""
    return ranks_of(results) + keepers_of(results) + cluster.actors()
