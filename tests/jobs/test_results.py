"""The files of one trial."""

import json
from pathlib import Path

import pytest

from jobs import results
from jobs.files import RankExit, rank_file
from jobs.trial import Trial

TRIAL = Trial(strategy="torch-ddp", workers=2, global_batch=64)


def report(rank: int) -> results.RankReport:
    return results.RankReport(
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
    results.write_trial(made, TRIAL)
    for rank in (0, 1):
        results.append_steps(made, rank, [{"phase": "train", "step": 0, "seconds": 0.1}])
        results.write_rank_report(made, report(rank))
    return made


def conclude(folder: Path, status: results.Status = "ok") -> results.Outcome:
    return results.conclude(
        folder,
        status=status,
        error="",
        launcher="local",
        order=0,
        started=results.now(),
        exits=[RankExit(rank=rank, exit_code=0) for rank in (0, 1)],
    )


def test_an_outcome_is_what_the_ranks_left(folder: Path) -> None:
    written = conclude(folder)
    assert results.read_outcome(folder) == written
    assert (written.status, written.test_accuracy, written.startup_seconds) == ("ok", 0.97, 3.0)
    assert (written.framework, written.communication) == ("PyTorch", "native")


def test_no_outcome_claims_more_than_its_files_hold(folder: Path) -> None:
    rank_file(folder, 1, "json").unlink()
    written = conclude(folder)
    assert (written.status, written.error) == ("failed", "no report from rank 1")


def test_a_trial_without_outcome_did_not_finish(folder: Path) -> None:
    assert results.read_outcome(folder) is None


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
    with pytest.raises(results.UnreadableOutcome, match=said):
        results.read_outcome(folder)


def test_an_outcome_of_another_trial_is_not_taken(folder: Path) -> None:
    conclude(folder)
    content = json.loads((folder / "outcome.json").read_text())
    (folder / "outcome.json").write_text(json.dumps(content | {"trial_id": "other"}))
    with pytest.raises(results.UnreadableOutcome, match="belongs to trial other"):
        results.read_outcome(folder)


def test_keys_of_a_later_version_are_kept_not_refused(folder: Path) -> None:
    conclude(folder)
    content = json.loads((folder / "outcome.json").read_text())
    (folder / "outcome.json").write_text(json.dumps(content | {"energy_joules": 3.0}))
    found = results.read_outcome(folder)
    assert found is not None
    assert found.model_extra == {"energy_joules": 3.0}


def test_the_last_lines_of_a_log_are_for_people(folder: Path) -> None:
    log = rank_file(folder, 0, "log")
    log.write_bytes(b"x" * 50_000 + b"\n\n" + b"\xff\nValueError: no\n")
    assert results.last_lines(folder, 0, 1) == ["ValueError: no"]
    assert all(len(line) <= 500 for line in results.last_lines(folder, 0))
    assert results.last_lines(folder, 7) == []
