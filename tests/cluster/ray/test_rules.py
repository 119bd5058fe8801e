"""The Ray launcher's rules, which need no cluster: what fits, what a rank does by itself, what is refused."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from cluster.launcher import Launch, OptionsError, State
from cluster.ray import rank
from cluster.ray.capacity import Need, Node, places
from cluster.ray.child import for_ray, own_cluster
from cluster.ray.connection import Cluster
from cluster.ray.launcher import RayLauncher, _probe, _Refused, _Running
from cluster.ray.options import parse
from cluster.ray.rank import NICENESS, Rank, found_here, look
from cluster.ray.reaper import end_after
from cluster.ray.trial import NODE_FILE, RANK_FILE, Lost, TrialOnRay, Unfit
from cluster.results.folder import ResultsFolder
from cluster.study.file import check
from cluster.study.schema import StudyError
from jobs.contract.environment import LOOPBACK, RankEnvironment, rank_variables
from jobs.contract.folder import write_trial
from jobs.machine import provenance
from jobs.machine.cores import claim
from jobs.machine.network import master_port
from jobs.rank.raised import in_a_line
from tests.cluster.ray.trials import trial
from tests.running import until

ROOT = Path(__file__).parents[3]
HERE = "h" * 56
ALONE = {"RANK": "0", "MASTER_ADDR": LOOPBACK, "MASTER_PORT": "0"}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def on_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an actor has of Ray: the id of its node."""
    context = SimpleNamespace(get_node_id=lambda: HERE)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get_runtime_context=lambda: context))


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


def test_fewer_cpus_than_a_rank_computes_on_are_refused(tmp_path: Path) -> None:
    launcher = RayLauncher({"cpus_per_worker": 1}, tmp_path)
    launcher._known = [Node("a", "h", 4, 0)]
    (fault,) = launcher.refuse([trial("torch", 1, threads_per_worker=2)])
    assert fault == "launcher.cpus_per_worker: 1 is less than 2 threads"
    (fault,) = launcher.refuse([trial("torch", 1, workload="ingest", precision="float32", readers=3)])
    assert fault == "launcher.cpus_per_worker: 1 is less than 3 readers"


def test_readers_of_files_have_cpus_too() -> None:
    options = parse({})
    assert options.need(trial("torch", 1, workload="ingest", precision="float32", readers=3)).cpus == 3
    assert options.need(trial("tf-mirrored", 2, threads_per_worker=2)).cpus == 4
    assert parse({"cpus_per_worker": 4}).need(trial("tf-mirrored", 2)).cpus == 8


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


@pytest.mark.usefixtures("on_a_node")
def test_a_rank_of_which_nobody_asks_ends_by_itself(tmp_path: Path) -> None:
    """As on a node that was cut off from the driver and from Ray."""
    actor, sleep = Rank(lease=0.5), [sys.executable, "-c", "import time; time.sleep(600)"]
    (tmp_path / "trial.json").touch()
    assert actor.begin(HERE, sleep, ALONE, str(tmp_path), str(tmp_path), None) == ""
    heard = Rank.news(actor, 10.0)
    assert heard is not None
    assert (heard["code"], heard["asked"]) == (-signal.SIGTERM, True)


LEADER = """
import subprocess, time
subprocess.Popen(["sleep", "60"])
subprocess.Popen(["sleep", "60"], process_group=0)
print(flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("waits", [True, False], ids=["waits for an end", "looks for it"])
def test_of_a_cluster_of_ours_nothing_stays_that_is_of_its_session(
    waits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever group a process has put itself into, and whoever has ended the leader."""
    if not waits:
        monkeypatch.delattr(os, "pidfd_open")
    (tmp_path / "cluster").mkdir()
    with subprocess.Popen([sys.executable, "-c", LEADER], stdout=subprocess.PIPE, start_new_session=True) as leader:
        assert leader.stdout is not None
        leader.stdout.readline()
        children = psutil.Process(leader.pid).children()
        leader.kill()
    try:
        end_after(leader.pid, tmp_path / "cluster")
        assert len(children) == 2
        assert not [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]
        assert not (tmp_path / "cluster").exists()
    finally:
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


