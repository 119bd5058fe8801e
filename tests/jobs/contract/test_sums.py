"""What an outcome keeps of its files, and that no full disk and no slow file system makes it say what is not so."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.contract import outcome
from jobs.contract.files import TRIAL, rank_file
from jobs.contract.folder import append_steps, write_trial
from jobs.contract.report import write_rank_report
from jobs.contract.trial import Trial
from scaling import examine
from tests import measured

ROOT = Path(__file__).parents[3]
TELEMETRY = "telemetry-host.jsonl"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A launch of two ranks that has ended and has no outcome yet."""
    trial = Trial.of(strategy="torch-ddp", workers=2, global_batch=8)
    home = tmp_path / "trials" / trial.id
    write_trial(home, trial)
    for rank in (0, 1):
        append_steps(home, rank, [{"phase": "train", "step": 0, "seconds": 0.1}])
        write_rank_report(home, measured.report(rank, "h", {}))
        for ending in ("log", "alive", "exit"):
            rank_file(home, rank, ending).write_text("{}\n")
    (home / TELEMETRY).write_text('{"kind":"start"}\n')
    return home


HOW: dict[str, Any] = {"status": "ok", "error": "", "launcher": "local", "order": 0, "exits": []}
CONCLUDE = f"from jobs.contract import outcome; conclude = lambda home: outcome.conclude(home, started='', **{HOW!r})"


def conclude(home: Path) -> outcome.Outcome:
    return outcome.conclude(home, started=outcome.now(), **HOW)


def test_an_outcome_has_the_sums_of_what_it_stands_on_and_of_nothing_else(folder: Path) -> None:
    conclude(folder)
    kept = json.loads((folder / "outcome.json").read_text())["sums"]
    ranks = {rank_file(folder, rank, ending).name for rank in (0, 1) for ending in ("json", "jsonl")}
    assert set(kept) == {TRIAL, TELEMETRY} | ranks
    for name, each in kept.items():
        content = (folder / name).read_bytes()
        assert each == {"length": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_signs_of_life_and_logs_go_on_and_telemetry_grows(folder: Path) -> None:
    written = conclude(folder)
    rank_file(folder, 0, "alive").touch()
    for name in ("rank-00000.log", "rank-00001.exit", TELEMETRY):
        with (folder / name).open("a") as file:
            file.write("more\n")
    (folder / "telemetry-other.jsonl").write_text("late\n")
    assert outcome.untrue(folder, written) == ""


def test_a_gap_in_what_another_machine_is_writing_is_not_taken_for_content(folder: Path) -> None:
    begin = (folder / TELEMETRY).read_bytes()
    (folder / TELEMETRY).write_bytes(begin + bytes(100) + b'{"kind":"end"}\n')
    written = conclude(folder)
    (folder / TELEMETRY).write_bytes(begin + b" " * 100 + b'{"kind":"end"}\n')
    assert outcome.untrue(folder, written) == ""


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_what_a_shared_file_system_shows_late_is_waited_for(ending: str, folder: Path, tmp_path: Path) -> None:
    late = rank_file(folder, 1, ending)
    late.rename(tmp_path / "elsewhere")
    timer = threading.Timer(0.3, (tmp_path / "elsewhere").rename, [late])
    timer.start()
    written = conclude(folder)
    timer.join()
    assert written.status == "ok"
    assert written.sums is not None
    assert late.name in written.sums
    assert outcome.untrue(folder, written) == ""


def test_half_a_file_is_not_what_is_summed(folder: Path) -> None:
    late = rank_file(folder, 1, "jsonl")
    whole = late.read_bytes()
    late.write_bytes(whole[:-10])

    def rest() -> None:
        with late.open("ab") as file:
            file.write(whole[-10:])

    timer = threading.Timer(0.3, rest)
    timer.start()
    written = conclude(folder)
    timer.join()
    assert outcome.untrue(folder, written) == ""


@pytest.mark.parametrize(
    ("ending", "said"), [("json", "no report from rank 1"), ("jsonl", "no step lines from rank 1")]
)
def test_what_never_comes_is_not_said_to_be_there(
    ending: str, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome, "SETTLE_SECONDS", 0.2)
    rank_file(folder, 1, ending).unlink()
    began = time.monotonic()
    written = conclude(folder)
    assert (written.status, written.error) == ("failed", said)
    assert time.monotonic() - began < 20


def test_a_full_disk_leaves_no_half_outcome_and_names_the_file(folder: Path) -> None:
    """A limit on the size of files stands in for the disk: writing ends in the middle, as there."""
    code = (
        f"import resource, sys; from pathlib import Path; {CONCLUDE}\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: conclude(Path(sys.argv[1]))\n"
        "except OSError as error: print(error.filename, error.strerror)"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{folder / 'outcome.json'} File too large\n"
    assert outcome.read_outcome(folder) is None
    assert not list(folder.glob(".outcome*"))
    assert conclude(folder).status == "ok"


@pytest.mark.parametrize("moment", ["hashlib.file_digest", "os.fsync", "pathlib.Path.replace"])
def test_killed_before_its_outcome_is_in_place_a_launch_was_not_finished(moment: str, folder: Path) -> None:
    code = (
        f"import hashlib, os, pathlib, sys; {CONCLUDE}\n"
        f"{moment} = lambda *_: os.kill(os.getpid(), 9)\n"
        "conclude(pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert outcome.read_outcome(folder) is None
    assert examine(folder)[0] == "unfinished"
    assert conclude(folder).status == "ok"


def test_a_file_system_that_cannot_take_the_outcome_ends_the_command_in_one_line(tmp_path: Path) -> None:
    made = measured.study(tmp_path / "full", ["torch"])
    (made / "plan.json").unlink()
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
    code = limit + "sys.argv = ['scaling', 'import', *sys.argv[1:]]; import scaling; scaling.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, made, "--results", tmp_path / "to"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "File too large" in done.stderr


def test_sums_of_a_newer_version_are_no_fault(folder: Path) -> None:
    conclude(folder)
    content = json.loads((folder / "outcome.json").read_text())
    content["sums"]["new-kind-of-file.bin"] = {"length": 1, "sha256": "0" * 64, "blake3": "x"}
    content["sums"]["../../secret"] = {"length": 1, "sha256": "0" * 64}
    content["sums"][TRIAL]["blake3"] = "x"
    (folder / "outcome.json").write_text(json.dumps(content))
    read = outcome.read_outcome(folder)
    assert read is not None
    assert outcome.untrue(folder, read) == ""
