"""A rank's folder for temporary files: whose it is, and who removes it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.rank import scratch
from jobs.rank.keeper import end, start_worker
from jobs.rank.scratch import Scratch
from tests.running import until

KEEPS = "import time; from jobs.rank import scratch; print(scratch.make().path, flush=True); time.sleep(600)"


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short path, as a temporary folder's is, and nothing is left there."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)
        assert os.listdir(folder) == []


def new() -> Scratch:
    found = scratch.make()
    assert found is not None
    return found


def test_what_a_killed_keeper_leaves_goes_with_the_next_and_what_is_in_use_stays(temporary: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KEEPS], stdout=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdout is not None
        left = Path(keeper.stdout.readline().strip())
        (left / "images").mkdir()
        (left / "images" / "000000.png").write_bytes(b"x" * 1000)
        first = new()
        assert left.is_relative_to(temporary)
        assert left.exists()  # its keeper lives
        keeper.kill()
    second = new()
    assert not left.exists()
    assert os.path.exists(first.path)
    first.remove()
    assert os.path.exists(second.path)
    second.remove()


@pytest.mark.parametrize("name", ["short", "d" * 70])
def test_what_another_machine_has_there_stays(name: str, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its locks may not be seen here. Another name stands for another machine, and both have free locks."""
    below, short = temporary / name, temporary / "s"
    below.mkdir()
    short.mkdir()
    monkeypatch.setenv("TMPDIR", str(below))
    monkeypatch.setattr(scratch, "SHORT", str(short))
    here = scratch.machine()
    monkeypatch.setattr(scratch, "machine", lambda: "node2")
    theirs = new()
    os.close(theirs.lock)
    monkeypatch.setattr(scratch, "machine", lambda: here)
    new().remove()
    assert Path(theirs.variables()["TMPDIR"]).is_dir()
    monkeypatch.setattr(scratch, "machine", lambda: "node2")
    new().remove()
    assert os.listdir(below) == os.listdir(short) == []
    below.rmdir()
    short.rmdir()


def test_a_container_knows_the_machine_that_it_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(scratch.machine()) == 12
    before = scratch.machine()
    monkeypatch.setattr(os, "uname", lambda: None)
    assert scratch.machine() == before


@pytest.mark.parametrize("ends", ["by itself", "killed", "asked"])
def test_a_rank_leaves_nothing_in_the_temporary_folder_however_it_ends(
    ends: str, temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    lives = {"by itself": "", "killed": "kill -9 $$", "asked": "sleep 600"}[ends]
    program.write_text(
        f'#!/bin/sh\nmkdir $TMPDIR/made; echo >$TMPDIR/made/file; echo "$TORCHINDUCTOR_CACHE_DIR"\n{lives}\n'
    )
    program.chmod(0o755)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    log = tmp_path / "rank-00000.log"
    worker = start_worker(tmp_path, 0, {}, str(program))
    until(lambda: log.read_text().endswith("\n"), 10)
    assert len(list(temporary.glob("scaling-*/*"))) == 1
    if ends != "asked":
        worker.wait(10)
    end([worker])
    # What is compiled serves the next launch too: it is where PyTorch would have put it.
    assert log.read_text().startswith(f"{temporary}/torchinductor_")
    end([worker])


def test_a_rank_that_cannot_be_started_leaves_no_folder(temporary: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        start_worker(tmp_path, 0, {}, "/nowhere/python")


def test_a_folder_that_others_may_write_to_is_not_used(temporary: Path) -> None:
    home = temporary / f"scaling-{os.getuid()}"
    home.mkdir()
    home.chmod(0o777)
    assert scratch.make() is None
    home.rmdir()
    home.symlink_to("/tmp")
    assert scratch.make() is None
    home.unlink()


def test_where_paths_are_too_long_for_sockets_ranks_have_a_short_way_there(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep, short = temporary / ("d" * 70), temporary / "s"
    deep.mkdir()
    short.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.setattr(scratch, "SHORT", str(short))
    given = new()
    told = Path(given.variables()["TMPDIR"])
    assert told.is_relative_to(short)
    (told / "file").touch()
    assert [path.name for path in deep.glob("*/*/*")] == ["file"]
    shutil.rmtree(given.path)  # as by another that knows of the folder alone
    again = new()
    assert not told.is_symlink()
    for each in (again, given):
        each.remove()
    deep.rmdir()
    short.rmdir()


def test_where_there_are_no_locks_there_is_no_folder(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert scratch.make() is None
    monkeypatch.setattr(tempfile, "tempdir", None)
    with scratch.temporary_folder() as folder:
        assert Path(folder).is_relative_to(temporary)
    (temporary / f"scaling-{os.getuid()}").rmdir()


@pytest.mark.parametrize("name", ["short", "d" * 70])
def test_other_programs_of_ours_have_such_a_folder_too(
    name: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = temporary / name
    below.mkdir()
    monkeypatch.setenv("TMPDIR", str(below))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with scratch.temporary_folder() as folder:
        Path(folder, "file").touch()
        assert Path(folder).is_relative_to(below)
    below.rmdir()