ACTOR = """
import os, subprocess, sys
variables = os.environ | {"SCALING_PARENT_PID": str(os.getpid())}
subprocess.run([sys.executable, "-c", *sys.argv[1:]], env=variables)
"""
KEEPER = """
import sys, time
from cluster.ray import rank
from jobs.rank import keeper
keeper.main = lambda folder, variables: (print("kept", flush=True), time.sleep(600))
rank.main(sys.argv[1:])
"""


def test_a_keeper_dies_with_its_actor(tmp_path: Path) -> None:
    """Of a rank that is alone no other fails for its sake, and nobody else would end it."""
    write_trial(tmp_path / "trial", trial("torch", 1))
    variables = os.environ | rank_variables(RankEnvironment())
    command = [sys.executable, "-c", ACTOR, KEEPER, str(tmp_path / "trial")]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE) as actor:
        assert actor.stdout is not None
        assert actor.stdout.readline() == b"kept\n"
        (keeper,) = psutil.Process(actor.pid).children()
        actor.kill()
        try:
            until(lambda: not keeper.is_running() or keeper.status() == psutil.STATUS_ZOMBIE, 3)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                keeper.kill()


@pytest.mark.usefixtures("on_a_node")
def test_a_rank_lists_its_own_files_alone(tmp_path: Path) -> None:
    """In a folder that ranks share, those of others come and go while it looks."""
    (tmp_path / "trial.json").touch()
    (tmp_path / "rank-00001.json").touch()
    (tmp_path / ".rank-00001.exit.7").symlink_to(tmp_path / "gone")
    actor, leave = Rank(lease=10.0), ["touch", str(tmp_path / "rank-00000.exit")]
    assert actor.begin(HERE, leave, ALONE, str(tmp_path), str(tmp_path), None) == ""
    heard = Rank.news(actor, 10.0)
    assert heard is not None
    assert (heard["code"], heard["files"]) == (0, {"rank-00000.exit": 0})


