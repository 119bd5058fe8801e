"""The local launcher: what becomes of a trial when a rank dies, hangs or never ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from analysis.load import bent
from cluster.driver.plan import plan
from cluster.driver.run import run
from cluster.launcher import Launch, OptionsError
from cluster.local.launcher import LocalLauncher
from cluster.results.folder import ResultsFolder
from cluster.study import file
from jobs.contract.environment import LOOPBACK
from jobs.contract.files import rank_file
from jobs.contract.folder import write_trial
from jobs.contract.outcome import Outcome, read_outcome
from jobs.contract.parts import Limits, Steps
from jobs.contract.trial import Trial
from jobs.machine import cores
from jobs.machine.network import master_port
from tests.cluster.driver.test_run import Silent
from tests.running import launch, ranks_of, until

LONG = Steps(warmup=1, measured=100_000, compute_only=0)
SHORT = Steps(warmup=1, measured=3, compute_only=2)


def endless(strategy: str = "torch-ddp", **limits: float) -> Trial:
    bounds = Limits(**({"hang": 20.0} | limits))
    return Trial.of(strategy=strategy, workers=2, global_batch=4, steps=LONG, limits=bounds)


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[LocalLauncher]:
    made = LocalLauncher({"oversubscribe": True}, tmp_path)
    yield made
    made.close()
    assert not ranks_of(tmp_path)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short path, as a temporary folder's is."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def begin(launcher: LocalLauncher, trial: Trial, results: Path) -> tuple[Path, list[psutil.Process]]:
    """Start `trial` and wait until all its ranks are in their step loop."""
    folder = results / "trials" / trial.id
    write_trial(folder, trial)
    launcher.start([Launch(trial, folder, 0)])

    def stepping() -> list[psutil.Process]:
        assert launcher.wait(0.1) == []
        beats = [rank_file(folder, rank, "alive") for rank in range(trial.processes)]
        ready = all(b.exists() and b.stat().st_mtime < time.time() + trial.limits.hang + 1 for b in beats)
        return ranks_of(folder) if ready else []

    return folder, until(stepping)


def end(launcher: LocalLauncher, folder: Path, within: float) -> Outcome:
    began = time.monotonic()
    while not launcher.wait(0.5):
        assert time.monotonic() - began < within
    outcome = read_outcome(folder)
    assert outcome is not None
    assert not ranks_of(folder)
    return outcome


@pytest.mark.parametrize("strategy", ["torch-ddp", "tf-multiworker"])
def test_a_dead_rank_ends_the_trial_within_ten_seconds(strategy: str, launcher: LocalLauncher, tmp_path: Path) -> None:
    folder, ranks = begin(launcher, endless(strategy), tmp_path)
    os.kill(ranks[1].pid, signal.SIGKILL)
    outcome = end(launcher, folder, within=10)
    assert outcome.status == "failed"
    assert "SIGKILL" in outcome.error
    assert len(outcome.exits) == 2


@pytest.mark.usefixtures("bare_ranks")
def test_a_stopped_rank_is_noticed_by_the_one_that_waits_for_it(launcher: LocalLauncher, tmp_path: Path) -> None:
    folder, ranks = begin(launcher, endless(hang=3.0), tmp_path)
    os.kill(ranks[1].pid, signal.SIGSTOP)
    outcome = end(launcher, folder, within=20)
    # Not the one that waited for it, which its own watchdog has ended.
    (still,) = [r for r in (0, 1) if not any("jobs/workloads/meter.py" in line for line in outcome.exits[r].last_lines)]
    assert (outcome.status, outcome.error) == ("timeout", f"rank {still}: gave no sign of life for limits.hang = 3 s")
    assert "jobs/workloads/meter.py" in "\n".join(line for e in outcome.exits for line in e.last_lines)


@pytest.mark.usefixtures("bare_ranks")
def test_a_single_stopped_process_is_noticed_too(launcher: LocalLauncher, tmp_path: Path) -> None:
    folder, (rank,) = begin(launcher, endless("tf-mirrored", hang=3.0), tmp_path)
    os.kill(rank.pid, signal.SIGSTOP)
    outcome = end(launcher, folder, within=20)
    assert (outcome.status, "no sign of life" in outcome.error) == ("timeout", True)


@pytest.mark.usefixtures("bare_ranks")
def test_a_trial_that_does_not_end_is_ended_at_its_limit(launcher: LocalLauncher, tmp_path: Path) -> None:
    folder, _ = begin(launcher, endless(trial=8.0), tmp_path)
    outcome = end(launcher, folder, within=30)
    assert outcome.status == "timeout"
    assert "limits.trial = 8 s" in outcome.error


def test_a_rank_that_is_ended_at_a_limit_leaves_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = ["sleep", "600"]
    monkeypatch.setattr(
        "cluster.local.launcher.start_worker", lambda *_: subprocess.Popen(sleep, start_new_session=True)
    )
    trial = Trial.of(strategy="torch-ddp", workers=2, global_batch=4, limits=Limits(trial=0.2))
    outcome = launch(trial, tmp_path).outcome
    assert (outcome.status, [e.exit_code for e in outcome.exits]) == ("timeout", [-signal.SIGTERM, -signal.SIGTERM])


def test_a_rank_that_cannot_start_leaves_its_reason(launcher: LocalLauncher, tmp_path: Path) -> None:
    trial = Trial.model_validate(
        {"strategy": "torch", "workers": 1, "global_batch": 4, "data": {"kind": "mnist", "path": "/nowhere"}}
    )
    done = launch(trial, tmp_path)
    assert done.outcome.status == "failed"
    assert "exit code 1" in done.outcome.error
    assert "/nowhere: no such file" in done.outcome.error


@pytest.mark.usefixtures("bare_ranks")
def test_a_port_that_was_taken_meanwhile_costs_another_try_and_no_more_than_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ranks come to the other program's port first, which hangs up on them."""
    study = file.check({"name": "x", "strategies": ["torch-ddp"], "workers": [2], "scaling": ["strong"],
                        "batch": {"global": 4}, "steps": SHORT.model_dump(), "repeats": {"min": 2},
                        "launcher": {"kind": "local", "oversubscribe": True}})  # fmt: skip
    with socket.create_server((LOOPBACK, 0)) as thief:
        threading.Thread(target=hang_up, args=[thief], daemon=True).start()
        others = thief.getsockname()[1]
        ports = [others, others, 0, others, others]  # the second launch never gets another one
        monkeypatch.setattr("cluster.local.launcher.master_port", lambda: ports.pop(0) or master_port())
        folder, launcher = ResultsFolder(tmp_path), LocalLauncher(study.launcher.options, tmp_path)
        folder.open(study)
        summary = run(plan(study, launcher), folder, launcher, lambda path: {}, Silent())
        folder.close()
    assert (summary.ok, [outcome.status for outcome in summary.failed]) == (1, ["lost"])
    assert summary.failed[0].error == f"rank 0: another program has port {others} of 127.0.0.1"
    assert ["was lost: rank 0: another program has port" in line for line in folder.moved] == [True] * 3


