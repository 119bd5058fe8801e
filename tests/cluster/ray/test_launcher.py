"""The Ray launcher against a real cluster of three nodes: the same training, and what is refused.

Where it is asked what is trained, ranks are warm; elsewhere they are bare (tests/warm).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest

from cluster.driver.plan import plan
from cluster.ray import launcher as ray_cluster
from cluster.ray import rank as ray_rank
from cluster.ray.launcher import RayLauncher
from cluster.study.file import check
from cluster.study.schema import StudyError
from jobs.contract.catalog import STRATEGIES
from jobs.contract.outcome import Outcome, read_outcome
from jobs.contract.parts import Limits, Steps
from jobs.contract.trial import Trial
from tests.cluster.ray.conftest import Make
from tests.cluster.ray.nodes import OF_THE_NODES, Cluster, kill
from tests.cluster.ray.trials import begin, drivers, end, endless, keepers_of, start, study, trial
from tests.running import DISTRIBUTED, Done, launch, ranks_of, until
from tests.sampler import read
from tests.warm.forges import lead, warm

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("bare_ranks")]

BASES = [name for name, info in STRATEGIES.items() if info.is_base_case]


@pytest.fixture(scope="module")
def base_losses(forge_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The losses of the plain single-process runs under the local launcher."""
    results = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        lead(patch, warm(forge_folder))
        return {STRATEGIES[name].framework: launch(trial(name, 1), results).losses() for name in BASES}


GRID = [
    pytest.param(name, workers, placement, marks=[pytest.mark.horovod] if "horovod" in name else [])
    for name in DISTRIBUTED
    for workers, placement in [(2, "spread"), (4, "pack")]
    if not STRATEGIES[name].one_process  # it needs a node with CPUs for all its workers, and none has four
]


def trained_as_without_ray(
    what: Trial, folder: Path, outcome: Outcome | None, base_losses: dict[str, np.ndarray]
) -> None:
    assert outcome is not None
    assert (outcome.status, outcome.error) == ("ok", "")
    expected = base_losses[STRATEGIES[what.strategy].framework]
    np.testing.assert_allclose(Done(what, folder, outcome).losses(), expected, rtol=1e-9)
    each = what.workers // what.processes
    assert [(r.niceness, r.threads, r.intra_op_threads) for r in outcome.ranks] == [(0, each, each)] * what.processes


@pytest.mark.parametrize(("strategy", "workers", "warm_one"), GRID, indirect=["warm_one"])
def test_every_strategy_trains_as_without_ray(
    strategy: str, workers: int, warm_one: RayLauncher, base_losses: dict[str, np.ndarray], tmp_path: Path
) -> None:
    what = trial(strategy, workers)
    folder = start(warm_one, what, tmp_path)
    outcome = end(warm_one, folder, within=120)
    trained_as_without_ray(what, folder, outcome, base_losses)
    assert not outcome.concurrent
    assert not list(folder.glob("*.keeper"))


def test_the_base_case_runs_beside_the_ranks(make: Make, tmp_path: Path) -> None:
    """What it leaves is brought back from where they are."""
    steps = Steps(warmup=1, measured=400, compute_only=0, blocks=2)
    what = trial("torch-ddp", 2, steps, base_batches=(12,), limits=Limits(hang=3.0))
    launcher = make(shared_results=False)
    outcome = end(launcher, folder := start(launcher, what, tmp_path))
    assert outcome.status == "ok", outcome.error
    told = json.loads((folder / "base-12.json").read_text())
    assert [turn["block"] for turn in told["turns"]] == [1, 2]
    assert max(turn["ranks_cpu_seconds"] for turn in told["turns"]) < 0.002


