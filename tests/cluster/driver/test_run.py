"""The driver: what is missing is done, nothing finished is lost, whatever happens in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.driver.plan import Plan, plan
from cluster.driver.run import RETRIES, Cancelled, Summary, run, schedule
from cluster.launcher import Launch
from cluster.local.launcher import LocalLauncher
from cluster.results.folder import ResultsFolder
from cluster.study import file
from cluster.study.grid import grid
from cluster.study.schema import StudyError
from jobs.contract import exits, report
from jobs.contract import folder as contract_folder
from jobs.contract import outcome as results
from jobs.contract.trial import Trial
from tests.running import ranks_of, until

STUDY: dict[str, Any] = {
    "name": "tiny",
    "strategies": ["torch", "torch-ddp"],
    "workers": [1, 2],
    "scaling": ["strong"],
    "batch": {"global": 4},
    "steps": {"warmup": 1, "measured": 3, "compute_only": 0},
    "repeats": {"min": 2},
    "launcher": {"kind": "local", "oversubscribe": True},
}
ROOT = Path(__file__).parents[3]


class Silent:
    """A display that shows nothing and remembers what ended."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def planned(self, trials: Any, done: int) -> None: ...

    def tick(self, running: Any) -> None: ...

    def ended(self, outcome: results.Outcome) -> None:
        self.ids.append(outcome.trial_id)

    def left_out(self, trials: Any, why: str) -> None: ...


class Instant(LocalLauncher):
    """A launcher whose trials have ended as soon as they are started; those in `failing` have failed, and those
    in `ends` end as it says, launch by launch.

    It stands in for the real one only where the question is the driver's bookkeeping.
    """

    failing: frozenset[str] = frozenset()
    ends: dict[str, list[exits.Status]] = {}

    def start(self, launches: Any) -> None:
        self._ended = []
        for launch in launches:
            self._finish(launch)

    def _finish(self, launch: Launch) -> None:
        status: exits.Status = "failed" if launch.trial.id in self.failing else "ok"
        if self.ends.get(launch.trial.id):
            status = self.ends[launch.trial.id].pop(0)
        for rank in range(launch.trial.processes):
            contract_folder.append_steps(launch.folder, rank, [])
            report.write_rank_report(
                launch.folder,
                report.RankReport(
                    rank=rank,
                    host="h",
                    address="a",
                    pid=1,
                    cpus=[],
                    threads=1,
                    niceness=0,
                    startup_seconds=1.0,
                    import_seconds=1.0,
                    rendezvous_seconds=0.0,
                    build_seconds=0.0,
                    first_step_seconds=0.1,
                    train_started_unix=0.0,
                    train_ended_unix=1.0,
                    parameters=1,
                    device="cpu",
                    intra_op_threads=1,
                    inter_op_threads=1,
                ),
            )
        results.conclude(
            launch.folder,
            status=status,
            error="broken" if status != "ok" else "",
            launcher="local",
            order=launch.order,
            started=results.now(),
            exits=[],
        )
        self._ended.append(launch.trial.id)

    def wait(self, seconds: float) -> list[str]:
        ended, self._ended = getattr(self, "_ended", []), []
        return ended


def drive(
    results_at: Path,
    change: dict[str, Any] | None = None,
    precision: Any = lambda path: {},
    failing: frozenset[str] = frozenset(),
    ends: dict[str, list[exits.Status]] | None = None,
    kind: type[Instant] = Instant,
) -> tuple[Summary, ResultsFolder, Plan, list[str]]:
    study = file.check(STUDY | (change or {}))
    launcher = kind(study.launcher.options, results_at)
    launcher.failing, launcher.ends = failing, ends or {}
    planned = plan(study, launcher)
    folder = ResultsFolder(results_at)
    folder.open(study)
    display = Silent()
    try:
        summary = run(planned, folder, launcher, precision, display)
    finally:
        folder.close()
    return summary, folder, planned, display.ids