@pytest.mark.parametrize("case", ["a file", "gone before it is used", "gone before it is locked", "never"])
def test_a_rank_has_a_folder_on_its_node_whoever_tidies_up_there(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in: another rank that removes the empty folder of all, a keeper that takes this one for nobody's."""
    home = tmp_path / f"scaling-{os.getuid()}"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made, moments = tempfile.mkdtemp, [case]

    def make(**options: Any) -> str:
        moment = moments.pop() if moments else ""
        if moment == "gone before it is used" or (case == "never" and options.get("dir")):
            home.rmdir()
            moments.extend([case] if case == "never" else [])
        folder = made(**options)
        if moment == "gone before it is locked":
            os.rmdir(folder)
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", make)
    if case == "a file":
        home.touch()
    folder = Path(Rank(lease=1.0)._folder_here())
    assert folder.is_dir()
    assert folder.parent == (tmp_path if case in ("a file", "never") else home)


@pytest.mark.usefixtures("on_a_node")
def test_a_rank_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    (tmp_path / "trial.json").touch()
    missing = Rank(lease=1.0).begin(HERE, ["/nowhere/python"], ALONE, str(tmp_path), str(tmp_path), None)
    assert "cannot start /nowhere/python" in missing
    absent = Rank(lease=1.0).begin(HERE, ["true"], ALONE, str(tmp_path), str(tmp_path / "trial"), None)
    assert "does not see" in absent
    assert "launcher.shared_results: false" in absent


@pytest.mark.usefixtures("on_a_node")
def test_ranks_are_not_sent_to_a_port_that_another_has(tmp_path: Path) -> None:
    (tmp_path / "trial.json").touch()
    with socket.create_server((LOOPBACK, 0)) as other:
        taken = ALONE | {"MASTER_PORT": str(other.getsockname()[1])}
        with pytest.raises(RuntimeError, match=r"port \d+ of 127\.0\.0\.1: Address already in use"):
            Rank(lease=1.0).begin(HERE, ["true"], taken, str(tmp_path), str(tmp_path), None)
        assert Rank(lease=1.0).begin(HERE, ["true"], taken | {"RANK": "1"}, str(tmp_path), str(tmp_path), None) == ""
    free = ALONE | {"MASTER_PORT": str(master_port())}
    assert Rank(lease=1.0).begin(HERE, ["true"], free, str(tmp_path), str(tmp_path), None) == ""


@pytest.mark.usefixtures("on_a_node")
@pytest.mark.parametrize("address", ["198.51.100.7", "fd00::dead", "no-such-host.invalid"])
def test_a_node_that_does_not_have_the_address_that_ray_knows_is_told(address: str, tmp_path: Path) -> None:
    """Another port would not help."""
    (tmp_path / "trial.json").touch()
    place = ALONE | {"MASTER_ADDR": address, "MASTER_PORT": "4711"}
    fault = Rank(lease=1.0).begin(HERE, ["true"], place, str(tmp_path), str(tmp_path), None)
    assert fault.startswith(f"cannot listen at port 4711 of {address}: ")
    assert "--node-ip-address" in fault


@pytest.mark.usefixtures("on_a_node")
def test_an_actor_that_ray_has_moved_is_not_the_rank_that_was_numbered(
    tmp_path: Path,
) -> None:
    (tmp_path / "trial.json").touch()
    assert Rank(1.0).begin(HERE, ["true"], ALONE, str(tmp_path), str(tmp_path), None) == ""
    with pytest.raises(RuntimeError, match="node aaaaaaaa has died, and Ray has put this actor on hhhhhhhh"):
        Rank(1.0).begin("a" * 56, ["true"], ALONE, str(tmp_path), str(tmp_path), None)


@pytest.mark.parametrize(
    "name",
    ["../rank-00000.log", "rank-00000.py", "trial.json", "rank-0.log", "rank-00000.log\n", "../rank-00000.jsonl"],
)
def test_nothing_but_a_ranks_files_is_taken_from_a_node(name: str) -> None:
    assert not RANK_FILE.fullmatch(name)
    assert not NODE_FILE.fullmatch(name.replace("rank-00000", "telemetry-host"))


def test_what_a_node_lacks_is_said() -> None:
    here, variables = str(ROOT), dict(os.environ)
    command = [sys.executable, "-P", "-m", "cluster.ray.rank", "--look"]
    assert look(command, variables, here, None)["versions"] == found_here()["versions"]
    assert look(command, variables, here, __file__)["versions"] == found_here()["versions"]
    assert look(["/nowhere/python"], variables, here, None) == {"fault": "there is no /nowhere/python"}
    assert look(command, variables, "/nowhere", None) == {"fault": "there is no /nowhere"}
    assert look(command, variables, here, "/nowhere/.look") == {
        "fault": "does not see /nowhere; set launcher.shared_results: false, or use a folder that all nodes share"
    }
    absent = look([sys.executable, "-c", "import no_such_module"], variables, here, None)
    assert absent["fault"].endswith("cannot run this project: ModuleNotFoundError: No module named 'no_such_module'")


def test_nodes_are_alike_only_if_all_files_are_that_a_rank_may_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file of jobs, in whatever room, and what an actor starts."""
    for folder in ("jobs", "cluster"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    own = tmp_path / Path(rank.__file__).relative_to(ROOT)
    monkeypatch.setattr(rank, "__file__", str(own))
    monkeypatch.setattr(provenance, "versions", dict)  # takes as long as all the rest, for each file

    def seen() -> str:
        return str(found_here()["versions"]["scaling's files"])

    before, files = seen(), [own, *tmp_path.glob("jobs/**/*.py")]
    assert tmp_path / "jobs" / "strategies" / "torch" / "ddp.py" in files
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content + b"\n")
        assert seen() != before, file
        file.write_bytes(content)
    (tmp_path / "cluster" / "driver" / "run.py").write_bytes(b"")  # of the driver's own
    assert seen() == before


def test_what_nodes_are_shown_of_the_results_folder_is_not_left_behind(tmp_path: Path) -> None:
    with _probe(tmp_path / "not" / "there" / "yet") as probe:
        assert Path(probe).parent == tmp_path
        assert os.path.exists(probe)
    (tmp_path / "results").mkdir()
    with _probe(tmp_path / "results") as probe:
        assert Path(probe).parent == tmp_path / "results"
    assert [path.name for path in tmp_path.rglob("*")] == ["results"]
    (tmp_path / "file").touch()
    with pytest.raises(_Refused) as refused, _probe(tmp_path / "file" / "results"):
        pass
    assert refused.value.args[0] == [f"{tmp_path / 'file'}: cannot be written to (Not a directory); use --results"]


def begin_on(nodes: list[Node], patch: pytest.MonkeyPatch, folder: Path) -> TrialOnRay:
    """A trial of four ranks on the second and third of three nodes, up to where its ranks would be started."""
    begun, ids = on_ray(folder, count=4), [node.id for node in nodes[1:]]
    stand_ins = {
        "ray": {},
        "ray.util.placement_group": {
            "placement_group_table": lambda group: {"bundles_to_node_id": dict(enumerate(2 * ids))}
        },
        "ray.util.scheduling_strategies": {"PlacementGroupSchedulingStrategy": None},
    }
    for module, content in stand_ins.items():
        patch.setitem(sys.modules, module, SimpleNamespace(**content))
    cluster = SimpleNamespace(nodes=lambda: nodes, differences=lambda *_: (["enough is seen"], []))
    patch.setattr(begun, "_cluster", cluster)
    return begun


def test_ranks_are_numbered_node_by_node_wherever_ray_has_put_their_bundles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = begin_on([Node(name * 8, name, 2, 0) for name in "abc"], monkeypatch, tmp_path)
    with pytest.raises(Unfit, match="enough is seen"):
        begun._begin(None)
    assert [begun._names[rank][0] for rank in range(4)] == ["b", "b", "c", "c"]


def test_ranks_on_another_host_are_not_sent_to_a_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But all nodes may be one host, as in Ray's own tests."""
    nodes = [Node(name * 8, address, 2, 0) for name, address in zip("abc", ["a", "127.0.1.1", "10.0.0.3"], strict=True)]
    begun = begin_on(nodes, monkeypatch, tmp_path)
    monkeypatch.setattr(begun._cluster, "differences", lambda *_: ([], []))
    with pytest.raises(Unfit, match=r"Ray knows node 127\.0\.1\.1 \(bbbbbbbb\) by an address of its loopback"):
        begun._begin(None)


def test_what_is_gone_with_its_node_is_lost_and_what_took_too_long_is_not(tmp_path: Path) -> None:
    trial = on_ray(tmp_path, count=2)
    assert trial._fate(overdue=True)[0] == "timeout"
    assert trial._fate(overdue=False) == ("failed", "the ranks ended and left no word of why")
    trial._names, trial._lost = {0: "n1", 1: "n2"}, {1: "ActorDiedError"}
    assert trial._fate(overdue=False) == ("lost", "rank 1 on node n2: ActorDiedError")


def test_a_file_is_brought_whole_and_by_its_own_rank_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial, asked = on_ray(tmp_path, count=2), list[str]()
    read = SimpleNamespace(remote=lambda name: (asked.append(name), b"whole")[1])
    trial._actors = [SimpleNamespace(read=read)] * 2
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda ref: ref))
    for name, content in (("rank-00000.log", b"wh"), ("rank-00000.json", b"is so"), ("rank-00001.log", b"of 1")):
        (trial._folder / name).write_bytes(content)
    sizes = dict.fromkeys(("rank-00000.log", "rank-00000.json", "rank-00001.log", "telemetry-n1.jsonl", "other"), 5)
    trial._fetch(0, sizes)
    assert asked == ["rank-00000.log", "telemetry-n1.jsonl"]
    assert (trial._folder / "rank-00000.log").read_bytes() == b"whole"
    assert (trial._folder / "rank-00001.log").read_bytes() == b"of 1"


