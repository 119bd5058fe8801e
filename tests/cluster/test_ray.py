"""The Ray launcher against a real cluster of three nodes: the same training, and whatever may die."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from cluster import ray_cluster
from cluster.driver import plan
from cluster.launcher import Launch, OptionsError
from cluster.ray_capacity import Need, Node
from cluster.ray_cluster import RayLauncher
from cluster.ray_rank import Rank, claim
from cluster.ray_trial import NODE_FILE, RANK_FILE, places
from cluster.study import StudyError
from cluster.study_file import check
from jobs.files import rank_file
from jobs.results import Outcome, read_outcome, write_trial
from jobs.strategies import STRATEGIES
from jobs.trial import Limits, Steps, Trial
from tests.cluster.ray_nodes import Cluster, actors_of, kill, of_session, short_folder, started
from tests.running import DISTRIBUTED, Done, launch, ranks_of, until
from tests.sampler import read

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
SHORT = Steps(warmup=1, measured=3, compute_only=0)
LONG = Steps(warmup=1, measured=100_000, compute_only=0)
Make = Callable[..., RayLauncher]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes with two CPUs each. Whatever a test does to it, the next one finds three nodes."""
    with short_folder() as folder:
        made = started(Path(folder), 3)
        yield made
        made.close()


@pytest.fixture
def reachable(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    for variable in [v for v in os.environ if v.startswith("RAY_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(cluster.token))
    return cluster


@pytest.fixture(scope="module")
def connected(cluster: Cluster) -> Iterator[dict[str, RayLauncher]]:
    """A launcher for each placement, which many tests share: connecting takes some seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(cluster.token))
        patch.setenv("OMP_NUM_THREADS", "64")  # must not reach a rank
        unused = cluster.folder / "results"
        made = {p: RayLauncher({"address": cluster.address, "placement": p}, unused) for p in ("pack", "spread")}
        yield made
        for launcher in made.values():
            launcher.close()


@pytest.fixture
def pack(connected: dict[str, RayLauncher], reachable: Cluster, tmp_path: Path) -> Iterator[RayLauncher]:
    yield from idle_again(connected["pack"], tmp_path)


@pytest.fixture
def spread(connected: dict[str, RayLauncher], reachable: Cluster, tmp_path: Path) -> Iterator[RayLauncher]:
    yield from idle_again(connected["spread"], tmp_path)


def idle_again(launcher: RayLauncher, results: Path) -> Iterator[RayLauncher]:
    try:
        yield launcher
    finally:
        if launcher.running():  # the test has failed
            launcher.close()
    until(lambda: not ranks_of(results) and not keepers_of(results), 5)


@pytest.fixture
def make(reachable: Cluster, tmp_path: Path) -> Iterator[Make]:
    """Launchers on the cluster, closed at the end; then no process of a trial may be left."""
    launchers: list[RayLauncher] = []

    def made(**options: Any) -> RayLauncher:
        launchers.append(RayLauncher(options, tmp_path))
        return launchers[-1]

    yield made
    for launcher in launchers:
        launcher.close()
    until(lambda: not ranks_of(tmp_path) and not keepers_of(tmp_path), 5)


def keepers_of(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        ours = "cluster.ray_rank" in command and any(str(folder) in part for part in command)
        if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def drivers() -> list[psutil.Process]:
    """The processes of ours that talk to Ray."""
    children = [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]
    return [p for p in children if p.cmdline()[-1:] == ["cluster.ray_driver"]]


def trial(strategy: str, workers: int, steps: Steps = SHORT, **fields: Any) -> Trial:
    return Trial(strategy=strategy, workers=workers, global_batch=12, steps=steps, precision="float64", **fields)


def endless(workers: int = 2, strategy: str = "torch-ddp", **limits: float) -> Trial:
    return trial(strategy, workers, LONG, limits=Limits(**({"hang": 20.0} | limits)))


def start(launcher: RayLauncher, what: Trial, results: Path) -> Path:
    folder = results / "trials" / what.id
    write_trial(folder, what)
    launcher.start([Launch(what, folder, 0)])
    return folder


def begin(launcher: RayLauncher, what: Trial, results: Path) -> tuple[Path, list[psutil.Process]]:
    """Start `what` and wait until all its ranks are in their step loop."""
    folder = start(launcher, what, results)

    def stepping() -> list[psutil.Process]:
        ended = launcher.wait(0.1)
        assert not ended, read_outcome(folder)
        beats = [rank_file(folder, rank, "alive") for rank in range(what.processes)]
        ready = all(b.exists() and b.stat().st_mtime < time.time() + what.limits.hang + 1 for b in beats)
        return ranks_of(folder) if ready else []

    return folder, until(stepping)


def end(launcher: RayLauncher, folder: Path, within: float = 60.0) -> Outcome:
    began = time.monotonic()
    while not launcher.wait(0.5):
        assert time.monotonic() - began < within, launcher.running()
    outcome = read_outcome(folder)
    assert outcome is not None
    assert outcome.launcher == "ray"
    return outcome


def goes_on(launcher: RayLauncher, results: Path) -> None:
    """The next trial of the study is not hurt by what became of the last."""
    folder = start(launcher, trial("torch", 1), results)
    assert end(launcher, folder).status == "ok"


# The same training


@pytest.fixture(scope="module")
def base_losses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The losses of the plain single-process runs under the local launcher."""
    results = tmp_path_factory.mktemp("base")
    return {STRATEGIES[name].framework: launch(trial(name, 1), results).losses() for name in ("torch", "tf", "jax")}


GRID = [
    pytest.param(name, workers, placement, marks=[pytest.mark.horovod] if "horovod" in name else [])
    for name in DISTRIBUTED
    for workers, placement in [(2, "pack" if STRATEGIES[name].one_process else "spread"), (4, "pack")]
    if not (workers == 4 and STRATEGIES[name].one_process)  # no node has four CPUs
]


@pytest.mark.parametrize(("strategy", "workers", "placement"), GRID)
def test_every_strategy_trains_as_without_ray(
    strategy: str,
    workers: int,
    placement: str,
    request: pytest.FixtureRequest,
    base_losses: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:
    launcher: RayLauncher = request.getfixturevalue(placement)
    what = trial(strategy, workers)
    folder = start(launcher, what, tmp_path)
    outcome = end(launcher, folder, within=120)
    assert (outcome.status, outcome.error) == ("ok", "")
    np.testing.assert_allclose(
        Done(what, folder, outcome).losses(), base_losses[STRATEGIES[strategy].framework], rtol=1e-9
    )
    each = what.workers // what.processes
    assert [(r.niceness, r.threads, r.intra_op_threads) for r in outcome.ranks] == [(0, each, each)] * what.processes
    assert not outcome.concurrent
    assert not list(folder.glob("*.keeper"))


def test_files_of_nodes_without_a_shared_folder_are_brought_back(make: Make, tmp_path: Path) -> None:
    launcher, what = make(placement="spread", shared_results=False), trial("torch-ddp", 2)
    folder = start(launcher, what, tmp_path)
    launcher.wait(1.0)
    elsewhere: set[str] = set()
    while not launcher.wait(0.2):
        elsewhere |= {p.cmdline()[-1] for p in ranks_of(Path("/")) if what.id in p.cmdline()[-1]}
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
    assert [len(Done(what, folder, outcome).rows(rank, "train")) for rank in (0, 1)] == [4, 4]


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
    begin(launcher, endless(), tmp_path)
    cores = [process.cpu_affinity() for process in ranks_of(tmp_path)]
    if (os.cpu_count() or 1) >= 2:
        assert sorted(map(len, cores)) == [1, 1]
        assert cores[0] != cores[1]
    for process in keepers_of(tmp_path) + ranks_of(tmp_path):
        assert not [v for v in process.environ() if v.startswith("RAY_")]
    launcher.cancel()
    assert not ranks_of(tmp_path)
    assert not list(tmp_path.glob("trials/*/outcome.json"))  # as with any launcher, it was not finished


@pytest.mark.horovod
def test_every_strategy_trains_side_by_side_with_others_and_says_so(
    make: Make, base_losses: dict[str, np.ndarray], tmp_path: Path
) -> None:
    launcher, waiting = make(concurrent=True), [trial(name, 1) for name in DISTRIBUTED]
    folders: dict[str, tuple[Trial, Path]] = {}
    most = ended = 0
    while ended < len(DISTRIBUTED):
        if waiting and launcher.room():
            what = waiting.pop()
            folders[what.id] = (what, start(launcher, what, tmp_path))
        ended += len(launcher.wait(0.2))
        most = max(most, len(launcher.running()))
    assert most >= 3
    for what, folder in folders.values():
        outcome = read_outcome(folder)
        assert outcome is not None
        assert (outcome.status, outcome.error, outcome.concurrent) == ("ok", "", True)
        expected = base_losses[STRATEGIES[what.strategy].framework]
        np.testing.assert_allclose(Done(what, folder, outcome).losses(), expected, rtol=1e-9)


# What may die


def test_a_dead_rank_ends_the_trial(spread: RayLauncher, tmp_path: Path) -> None:
    folder, ranks = begin(spread, endless(), tmp_path)
    kill(ranks[1])
    outcome = end(spread, folder, within=10)
    assert outcome.status == "failed"
    assert "SIGKILL" in outcome.error
    assert len(outcome.exits) == 2
    assert not ranks_of(tmp_path)


def test_a_stopped_rank_is_noticed(pack: RayLauncher, tmp_path: Path) -> None:
    folder, (rank,) = begin(pack, endless(1, "torch", hang=3.0), tmp_path)
    os.kill(rank.pid, signal.SIGSTOP)
    outcome = end(pack, folder, within=20)
    assert (outcome.status, "no sign of life" in outcome.error) == ("timeout", True)


def test_a_dead_actor_takes_its_rank_with_it(spread: RayLauncher, reachable: Cluster, tmp_path: Path) -> None:
    folder, ranks = begin(spread, endless(), tmp_path)
    actor, *_ = [a for node in reachable.nodes for a in actors_of(node.pid)]
    kill(actor)
    until(lambda: len(ranks_of(tmp_path)) < len(ranks), 3)
    outcome = end(spread, folder, within=20)
    assert outcome.status == "lost"
    assert "ActorDiedError" in outcome.error
    goes_on(spread, tmp_path)


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
        outcome = end(spread, folder, within=20)
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
from tests.cluster.test_ray import *
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


# What does not fit, and what is not as it should be


def study() -> dict[str, Any]:
    return {
        "name": "tiny",
        "strategies": ["torch", "torch-ddp"],
        "workers": [1, 2],
        "scaling": ["strong"],
        "batch": {"global": 64},
        "launcher": {"kind": "ray"},
    }


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


def test_a_token_that_is_not_the_clusters_is_said_at_once(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("0123456789abcdef" * 4)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(wrong))
    launcher, began = make(), time.monotonic()
    (fault,) = launcher.refuse([trial("torch", 1)])
    assert time.monotonic() - began < 8
    assert "does not accept our token" in fault
    assert str(wrong) in fault


def test_an_address_where_no_cluster_is_is_said_at_once(make: Make) -> None:
    launcher, began = make(address="127.0.0.1:9"), time.monotonic()
    (fault,) = launcher.refuse([trial("torch", 1)])
    assert fault.startswith("launcher.address: 127.0.0.1:9: nothing answers there")
    assert time.monotonic() - began < 8


def test_a_node_with_other_versions_is_named(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    here = ray_cluster.found_here()
    monkeypatch.setattr(
        ray_cluster, "found_here", lambda: here | {"versions": here["versions"] | {"torch": "1.0", "apex": "2.0"}}
    )
    faults = make().refuse([trial("torch", 1)])
    assert len(faults) == 6
    assert "apex is absent there and 2.0 here" in faults[0]
    assert f"torch is {here['versions']['torch']} there and 1.0 here; install the same on all nodes" in faults[1]
    assert all(fault.startswith("node ") for fault in faults)


def test_unknown_options_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(OptionsError) as caught:
        RayLauncher({"partition": "x", "placement": "nice", "wait": 0, "address": "ray://h:10001"}, tmp_path)
    assert sorted(f.split(":")[0] for f in caught.value.faults) == ["address", "partition", "placement", "wait"]
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(OptionsError, match="RAY_ADDRESS: 'auto' is not an address"):
        RayLauncher({}, tmp_path)


# Rules without a cluster


def test_what_fits_is_counted_node_by_node() -> None:
    nodes = [Node("a", "h", 4, 0), Node("b", "h", 3, 1), Node("c", "h", 1, 8)]
    assert Need(1, 2, 0, False).most(nodes) == 3
    assert Need(1, 2, 0, True).most(nodes) == 2
    assert Need(1, 1, 1, False).most(nodes) == 2


@pytest.mark.parametrize(
    ("options", "workers", "words"),
    [
        ({"placement": "spread"}, 4, "workers: 4 with 1 CPU each, each on a node of its own, do not fit"),
        ({"cpus_per_worker": 3}, 1, "workers: 1 with 3 CPUs each do not fit"),
    ],
)
def test_what_can_never_fit_is_refused(options: dict[str, Any], workers: int, words: str, tmp_path: Path) -> None:
    launcher = RayLauncher(options, tmp_path)
    launcher._known = [Node(name, "h", 2, 2) for name in "abc"]
    (fault,) = launcher.refuse([trial("torch-ddp", workers)])
    assert fault.startswith(words)
    assert launcher.largest(1) == (3 if options == {"placement": "spread"} else 1)


def test_gpus_are_the_studys_and_count(tmp_path: Path) -> None:
    launcher = RayLauncher({}, tmp_path)
    launcher._known = [Node(name, "h", 4, 2) for name in "ab"]
    assert (launcher.largest(1, 0), launcher.largest(1, 1)) == (8, 4)
    six = trial("torch-ddp", 6)
    assert launcher.refuse([six]) == []
    (fault,) = launcher.refuse([six.model_copy(update={"gpus_per_worker": 1})])
    assert fault == (
        "workers: 6 with 1 CPU and 1 GPU each do not fit; the cluster has 2 nodes with 4 CPUs and 2 GPUs each"
    )
    with pytest.raises(OptionsError, match=r"gpus_per_worker: is the study's resources\.gpus_per_worker; give"):
        RayLauncher({"gpus_per_worker": 1}, tmp_path)


def test_a_process_with_several_workers_needs_a_node_that_holds_them(tmp_path: Path) -> None:
    pack, spread = RayLauncher({}, tmp_path), RayLauncher({"placement": "spread"}, tmp_path)
    pack._known = spread._known = [Node(name, "h", 2, 0) for name in "abc"]
    assert pack.unfit(trial("tf-mirrored", 2)) is None
    assert "needs a node with 4 CPUs" in str(pack.unfit(trial("tf-mirrored", 4)))
    assert "one worker on each node" in str(spread.unfit(trial("tf-mirrored", 2)))


def test_fewer_cpus_than_threads_are_refused(tmp_path: Path) -> None:
    launcher = RayLauncher({"cpus_per_worker": 1}, tmp_path)
    launcher._known = [Node("a", "h", 4, 0)]
    (fault,) = launcher.refuse([trial("torch", 1, threads_per_worker=2)])
    assert fault == "launcher.cpus_per_worker: 1 is less than 2 threads"


def test_ranks_of_a_node_are_neighbours() -> None:
    found = places(["x", "x", "y"], "10.0.0.1", 5)
    assert [(p.rank, p.local_rank, p.local_world_size, p.node_rank) for p in found] == [
        (0, 0, 2, 0),
        (1, 1, 2, 0),
        (2, 0, 1, 1),
    ]


def test_no_two_ranks_of_a_machine_claim_a_core() -> None:
    cores = [1001, 1002, 1003]
    first, held = claim(cores, 1, 1)
    second, also = claim(cores, 1, 1)
    third, nothing = claim(cores, 0, 2)
    assert (first, second, third, nothing) == ([1002], [1003], [], [])
    for name in held + also:
        name.close()
    assert claim(cores, 0, 3)[0] == cores


def test_a_rank_of_which_nobody_asks_ends_by_itself(tmp_path: Path) -> None:
    """As on a node that was cut off from the driver and from Ray."""
    actor, sleep = Rank(lease=0.5), [sys.executable, "-c", "import time; time.sleep(600)"]
    (tmp_path / "trial.json").touch()
    assert actor.begin(sleep, {"RANK": "0"}, str(tmp_path), str(tmp_path), None) == ""
    heard = Rank.news(actor, 10.0)
    assert heard is not None
    assert (heard["code"], heard["asked"]) == (-signal.SIGTERM, True)


def test_a_rank_lists_its_own_files_alone(tmp_path: Path) -> None:
    """In a folder that ranks share, those of others come and go while it looks."""
    (tmp_path / "trial.json").touch()
    (tmp_path / "rank-00001.json").touch()
    (tmp_path / ".rank-00001.exit.7").symlink_to(tmp_path / "gone")
    actor, leave = Rank(lease=10.0), ["touch", str(tmp_path / "rank-00000.exit")]
    assert actor.begin(leave, {"RANK": "0"}, str(tmp_path), str(tmp_path), None) == ""
    heard = Rank.news(actor, 10.0)
    assert heard is not None
    assert (heard["code"], heard["files"]) == (0, {"rank-00000.exit": 0})


def test_a_rank_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    (tmp_path / "trial.json").touch()
    missing = Rank(lease=1.0).begin(["/nowhere/python"], {"RANK": "0"}, str(tmp_path), str(tmp_path), None)
    assert "cannot start /nowhere/python" in missing
    absent = Rank(lease=1.0).begin(["true"], {"RANK": "0"}, str(tmp_path), str(tmp_path / "trial"), None)
    assert "does not see" in absent
    assert "launcher.shared_results: false" in absent


@pytest.mark.parametrize(
    "name",
    ["../rank-00000.log", "rank-00000.py", "trial.json", "rank-0.log", "rank-00000.log\n", "../rank-00000.jsonl"],
)
def test_nothing_but_a_ranks_files_is_taken_from_a_node(name: str) -> None:
    assert not RANK_FILE.fullmatch(name)
    assert not NODE_FILE.fullmatch(name.replace("rank-00000", "telemetry-host"))