def test_launches_are_random_but_whole_rounds_follow_each_other() -> None:
    points = grid(file.check(STUDY | {"batch": {"global": 8}, "workers": [1, 2, 4, 8]}), 8).points
    trials = schedule(points, range(4), seed=0)
    rounds = [[t.point for t in trials[i : i + len(points)]] for i in range(0, len(trials), len(points))]
    assert all(sorted(r) == sorted(rounds[0]) for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1
    assert schedule(points, range(4), seed=0) == trials
    assert schedule(points, range(4), seed=1) != trials


def test_what_is_measured_is_not_measured_again(tmp_path: Path) -> None:
    assert drive(tmp_path)[0].ok == 6
    again, folder, _, ids = drive(tmp_path)
    assert (again.ok, again.done_before, ids, folder.moved) == (0, 6, [], [])


def test_what_is_measured_needs_no_room_on_the_disk(tmp_path: Path) -> None:
    victim = drive(tmp_path / "plan")[2].grid.points[1].id
    _, folder, planned, _ = drive(tmp_path / "r", failing=frozenset({victim}))
    one = planned.least_bytes(folder)  # a launch that failed is done again
    assert 0 < one < planned.least_bytes(ResultsFolder(tmp_path / "none")) / 2
    _, folder, planned, _ = drive(tmp_path / "r")
    assert planned.least_bytes(folder) == 0


def test_a_study_may_grow_and_only_the_new_is_done(tmp_path: Path) -> None:
    drive(tmp_path)
    summary, _, _, ids = drive(tmp_path, {"repeats": {"min": 3}, "workers": [1, 2, 4]})
    assert summary.done_before == 6
    assert Counter(i.rpartition("-r")[2] for i in ids) == {"00": 1, "01": 1, "02": 4}
    orders = [results.read_outcome(p).order for p in (tmp_path / "trials").iterdir()]
    assert sorted(orders) == list(range(12))


def test_another_study_is_refused_and_the_difference_is_named(tmp_path: Path) -> None:
    drive(tmp_path)
    with pytest.raises(StudyError, match=r"holds another study \(steps.measured: 3 there, 4 here\)"):
        drive(tmp_path, {"steps": {"warmup": 1, "measured": 4, "compute_only": 0}})
    with pytest.raises(StudyError, match="seed: 0 there, 5 here"):
        drive(tmp_path, {"seed": 5})
    with pytest.raises(StudyError, match=r"margin: 0\.05 there, 0\.2 here"):  # it was fixed before the run
        drive(tmp_path, {"margin": 0.2})


def test_a_study_from_before_a_key_existed_is_the_same_study_still(tmp_path: Path) -> None:
    """What was measured then had the default all the same."""
    drive(tmp_path)
    content = yaml.safe_load((tmp_path / "study.yaml").read_text())
    newer = ("layout", "learning_rate_rule", "learning_rate_warmup", "until_accuracy", "workload")
    old = {key: value for key, value in content.items() if key not in newer}
    old["resources"] = {"threads_per_worker": 1}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(old))
    assert drive(tmp_path)[0].done_before == 6
    with pytest.raises(StudyError, match=r"until_accuracy: None there, 0.9 here"):
        drive(tmp_path, {"until_accuracy": 0.9, "steps": STUDY["steps"] | {"at_most": 50}})


def test_a_folder_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StudyError, match="not a study's results"):
        drive(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_results_of_a_newer_format_are_refused(tmp_path: Path) -> None:
    drive(tmp_path)
    content = yaml.safe_load((tmp_path / "study.yaml").read_text())
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content | {"format": 99}))
    with pytest.raises(StudyError, match="format 99; this version reads up to 2"):
        drive(tmp_path)


def test_a_failed_launch_is_recorded_and_tried_again_next_time(tmp_path: Path) -> None:
    _, _, planned, _ = drive(tmp_path / "plan")
    victim = planned.grid.points[1].id
    first = drive(tmp_path / "r", failing=frozenset({victim}))[0]
    assert (first.ok, [o.trial_id for o in first.failed]) == (5, [victim])
    second, folder, _, ids = drive(tmp_path / "r")
    assert ids == [victim]
    assert second.done_before == 5
    (line,) = folder.moved
    assert line.startswith(f"{victim} had ended as failed: broken")
    assert len(list((tmp_path / "r" / "set-aside").iterdir())) == 1


