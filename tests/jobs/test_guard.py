"""The keeper of a rank, when things come together."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import guard
from jobs.files import RankExit
from jobs.rendezvous import RankEnvironment
from jobs.results import read_exit, write_trial
from jobs.trial import Trial


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in guard.ASKING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    trial = Trial(strategy="torch", workers=1, global_batch=4)
    write_trial(tmp_path / trial.id, trial)
    return tmp_path / trial.id


def keep(folder: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> RankExit:
    """What is on record after the life of a rank that is a line of shell."""
    rank = ["bash", "-c", command]
    monkeypatch.setattr(guard, "start_worker", lambda *_: subprocess.Popen(rank, start_new_session=True))
    guard.keep(folder, RankEnvironment(0, 1, 0, 1, 0, "127.0.0.1", 1), {})
    left = read_exit(folder, 0)
    assert left is not None
    return left


def test_a_rank_that_is_ended_together_with_its_keeper_was_asked_to_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM ends a step by a signal to each of its processes, one after the other."""
    left = keep(folder, f"(sleep 0.1; kill -TERM {os.getpid()}) & kill -TERM $$", monkeypatch)
    assert (left.exit_code, left.asked) == (-signal.SIGTERM, True)


@pytest.mark.parametrize("number", guard.ASKING)
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