def test_trials_that_run_at_the_same_time_all_say_so(tmp_path: Path) -> None:
    launcher = RayLauncher({"concurrent": True}, tmp_path)
    for name in "abc":
        launch = Launch(trial("torch", 1), tmp_path / name, 0)
        launcher._running[name] = _Running(launch, State("starting"), "")
    for name, text in (("a", "running"), ("c", "waiting"), ("b", "running")):
        launcher._take({"is": "state", "trial": name, "text": text, "reason": "", "nodes": "n1"})
    assert {name: running.beside_another for name, running in launcher._running.items()} == {
        "a": True, "b": True, "c": False
    }  # fmt: skip


def test_the_token_of_a_cluster_of_ours_is_for_this_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        variables = own_cluster(tmp_path)
    finally:
        os.umask(before)
    token = Path(variables["RAY_AUTH_TOKEN_PATH"])
    assert token.stat().st_mode & 0o777 == 0o600
    assert len(token.read_text()) == 64


def test_who_asks_for_news_shows_that_somebody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    actor = Rank(lease=30.0)
    for ask in (lambda: actor.news(0.0), actor.end):
        monkeypatch.setattr(actor, "_heard", -1e9)
        ask()
        assert actor._heard > 0


def on_ray(folder: Path, count: int) -> TrialOnRay:
    """A trial that has not begun."""
    what = trial("torch-ddp", count)
    write_trial(folder / "trial", what)
    need = {"count": count, "cpus": 1, "gpus": 0, "spread": False}
    order = {"trial": what.id, "folder": str(folder / "trial"), "need": need, "shared": True, "wait": 1.0}
    return TrialOnRay(Cluster({"environment": {}, "cwd": "/"}), lambda **message: None, order)