def test_partial_and_damaged_trials_are_set_aside_by_name_and_done_anew(tmp_path: Path) -> None:
    _, _, planned, _ = drive(tmp_path)
    trials = tmp_path / "trials"
    ids = [p.id for p in planned.grid.points]
    (trials / ids[0] / "outcome.json").unlink()
    (trials / ids[1] / "outcome.json").write_text('{"format": 1')
    (trials / ids[2] / "trial.json").write_text("{}")
    (trials / "holiday.jpg").write_bytes(b"jpg")
    (trials / "foreign").mkdir()
    summary, folder, _, done = drive(tmp_path)
    assert (summary.done_before, sorted(done)) == (3, sorted(ids))
    said = "\n".join(folder.moved)
    assert "was not finished" in said
    assert "cannot be trusted" in said
    assert "no readable trial.json" in said
    assert len(folder.foreign()) == 2
    assert (trials / "holiday.jpg").exists()


def test_a_launch_whose_files_are_not_what_they_were_is_set_aside_by_their_name_and_done_anew(tmp_path: Path) -> None:
    _, _, planned, _ = drive(tmp_path)
    trials = tmp_path / "trials"
    edited, less, grown = (trials / p.id for p in planned.grid.points[:3])
    path = edited / "rank-00000.json"
    path.write_text(path.read_text().replace('"threads": 1', '"threads": 2'))
    (less / "rank-00000.jsonl").unlink()
    (grown / "telemetry-late.jsonl").write_text("{}\n")
    (grown / "rank-00000.log").write_text("x\n")
    summary, folder, _, done = drive(tmp_path)
    assert (summary.done_before, sorted(done)) == (4, sorted([edited.name, less.name]))
    assert any("rank-00000.json is not what it was" in line for line in folder.moved)
    assert any("rank-00000.jsonl is missing" in line for line in folder.moved)
    assert drive(tmp_path)[3] == []


def test_points_that_are_still_uncertain_get_more_launches_up_to_max(tmp_path: Path) -> None:
    _, _, planned, _ = drive(tmp_path / "plan")
    wide, narrow = planned.grid.points[0].point, planned.grid.points[1].point
    change = {"repeats": {"min": 2, "max": 5, "until_ci": 0.05}}
    asked = []

    def precision(path: Path) -> dict[str, float]:
        asked.append(path)
        there = len(list((path / "trials").glob(f"{narrow}-r*")))
        return {wide: 0.2, narrow: 0.2 if there < 3 else 0.01}

    _, _, _, ids = drive(tmp_path / "r", change, precision)
    counts = Counter(i.rpartition("-r")[0] for i in ids)
    assert (counts[wide], counts[narrow], counts[planned.grid.points[2].point]) == (5, 3, 2)
    resumed = drive(tmp_path / "r", change, precision)
    assert resumed[3] == []


def test_the_plan_says_what_is_left_out(tmp_path: Path) -> None:
    drive(tmp_path)
    content = json.loads((tmp_path / "plan.json").read_text())
    assert len(content["points"]) == 3
    assert content["repeats"] == 2
    assert "torch at more than 1 worker" in content["left_out"][0]


def command(study: Path, results_at: Path) -> list[str]:
    return [sys.executable, "-m", "scaling", "run", str(study), "--results", str(results_at)]


@pytest.fixture
def slow_study(tmp_path: Path) -> Path:
    path = tmp_path / "slow.yaml"
    steps = {"warmup": 1, "measured": 700, "compute_only": 0}
    path.write_text(yaml.safe_dump(STUDY | {"steps": steps, "workers": [2], "repeats": {"min": 1}}))
    return path


def finished(results_at: Path) -> set[str]:
    return {p.parent.name for p in results_at.glob("trials/*/outcome.json")}