def hang_up(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            server.accept()[0].close()


def test_what_an_ingest_trial_made_goes_with_it(launcher: LocalLauncher, tmp_path: Path, temporary: Path) -> None:
    trial = Trial.model_validate(
        {"workload": "ingest", "strategy": "torch", "workers": 1, "global_batch": 4, "files": {"count": 50},
         "steps": {"warmup": 1, "measured": 100_000, "compute_only": 0}}
    )  # fmt: skip
    begin(launcher, trial, tmp_path)
    assert len(list(temporary.rglob("*.png"))) == 50
    launcher.close()
    # But for PyTorch's cache, which serves the next launch too.
    assert [path.name for path in temporary.iterdir() if not path.name.startswith("torchinductor_")] == []


@pytest.mark.usefixtures("bare_ranks")
def test_ranks_die_with_their_launcher_however_it_dies(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.cluster.local.test_launcher import *\n"
        "results = Path(sys.argv[1]); made = LocalLauncher({'oversubscribe': True}, results)\n"
        "begin(made, endless(), results); print('begun', flush=True); time.sleep(600)"
    )
    root = Path(__file__).parents[3]
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        assert len(ranks_of(tmp_path)) == 2
        process.kill()
    until(lambda: not ranks_of(tmp_path), 5)


def test_each_worker_has_cores_and_threads_of_its_own(tmp_path: Path) -> None:
    done = launch(Trial.of(strategy="torch-ddp", workers=2, global_batch=4, steps=SHORT), tmp_path)
    reports = done.outcome.ranks
    assert [r.threads for r in reports] == [1, 1]
    assert [r.intra_op_threads for r in reports] == [1, 1]
    assert all(len(r.cpus) == 1 for r in reports)
    if len(cores.allowed_cores()) >= 2:
        assert set(reports[0].cpus).isdisjoint(reports[1].cpus)
    assert {r.device for r in reports} == {"cpu"}
    assert done.outcome.framework == "PyTorch"
    assert done.outcome.versions["torch"].startswith("2.13")


@pytest.mark.usefixtures("bare_ranks")
def test_ranks_that_must_share_cores_are_spread_over_them_and_that_is_told(tmp_path: Path) -> None:
    count = 2 * len(cores.allowed_cores())
    done = launch(Trial.of(strategy="torch-ddp", workers=count, global_batch=count, steps=SHORT), tmp_path)
    times = Counter(core for report in done.outcome.ranks for core in report.cpus)
    assert times == dict.fromkeys(cores.allowed_cores(), 2)
    said = bent.of(done.outcome.model_dump(mode="json"))["bent"]
    assert said == f"ranks that share cores ({count} ranks on {count // 2} cores of a host)"


IN_THE_SHELL = {
    "RANK": "7", "WORLD_SIZE": "9", "OMP_NUM_THREADS": "64", "GOMP_CPU_AFFINITY": "0", "OMP_PROC_BIND": "close",
    "TF_CONFIG": "{", "TF_USE_LEGACY_KERAS": "1", "KERAS_BACKEND": "torch", "TF_NUM_INTRAOP_THREADS": "7",
    "http_proxy": "http://127.0.0.1:9", "GRPC_PROXY": "http://127.0.0.1:9", "PYTHONWARNINGS": "error",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "NCCL_ALGO": "Ring",
}  # fmt: skip
KERAS = {"floatx": "float16", "image_data_format": "channels_first", "backend": "torch", "epsilon": 1e-7}


def test_what_the_shell_has_set_does_not_reach_the_ranks(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow's own ranks, which read the most of it; what is no library's to bend is kept and recorded.

    What they write into the temporary folder does not stay there.
    """
    for name, value in IN_THE_SHELL.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(json.dumps(KERAS))
    monkeypatch.setenv("HOME", str(tmp_path))
    done = launch(Trial.of(strategy="tf-multiworker", workers=2, global_batch=4, steps=SHORT), tmp_path)
    assert done.outcome.status == "ok", done.outcome.exits
    seen = done.outcome.environment
    assert (seen["OMP_NUM_THREADS"], seen["NCCL_ALGO"]) == ("1", "Ring")
    assert not seen.keys() & {
        "TF_CONFIG",
        "XLA_FLAGS",
        "GOMP_CPU_AFFINITY",
        "OMP_PROC_BIND",
        "TF_USE_LEGACY_KERAS",
        "http_proxy",
    }
    assert (seen["TMPDIR"], "TORCHINDUCTOR_CACHE_DIR" in seen) == (str(temporary), False)
    assert list(temporary.iterdir()) == []


def listening(processes: list[psutil.Process]) -> set[str]:
    found = set()
    for process in processes:
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                found.add(connection.laddr.ip)
    return found


@pytest.mark.parametrize("strategy", ["torch-ddp", pytest.param("torch-horovod", marks=pytest.mark.horovod)])
def test_nothing_listens_beyond_loopback(strategy: str, launcher: LocalLauncher, tmp_path: Path) -> None:
    _, ranks = begin(launcher, endless(strategy), tmp_path)
    assert listening(ranks) <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_more_workers_than_cores_are_refused_unless_asked_for(tmp_path: Path) -> None:
    many = 10 * len(cores.allowed_cores())
    trial = Trial.of(strategy="torch-ddp", workers=many, global_batch=many)
    (fault,) = LocalLauncher({}, tmp_path).refuse([trial])
    assert fault.startswith(f"workers: {many} ")
    assert LocalLauncher({"oversubscribe": True}, tmp_path).refuse([trial]) == []


def test_unknown_options_are_said(tmp_path: Path) -> None:
    with pytest.raises(OptionsError) as caught:
        LocalLauncher({"partition": "gpu", "oversubscribe": "yes"}, tmp_path)
    assert [f.split(":")[0] for f in caught.value.faults] == ["partition", "oversubscribe"]


@pytest.mark.parametrize(
    ("cores_there", "processes", "wanted", "shares"),
    [
        ([0, 1, 2, 3], 2, 2, [[0, 1], [2, 3]]),
        ([0, 1, 2, 3], 2, 1, [[0], [1]]),
        ([6], 1, 1, [[6]]),
    ],
)
def test_cores_are_shared_out_without_overlap(
    cores_there: list[int], processes: int, wanted: int, shares: list[list[int]]
) -> None:
    assert [cores.share(cores_there, r, processes, wanted) for r in range(processes)] == shares
