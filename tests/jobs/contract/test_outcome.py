"""The files of one trial."""

import json
import os
from pathlib import Path

import pytest

from jobs.contract import exits as contract_exits
from jobs.contract import folder as contract_folder
from jobs.contract import outcome
from jobs.contract import report as contract_report
from jobs.contract.files import RankExit, rank_file, write_atomically
from jobs.contract.trial import Trial

TRIAL = Trial.of(strategy="torch-ddp", workers=2, global_batch=64)


def report(rank: int) -> contract_report.RankReport:
    return contract_report.RankReport(
        rank=rank,
        host="h",
        address="127.0.0.1",
        pid=1,
        cpus=[rank],
        threads=1,
        niceness=0,
        startup_seconds=2.0 + rank,
        import_seconds=1.0,
        rendezvous_seconds=0.1,
        build_seconds=0.1,
        first_step_seconds=0.5,
        train_started_unix=0.0,
        train_ended_unix=1.0,
        test_accuracy=0.97 if rank == 0 else None,
        parameters=387466,
        device="cpu",
        intra_op_threads=1,
        inter_op_threads=1,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / TRIAL.id
    contract_folder.write_trial(made, TRIAL)
    for rank in (0, 1):
        contract_folder.append_steps(made, rank, [{"phase": "train", "step": 0, "seconds": 0.1}])
        contract_report.write_rank_report(made, report(rank))
    return made


def conclude(folder: Path, status: contract_exits.Status = "ok") -> outcome.Outcome:
    return outcome.conclude(
        folder,
        status=status,
        error="",
        launcher="local",
        order=0,
        started=outcome.now(),
        exits=[RankExit(rank=rank, exit_code=0) for rank in (0, 1)],
    )


def test_an_outcome_is_what_the_ranks_left(folder: Path) -> None:
    written = conclude(folder)
    assert outcome.read_outcome(folder) == written
    assert (written.status, written.test_accuracy, written.startup_seconds) == ("ok", 0.97, 3.0)
    assert (written.framework, written.communication) == ("PyTorch", "native")


def test_no_outcome_claims_more_than_its_files_hold(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "SETTLE_SECONDS", 0.1)
    rank_file(folder, 1, "json").unlink()
    written = conclude(folder)
    assert (written.status, written.error) == ("failed", "no report from rank 1")


def test_a_trial_without_outcome_did_not_finish(folder: Path) -> None:
    assert outcome.read_outcome(folder) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not readable as JSON"),
        ("[]", "not a JSON object"),
        ('{"format": 99}', "format 99"),
        ('{"format": 1}', "Field required"),
    ],
)
def test_an_outcome_that_cannot_be_trusted_is_said(folder: Path, content: str, said: str) -> None:
    (folder / "outcome.json").write_text(content)
    with pytest.raises(outcome.UnreadableOutcome, match=said):
        outcome.read_outcome(folder)


def test_an_outcome_of_another_trial_is_not_taken(folder: Path) -> None:
    conclude(folder)
    content = json.loads((folder / "outcome.json").read_text())
    (folder / "outcome.json").write_text(json.dumps(content | {"trial_id": "other"}))
    with pytest.raises(outcome.UnreadableOutcome, match="belongs to trial other"):
        outcome.read_outcome(folder)


def test_keys_of_a_later_version_are_kept_not_refused(folder: Path) -> None:
    conclude(folder)
    content = json.loads((folder / "outcome.json").read_text())
    (folder / "outcome.json").write_text(json.dumps(content | {"energy_joules": 3.0}))
    found = outcome.read_outcome(folder)
    assert found is not None
    assert found.model_extra == {"energy_joules": 3.0}


def test_the_last_lines_of_a_log_are_for_people(folder: Path) -> None:
    log = rank_file(folder, 0, "log")
    log.write_bytes(b"x" * 50_000 + b"\n\n" + b"\xff\nValueError: no\n")
    assert contract_exits.last_lines(folder, 0, 1) == ["ValueError: no"]
    assert all(len(line) <= 500 for line in contract_exits.last_lines(folder, 0))
    assert contract_exits.last_lines(folder, 7) == []


def test_a_file_is_the_old_one_until_all_of_the_new_one_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen, sync = tmp_path / "outcome.json", [], os.fsync
    write_atomically(path, "old")

    def look(descriptor: int) -> None:
        sync(descriptor)
        seen.append(path.read_text())

    monkeypatch.setattr(os, "fsync", look)
    write_atomically(path, "new")
    assert (seen, path.read_text()) == (["old"], "new")

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "half of it")
    assert path.read_text() == "new"


HANGS = "gave no sign of life for limits.hang = 30 s"


@pytest.mark.parametrize(
    ("exits", "status", "blamed"),
    [
        # Who died first, not who is first in number.
        ([RankExit(0, 1, ended_unix=5.0), RankExit(1, -9, ended_unix=3.0)], "failed", "rank 1 was killed by SIGKILL"),
        # Who overstepped a limit, though a keeper ends it only after the others have died of it.
        ([RankExit(0, 1, ended_unix=3.0), RankExit(1, -9, HANGS, ended_unix=5.0)], "timeout", f"rank 1: {HANGS}"),
        # Who died by itself, not who was asked to end.
        ([RankExit(0, -15, asked=True, ended_unix=3.0), RankExit(1, 1, ended_unix=5.0)], "failed", "rank 1 ended with"),
        ([RankExit(0, -15, asked=True, ended_unix=3.0), RankExit(1, 0, ended_unix=5.0)], None, ""),
        ([RankExit(0, 0, ended_unix=3.0)], None, ""),  # the other may yet fail
        ([RankExit(0, 0, ended_unix=3.0), RankExit(1, 0, ended_unix=5.0)], "ok", ""),
    ],
)
def test_the_rank_is_blamed_of_which_the_others_died(
    exits: list[RankExit], status: str | None, blamed: str, folder: Path
) -> None:
    for given in (exits, exits[::-1]):
        found = contract_exits.verdict(folder, given, 2)
        if status is None:
            assert found is None
        else:
            assert found is not None
            assert (found[0], found[1].startswith(blamed)) == (status, True), found


def test_a_trial_that_is_set_aside_twice_at_once_is_kept_twice(folder: Path) -> None:
    home = folder.parent / "results" / "trials" / folder.name
    for content in ("first", "second"):
        home.mkdir(parents=True)
        (home / "note").write_text(content)
        contract_folder.set_aside(home, "was lost")
    kept = [(entry / "note").read_text() for entry in sorted((home.parents[1] / "set-aside").iterdir())]
    assert kept == ["first", "second"]