@pytest.mark.usefixtures("bare_ranks")
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_driver_ended_at_any_moment_resumes_and_leaves_no_rank(
    blow: signal.Signals, slow_study: Path, tmp_path: Path
) -> None:
    results_at = tmp_path / "r"
    first = subprocess.Popen(command(slow_study, results_at), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    until(lambda: finished(results_at) and ranks_of(results_at))
    kept = {i: (results_at / "trials" / i / "outcome.json").read_text() for i in finished(results_at)}
    first.send_signal(blow)
    output, _ = first.communicate(timeout=20)
    until(lambda: not ranks_of(results_at), 5)
    if blow != signal.SIGKILL:
        assert first.returncode == (130 if blow == signal.SIGINT else 143)
        assert "Run the same command to go on" in output
    second = subprocess.run(command(slow_study, results_at), cwd=ROOT, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stdout + second.stderr
    assert len(finished(results_at)) == 2
    for trial_id, content in kept.items():
        assert (results_at / "trials" / trial_id / "outcome.json").read_text() == content
    assert "was not finished" in " ".join(second.stdout.split())


@pytest.mark.usefixtures("bare_ranks")
def test_a_second_driver_on_the_same_folder_is_refused(slow_study: Path, tmp_path: Path) -> None:
    results_at = tmp_path / "r"
    first = subprocess.Popen(command(slow_study, results_at), cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        until(lambda: ranks_of(results_at))
        second = subprocess.run(command(slow_study, results_at), cwd=ROOT, capture_output=True, text=True, check=False)
        assert second.returncode == 2
        assert f"in use by process {first.pid}" in second.stderr
        assert second.stderr.count("\n") == 1
    finally:
        os.kill(first.pid, signal.SIGTERM)
        first.wait(20)


def test_a_real_trial_of_each_point_is_ordered_as_launched(tmp_path: Path) -> None:
    study = file.check(STUDY | {"repeats": {"min": 1}})
    launcher = LocalLauncher(study.launcher.options, tmp_path)
    planned = plan(study, launcher)
    folder = ResultsFolder(tmp_path)
    folder.open(study)
    summary = run(planned, folder, launcher, lambda path: {}, Silent())
    folder.close()
    assert summary.ok == 3
    found = [results.read_outcome(p) for p in (tmp_path / "trials").iterdir()]
    by_order = sorted(found, key=lambda o: o.order)
    assert [o.trial_id for o in by_order] == [t.id for t in schedule(planned.grid.points, range(1), study.seed)]
    assert [o.started for o in by_order] == sorted(o.started for o in by_order)


def test_trials_of_a_point_are_named_alike() -> None:
    trial = Trial.of(strategy="torch", workers=1, global_batch=4, repeat=7)
    assert trial.id == f"{trial.point}-r07"


def test_every_launch_that_was_lost_is_tried_again_so_and_so_often(tmp_path: Path) -> None:
    study = file.check(STUDY)
    points = plan(study, Instant(study.launcher.options, tmp_path)).grid.points
    ids = [trial.id for trial in schedule(points, range(2), study.seed)]
    ends: dict[str, list[exits.Status]] = {trial_id: ["lost"] * RETRIES for trial_id in ids}
    ends[ids[0]].append("lost")
    summary, folder, _, _ = drive(tmp_path / "r", ends=ends)
    assert (summary.ok, [(o.trial_id, o.status) for o in summary.failed]) == (5, [(ids[0], "lost")])
    assert len(folder.moved) == len(list((tmp_path / "r" / "set-aside").iterdir())) == 6 * RETRIES
    assert drive(tmp_path / "r")[3] == [ids[0]]


@pytest.mark.parametrize("status", ["failed", "timeout", "cancelled", "lost"])
def test_only_what_ended_well_counts_as_done(status: exits.Status, tmp_path: Path) -> None:
    victim = drive(tmp_path / "plan")[2].grid.points[1].id
    assert drive(tmp_path / "r", ends={victim: [status] * (RETRIES + 1)})[0].failed[0].status == status
    again, folder, _, ids = drive(tmp_path / "r")
    assert (ids, again.ok, again.done_before) == ([victim], 1, 5)
    assert folder.moved[-1].startswith(f"{victim} had ended as {status}: broken")


def test_a_study_that_was_cancelled_can_be_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Silent.ended

    def cancel(display: Silent, outcome: results.Outcome) -> None:
        ended(display, outcome)
        ResultsFolder(tmp_path).want_cancel()

    with monkeypatch.context() as patched:
        patched.setattr(Silent, "ended", cancel)
        with pytest.raises(Cancelled):
            drive(tmp_path)
    again = drive(tmp_path)[0]
    assert (again.done_before, again.ok) == (1, 5)