@pytest.mark.parametrize(("trouble", "status"), [(Unfit("wrong"), "failed"), (Lost("gone"), "lost")])
def test_only_what_another_try_may_mend_is_lost(
    trouble: Exception, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(self: TrialOnRay, group: Any) -> None:
        raise trouble

    monkeypatch.setattr(TrialOnRay, "_room", lambda self: None)
    monkeypatch.setattr(TrialOnRay, "_begin", begin)
    said: dict[str, Any] = {}
    what = trial("torch", 1)
    write_trial(tmp_path / "trial", what)
    need = {"count": 1, "cpus": 1, "gpus": 0, "spread": False}
    order = {"trial": what.id, "folder": str(tmp_path / "trial"), "need": need, "shared": True, "wait": 1.0}
    TrialOnRay(Cluster({"environment": {}, "cwd": "/"}), lambda **message: said.update(message), order).run()
    assert (said["status"], said["error"]) == (status, str(trouble))


def test_a_node_with_another_niceness_or_other_packages_is_named() -> None:
    here = {"torch": "2.13.0"}
    cluster = Cluster({"address": "h:1", "environment": {}, "cwd": "/", "versions": here})
    mine = int(cluster.variables[NICENESS])
    assert cluster._compare({"versions": here, "niceness": mine}) == []
    (fault,) = cluster._compare({"versions": {"horovod": "0.28.1"} | here, "niceness": mine})
    assert fault == "horovod is 0.28.1 there and absent here; install the same on all nodes"
    (fault,) = cluster._compare({"versions": {}, "niceness": mine})
    assert fault == "torch is absent there and 2.13.0 here; install the same on all nodes"
    (fault,) = cluster._compare({"versions": here, "niceness": mine + 15})
    assert f"niceness {mine + 15} there and {mine} here; start Ray with RAY_worker_niceness={mine}" in fault


def test_an_error_in_an_actor_is_told_by_its_cause() -> None:
    from ray.exceptions import RayTaskError

    error = RayTaskError("begin", "Traceback (most recent call last):\n …", PermissionError(13, "Permission denied"))
    assert in_a_line(error) == "PermissionError: [Errno 13] Permission denied"
    assert in_a_line(ValueError("\n\x1b[36m first \nsecond")) == "ValueError: first"


def test_unknown_options_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(OptionsError) as caught:
        RayLauncher({"partition": "x", "placement": "nice", "wait": 0, "address": "ray://h:10001"}, tmp_path)
    assert sorted(f.split(":")[0] for f in caught.value.faults) == ["address", "partition", "placement", "wait"]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("auto", "RAY_ADDRESS: 'auto' is not an address; "),
        ("http://127.0.0.1:8265", "RAY_ADDRESS: 'http://127.0.0.1:8265' is a dashboard's; "),
        ("https://me:hunter2@head:8265", "RAY_ADDRESS: 'https://***@head:8265' is a dashboard's; "),
        ("ray://head:10001", "RAY_ADDRESS: 'ray://head:10001' is Ray Client's; "),
        ("me:hunter2@head:6379", "RAY_ADDRESS: '***@head:6379' is not an address; "),
    ],
)
def test_a_wrong_address_is_blamed_on_the_variable_it_stands_in(
    address: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(StudyError) as caught:
        RayLauncher({}, tmp_path)
    (fault,) = caught.value.faults
    assert fault.startswith(said)
    assert fault.endswith(", or unset RAY_ADDRESS")
    assert RayLauncher({"address": "head:6379"}, tmp_path)._address == "head:6379"


def test_ray_has_what_the_shell_has_set_for_it_but_no_other_runtime_or_cluster() -> None:
    shell = {
        "RAY_memory_monitor_refresh_ms": "0", "RAY_ADDRESS": "head:6379", "RAY_AUTH_TOKEN": "x", "PATH": "/bin",
        "RAY_RUNTIME_ENV_HOOK": "ray._private.runtime_env.uv_runtime_env_hook.hook", "PYTHONWARNINGS": "error",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "1", "http_proxy": "http://127.0.0.1:9", "CUDA_VISIBLE_DEVICES": "1",
    }  # fmt: skip
    ours, theirs = for_ray(shell, own=True), for_ray(shell, own=False)
    kept = {"RAY_memory_monitor_refresh_ms": "0", "PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1"}
    not_by_uv = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "KERAS_HOME": "/dev/null", "PYTHONIOENCODING": "utf-8"}
    assert ours == kept | not_by_uv
    assert theirs == ours | {"RAY_AUTH_TOKEN": "x"}
    ask = "from ray._private import ray_constants as ray; print(ray.RAY_ENABLE_UV_RUN_RUNTIME_ENV)"
    said = subprocess.run(
        [sys.executable, "-c", ask], env=os.environ | ours, capture_output=True, text=True, check=True
    )
    assert said.stdout == "False\n"  # as Ray itself reads it


def test_what_a_killed_driver_left_for_nodes_to_see_keeps_nobody_out(tmp_path: Path) -> None:
    with _probe(tmp_path) as probe:
        left = Path(probe).name
    (tmp_path / left).touch()
    study = check({"name": "t", "strategies": ["torch"], "workers": [1], "batch": {"global": 8}, "scaling": ["strong"]})
    folder = ResultsFolder(tmp_path)
    folder.open(study)
    folder.close()
    (tmp_path / "of somebody else").touch()
    with pytest.raises(StudyError):
        folder.open(study)
