"""Where the base case runs beside the ranks, and why not elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.driver.plan import launcher_of, plan
from cluster.local.launcher import LocalLauncher
from cluster.results.folder import ResultsFolder
from cluster.study import file
from tests.cluster.driver.test_run import STUDY as PLAIN
from tests.cluster.driver.test_run import drive

STEPS = {"warmup": 1, "measured": 12, "compute_only": 12, "blocks": 3}
STUDY: dict[str, Any] = PLAIN | {
    "scaling": ["strong", "weak"],
    "batch": {"global": 8, "per_worker": 4},
    "steps": STEPS,
    "repeats": {"min": 1},
}


def decided(results: Path, beside: Any = None, **change: Any) -> tuple[dict[str, Any], list[str]]:
    study = file.check(STUDY | change)
    made = plan(study, launcher_of(study, results), beside)
    held = {f"{p.strategy} {p.workers} {p.global_batch}": p.base_batches for p in made.grid.points if p.base_batches}
    return held, [note for note in made.notes() if "beside" in note]


def test_it_trains_the_whole_batch_in_strong_scaling_and_a_workers_in_weak(tmp_path: Path) -> None:
    assert decided(tmp_path) == ({"torch-ddp 1 8": (8,), "torch-ddp 1 4": (4,), "torch-ddp 2 8": (8, 4)}, [])
    assert decided(tmp_path, scaling=["weak"])[0] == {"torch-ddp 1 4": (4,), "torch-ddp 2 8": (4,)}


@pytest.mark.parametrize(
    ("change", "points", "why"),
    [
        ({"strategies": ["torch-ddp"]}, "1", "plain torch is not among the strategies"),
        ({"workers": [8], "scaling": ["strong"]}, "8", "its turn would take 67% of a round"),
        ({"launcher": {"kind": "slurm", "nodes": 2}, "workers": [2]}, "2", "the ranks need not be on one host"),
    ],
)
def test_where_it_cannot_its_own_launches_stand_in_and_it_is_said(
    change: dict[str, Any], points: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.slurm.launcher.SlurmLauncher.refuse", lambda *_: [])
    monkeypatch.setattr("cluster.slurm.launcher.SlurmLauncher.largest", lambda *_: 4)
    held, (note,) = decided(tmp_path, **change)
    assert held == {}
    assert note.startswith(f"no base case beside torch-ddp-n{points}-b8")
    assert note.endswith(why)


def test_never_is_never_and_a_study_without_blocks_has_none(tmp_path: Path) -> None:
    assert decided(tmp_path, steps=STEPS | {"base_beside": "never"}) == ({}, [])
    assert decided(tmp_path, steps={"warmup": 1, "measured": 12}) == ({}, [])


def test_what_was_decided_holds_when_the_study_is_run_again(tmp_path: Path, bare_ranks: None) -> None:
    assert drive(tmp_path, STUDY, kind=LocalLauncher)[0].ok == 5  # type: ignore[arg-type]
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["format"] == 2
    assert sorted(map(str, written["base_beside"].values())) == ["[4]", "[8, 4]", "[8]"]
    assert (tmp_path / "study.yaml").read_text().startswith("format: 2\n")
    kept = ResultsFolder(tmp_path).base_beside()
    assert decided(tmp_path, kept) == decided(tmp_path)
    other = dict.fromkeys(kept, "there was no room")
    held, (note,) = decided(tmp_path, other)
    assert held == {}
    assert note.endswith("there was no room")
    again = drive(tmp_path, STUDY)[0]
    assert (again.done_before, again.ok) == (5, 0)


def test_a_strategy_of_one_process_has_it_too(tmp_path: Path) -> None:
    held, _ = decided(tmp_path, strategies=["tf", "tf-mirrored"], scaling=["weak"], workers=[2])
    assert held == {"tf-mirrored 2 8": (4,)}


def test_what_is_no_decision_is_made_anew(tmp_path: Path) -> None:
    for odd in (5, ["8"], None):
        (tmp_path / "plan.json").write_text(json.dumps({"base_beside": {"a": odd, "b": [8], "c": "why"}}))
        assert ResultsFolder(tmp_path).base_beside() == {"b": [8], "c": "why"}