def test_files_of_nodes_without_a_shared_folder_are_brought_back(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_OF_RANKS", str(tmp_path))  # their folders, which are elsewhere, do not tell whose they are
    steps = Steps(warmup=1, measured=600, compute_only=0)  # some seconds, in which their folders can be seen
    launcher, what = make(placement="spread", shared_results=False), trial("torch-ddp", 2, steps)

    def ours() -> list[psutil.Process]:
        found = []
        for process in ranks_of(Path("/")):
            with contextlib.suppress(psutil.Error):
                if process.environ().get("TEST_OF_RANKS") == str(tmp_path):
                    found.append(process)
        return found

    folder = start(launcher, what, tmp_path)
    launcher.wait(1.0)
    elsewhere: set[str] = set()
    while not launcher.wait(0.2):
        with contextlib.suppress(psutil.Error):
            elsewhere |= {process.cmdline()[-1] for process in ours()}
    outcome = read_outcome(folder)
    assert outcome is not None
    assert outcome.status == "ok", outcome.error
    assert len(elsewhere) == 2
    assert str(folder) not in elsewhere
    assert not any(os.path.exists(path) for path in elsewhere)
    samplers = set(folder.glob("telemetry-*.jsonl"))  # one of each node; both are this machine
    assert {rank["rank"] for file in samplers for rank in read(file, "start")[0]["ranks"]} == {0, 1}
    assert all(read(file, "end") for file in samplers)
    assert {p.name for p in set(folder.iterdir()) - samplers} == {"trial.json", "outcome.json"} | {
        f"rank-{rank:05d}.{ending}" for rank in (0, 1) for ending in ("jsonl", "json", "log", "alive", "exit")
    }
    assert [len(Done(what, folder, outcome).rows(rank, "train")) for rank in (0, 1)] == [601, 601]
    what = endless(1, "torch")
    folder = start(launcher, what, tmp_path)
    (rank,) = until(ours)
    kill(rank)
    assert end(launcher, folder, within=10).status == "failed"  # and tells why, as any other
    assert {"rank-00000.log", "rank-00000.exit"} <= {p.name for p in folder.iterdir()}


def test_each_rank_has_a_device_of_its_own(make: Make, tmp_path: Path) -> None:
    launcher = make()
    start(launcher, endless().model_copy(update={"gpus_per_worker": 1}), tmp_path / "gpus")
    found: dict[int, str] = {}

    def both() -> bool:  # they fail soon: these GPUs exist by name alone
        launcher.wait(0.0)
        for process in keepers_of(tmp_path / "gpus"):
            with contextlib.suppress(psutil.Error):
                found[process.pid] = process.environ()["CUDA_VISIBLE_DEVICES"]
        return len(found) == 2

    until(both)
    assert sorted(found.values()) == ["0", "1"]
    until(lambda: launcher.wait(0.5))


def test_a_rank_has_the_drivers_surroundings_and_a_core_of_its_own(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SET_BY_DRIVER", "1")
    launcher = make()
    begin(launcher, endless(), tmp_path)
    for process in keepers_of(tmp_path) + ranks_of(tmp_path):
        assert (process.cmdline()[0], process.cwd()) == (sys.executable, os.getcwd())
        variables = process.environ()
        assert variables["SET_BY_DRIVER"] == "1"
        assert not [v for v in variables if v.startswith("RAY_") or v in OF_THE_NODES]
    cores = [process.cpu_affinity() for process in ranks_of(tmp_path)]
    if (os.cpu_count() or 1) >= 2:
        assert sorted(map(len, cores)) == [1, 1]
        assert cores[0] != cores[1]
    launcher.cancel()
    assert not ranks_of(tmp_path)
    assert not list(tmp_path.glob("trials/*/outcome.json"))  # as with any launcher, it was not finished


@pytest.mark.horovod
def test_every_strategy_trains_side_by_side_with_others_and_says_so(
    make: Make, base_losses: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All strategies with one worker, and with two on one node: as many at once as there is room for.

    These ranks start as they do for a user.
    """
    monkeypatch.delenv("SCALING_TEST_BARE")
    launcher = make(concurrent=True)
    waiting = [trial(name, 2) for name in DISTRIBUTED] + [trial(name, 1) for name in BASES + DISTRIBUTED]
    folders: dict[str, tuple[Trial, Path]] = {}
    most = ended = 0
    count = len(waiting)
    while ended < count:
        if waiting and launcher.room():
            what = waiting.pop()
            folders[what.id] = (what, start(launcher, what, tmp_path))
        ended += len(launcher.wait(0.2))
        most = max(most, len(launcher.running()))
    assert most >= 3
    for what, folder in folders.values():
        outcome = read_outcome(folder)
        trained_as_without_ray(what, folder, outcome, base_losses)
        assert outcome is not None
        assert outcome.concurrent


@pytest.mark.parametrize("warm_one", ["spread"], indirect=True)
def test_a_second_study_on_the_cluster_disturbs_none(
    pack: RayLauncher, warm_one: RayLauncher, base_losses: dict[str, np.ndarray], tmp_path: Path
) -> None:
    first, ranks = begin(pack, endless(), tmp_path / "first")
    used = [rank.cpu_times().user for rank in ranks]
    what = trial("torch-ddp", 2)
    folder = start(warm_one, what, tmp_path / "second")
    trained_as_without_ray(what, folder, end(warm_one, folder), base_losses)
    assert not pack.wait(0.0)
    assert all(rank.cpu_times().user > before for rank, before in zip(ranks, used, strict=True))  # they still train
    kill(ranks[0])
    assert end(pack, first, within=10).status == "failed"


# What does not fit, and what is not as it should be


def test_more_than_there_is_is_refused_at_once(make: Make) -> None:
    launcher, began = make(), time.monotonic()
    with pytest.raises(StudyError) as caught:
        plan(check(study() | {"workers": [1, 8]}), launcher)
    assert caught.value.faults == [
        "workers: 8 with 1 CPU each do not fit; the cluster has 3 nodes with 2 CPUs and 2 GPUs each"
    ]
    assert time.monotonic() - began < 10


def test_a_busy_cluster_is_waited_for(make: Make, tmp_path: Path) -> None:
    busy = make(placement="spread", cpus_per_worker=2)
    begin(busy, endless(3), tmp_path / "a")
    hasty = make(wait=4.0)
    outcome = end(hasty, start(hasty, trial("torch", 1), tmp_path / "b"), within=15)
    assert outcome.status == "timeout"
    assert "the cluster is busy: 0 of 6 CPUs" in outcome.error
    hasty.close()
    patient = make()
    folder = start(patient, trial("torch", 1), tmp_path / "c")

    def waits() -> bool:
        assert patient.wait(0.2) == []
        (state,) = patient.running().values()
        return state.text == "waiting" and "the cluster is busy" in state.reason

    until(waits, 20)
    assert len(ranks_of(tmp_path / "a")) == 3  # the other study does not notice
    busy.cancel()
    assert end(patient, folder).status == "ok"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("0123456789abcdef" * 4, "the cluster does not accept our token ("),
        ("\n", "is empty; put the cluster's token into it"),
        (None, "cannot be read (No such file or directory); put the cluster's token into it"),
    ],
    ids=["wrong", "empty", "absent"],
)
def test_a_token_that_is_not_the_clusters_is_said_at_once(
    content: str | None, said: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_text(content)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    launcher, began = make(), time.monotonic()
    (fault,) = launcher.refuse([trial("torch", 1)])
    assert time.monotonic() - began < 8
    assert fault.startswith(f"RAY_ADDRESS: {os.environ['RAY_ADDRESS']}: ")
    assert said in fault
    assert str(token) in fault


# What Ray serves, each at ports of its own: the head, each node's raylet at two, workers and drivers, Ray Client.
SERVED = {
    "NodeInfoGcsService": "GetAllNodeInfo",
    "NodeManagerService": "GetNodeStats",
    "ObjectManagerService": "Push",
    "CoreWorkerService": "GetCoreWorkerStats",
    "RayletDriver": "ClusterInfo",
}


def test_a_cluster_answers_nobody_without_its_token(pack: RayLauncher, reachable: Cluster, tmp_path: Path) -> None:
    """Each port that a process of the cluster listens at, while a trial runs: whatever is served there refuses."""
    folder, ranks = begin(pack, endless(), tmp_path)
    host = reachable.address.rpartition(":")[0]
    ours = {process.pid: command for process, command in reachable.commands()}
    ours |= {process.pid: " ".join(process.cmdline()) for process in drivers()}

    def listening() -> dict[int, str]:
        found = [c for c in psutil.net_connections("inet") if c.status == "LISTEN" and c.pid in ours]
        return {c.laddr.port: ours[c.pid] for c in found}

    until(lambda: any("ray.util.client.server" in command for command in listening().values()), 20)  # the last to come
    refusing: dict[str, set[str]] = {service: set() for service in SERVED}
    for port, command in listening().items():
        assert "dashboard.py" not in command
        answers = {service: asked(f"{host}:{port}", f"/ray.rpc.{service}/{name}") for service, name in SERVED.items()}
        with pytest.raises((OSError, http.client.HTTPException)) as answer:
            urllib.request.urlopen(f"http://{host}:{port}/", timeout=5)
        if isinstance(answer.value, urllib.error.HTTPError):  # a node's agent
            assert (answer.value.code, set(answers.values())) == (401, {"UNAVAILABLE"}), command
            continue
        (service,) = [service for service, code in answers.items() if code == "UNAUTHENTICATED"]
        assert {code for other, code in answers.items() if other != service} == {"UNIMPLEMENTED"}, command
        refusing[service].add(command)
    assert all(refusing.values()), refusing
    for name in ("ray::Rank", "cluster.ray.process"):
        assert any(name in command for command in refusing["CoreWorkerService"])
    kill(ranks[0])
    end(pack, folder, within=10)


def asked(address: str, method: str) -> str:
    """The name of the code with which a call without a token is refused."""
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(method)(b"", timeout=5)
    return str(caught.value.code().name)  # type: ignore[attr-defined]


def test_an_address_where_no_cluster_is_is_said_at_once(make: Make) -> None:
    launcher, began = make(address="127.0.0.1:9"), time.monotonic()
    (fault,) = launcher.refuse([trial("torch", 1)])
    assert fault.startswith("launcher.address: 127.0.0.1:9: nothing answers there")
    assert time.monotonic() - began < 8


def test_a_node_with_other_versions_is_named(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    here = ray_rank.found_here()
    monkeypatch.setattr(
        ray_cluster, "found_here", lambda: here | {"versions": here["versions"] | {"torch": "1.0", "apex": "2.0"}}
    )
    faults = make().refuse([trial("torch", 1)])
    assert len(faults) == 6
    assert "apex is absent there and 2.0 here" in faults[0]
    assert f"torch is {here['versions']['torch']} there and 1.0 here; install the same on all nodes" in faults[1]
    assert all(fault.startswith("node ") for fault in faults)


def test_a_results_folder_that_nodes_do_not_see_is_refused_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_probe", lambda results: contextlib.nullcontext("/nowhere/results/.look"))
    faults = make().refuse([trial("torch", 1)])
    assert len(faults) == 3  # the nodes
    for fault in faults:
        assert fault.startswith("node ")
        assert fault.endswith(
            ": does not see /nowhere/results; set launcher.shared_results: false, or use a folder that all nodes share"
        )
    assert make(shared_results=False).refuse([trial("torch", 1)]) == []
