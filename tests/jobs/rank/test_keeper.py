"""The keeper of a rank, when things come together."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jobs.contract.environment import RankEnvironment
from jobs.contract.exits import read_exit
from jobs.contract.files import RankExit, rank_file
from jobs.contract.folder import write_trial
from jobs.contract.trial import Trial
from jobs.rank import keeper
from tests.running import until


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in keeper.ASKING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    trial = Trial.of(strategy="torch", workers=1, global_batch=4)
    write_trial(tmp_path / trial.id, trial)
    return tmp_path / trial.id


def keep(folder: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> RankExit:
    """What is on record after the life of a rank that is a line of shell."""
    rank = ["bash", "-c", command]
    monkeypatch.setattr(keeper, "start_worker", lambda *_: subprocess.Popen(rank, start_new_session=True))
    keeper.keep(folder, RankEnvironment(0, 1, 0, 1, 0, "127.0.0.1", 1), {})
    left = read_exit(folder, 0)
    assert left is not None
    return left


def test_a_rank_that_is_ended_together_with_its_keeper_was_asked_to_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM ends a step by a signal to each of its processes, one after the other."""
    left = keep(folder, f"(sleep 0.1; kill -TERM {os.getpid()}) & kill -TERM $$", monkeypatch)
    assert (left.exit_code, left.asked) == (-signal.SIGTERM, True)


@pytest.mark.parametrize("number", keeper.ASKING)
def test_a_keeper_that_is_asked_to_end_while_it_writes_how_its_rank_did_goes_on(
    number: signal.Signals, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = RankExit.write

    def asked_meanwhile(record: RankExit, where: Path) -> None:
        os.kill(os.getpid(), number)
        write(record, where)

    monkeypatch.setattr(RankExit, "write", asked_meanwhile)
    left = keep(folder, "exit 7", monkeypatch)
    assert (left.exit_code, left.asked) == (7, False)


def test_a_rank_that_has_failed_before_its_keeper_is_asked_to_end_failed_by_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = folder / "go"

    def asked(processes: list[subprocess.Popen[bytes]], seconds: float) -> None:
        go.touch()
        processes[0].wait(20)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(keeper, "sleep_until_a_death", asked)
    left = keep(folder, f"until [ -e {go} ]; do sleep 0.05; done; exit 7", monkeypatch)
    assert (left.exit_code, left.asked) == (7, False)


@pytest.mark.parametrize("why", ["built without", "old kernel", "no file left"])
def test_a_death_is_seen_where_it_cannot_be_waited_for(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pythons of conda and uv are built without pidfds, RHEL 8's kernel has none."""

    def refused(pid: int) -> int:
        raise OSError(errno.ENOSYS if why == "old kernel" else errno.EMFILE, "no")

    if why == "built without":
        monkeypatch.delattr(os, "pidfd_open")
    else:
        monkeypatch.setattr(os, "pidfd_open", refused)
    long, short = (subprocess.Popen(["sleep", seconds]) for seconds in ("60", "0.3"))
    try:
        began = time.monotonic()
        keeper.sleep_until_a_death([long, short], 20.0)
        assert 0.2 < time.monotonic() - began < 10
        assert short.poll() == 0
        began = time.monotonic()
        keeper.sleep_until_a_death([long], 0.2)
        assert 0.15 < time.monotonic() - began < 10
    finally:
        long.kill()
        long.wait()


def test_what_a_rank_has_started_ends_with_it() -> None:
    rank = subprocess.Popen(["bash", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True)
    assert rank.stdout is not None
    child = psutil.Process(int(rank.stdout.readline()))
    keeper.end([rank])
    try:
        until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 5)
    finally:
        rank.stdout.close()
        if child.is_running():
            child.kill()


def test_a_rank_inherits_what_the_shell_has_set_but_for_what_is_another_launchers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = folder / "python"
    python.write_text("#!/bin/sh\nenv\n")
    python.chmod(0o755)
    foreign = ["RANK", "LOCAL_RANK", "NODE_RANK", "MASTER_ADDR", "TF_CONFIG", "OMP_PROC_BIND", "GLOO_SOCKET_IFNAME"]
    foreign += ["HOROVOD_RANK", "HOROVOD_AUTOTUNE", "HOROVOD_TIMELINE", "WORLD_SIZE", "LOCAL_WORLD_SIZE"]
    foreign += ["GOMP_CPU_AFFINITY", "KMP_AFFINITY", "http_proxy", "KERAS_BACKEND", "TORCHDYNAMO_DISABLE"]
    for name in (*foreign, "LD_PRELOAD_NOTHING"):
        monkeypatch.setenv(name, "the shell's")
    assert keeper.start_worker(folder, 0, {"RANK": "0", "WORLD_SIZE": "1"}, str(python)).wait(20) == 0
    lines = rank_file(folder, 0, "log").read_text().splitlines()
    seen = dict(line.split("=", 1) for line in lines if "=" in line)
    assert (seen["RANK"], seen["WORLD_SIZE"], seen["LD_PRELOAD_NOTHING"]) == ("0", "1", "the shell's")
    assert seen.keys() & set(foreign) == {"RANK", "WORLD_SIZE"}


def test_a_sign_of_life_that_is_overdue_is_noticed(folder: Path) -> None:
    limits, alive = keeper.Bounds(trial=100.0, hang=7.0), rank_file(folder, 0, "alive")
    assert keeper.overstepped(folder, 0, limits, 1.0) == ""  # none was promised yet
    alive.touch()
    for late, said in ((-60.0, ""), (60.0, "gave no sign of life for limits.hang = 7 s")):
        os.utime(alive, (time.time() - late, time.time() - late))
        assert keeper.overstepped(folder, 0, limits, 1.0) == said
    assert keeper.overstepped(folder, 0, limits, 101.0) == "not done after limits.trial = 100 s"
