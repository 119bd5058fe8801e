"""What was left out, bent or shared goes with the number: terminal, `scaling status`, page, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

import scaling
from analysis.load.results import load
from analysis.measures.efficiency import estimate
from analysis.report import facts, standing
from analysis.report.terminal import show_results
from analysis.verdicts.compare import compare
from analysis.workloads.accuracy import times
from analysis.workloads.infer import calls
from analysis.workloads.ingest import readings
from tests.analysis import generate, observed
from tests.kept import files
from tests.kept.pages import visible

WAYS = (generate.Way("torch"), generate.Way("torch-ddp", strong=generate.amdahl(0.1)), generate.Way("tf"),
        generate.Way("tf-multiworker", strong=generate.amdahl(0.2)))  # fmt: skip
QUOTA = "a CPU quota held 1 of 3 launches back, in 956 of 957 periods"
SHORT = "fewer cores than threads in a rank (1 core for 2 threads) in 3 of 3 launches"
SHARED = "ranks that share cores (2 ranks on 1 core of a host) in 1 of 3 launches"
OF_BASE = "its base case: a CPU quota held 1 of 3 launches back, in 956 of 957 periods"
TORCH = "launches differ in torch (2.8.0 / 2.9.0)"
STOOD = "1 of 3 launches stood still for "
ALONE = "1 of 3 launches stood still in compute-only steps: exposed communication is too small"


def reports(home: Path, **said: Any) -> None:
    """Let each rank of a launch say this; a function says it of a rank's number."""
    ranks = json.loads((home / "outcome.json").read_text())["ranks"]
    for rank in ranks:
        rank |= {name: value(rank["rank"]) if callable(value) else value for name, value in said.items()}
    observed.edit(home / "outcome.json", ranks=ranks)


def stop(home: Path, phase: str) -> None:
    """A step of eight seconds among milliseconds, in the first rank's file."""
    path = home / "rank-00000.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    [row for row in rows if row["phase"] == phase and not row.get("warmup")][2]["seconds"] += 8.0
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def told(folder: Path) -> list[str]:
    results, few = standing.read(folder)
    return standing.lines(results, few=few)


def planned(folder: Path, repeats: int, **more: Any) -> None:
    points = list(dict.fromkeys(home.name.rpartition("-r")[0] for home in observed.homes(folder)))
    content = {"format": 1, "points": points, "repeats": repeats, **more}
    (folder / "plan.json").write_text(json.dumps(content))


@dataclass(frozen=True)
class Shown:
    """All that is shown of a results folder."""

    folder: Path
    terminal: str
    status: str
    page: str
    judged: dict[str, Any]

    def table(self, name: str) -> list[dict[str, str]]:
        path = self.folder / "report" / "tables" / f"{name}.csv"
        return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def said(*command: object) -> str:
    done = CliRunner().invoke(scaling.app, [*map(str, command)], env={"COLUMNS": "400"})
    assert done.exit_code == 0, done.output
    return done.stdout


def show(folder: Path) -> Shown:
    """Without pictures, which take most of the time and say nothing of this."""
    console = Console(file=io.StringIO(), width=400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.report.terminal.write_all", lambda *_: [])
        patch.setattr("analysis.report.page.draw", lambda *_: {})
        show_results(console, folder)
    page = visible((folder / "report" / "index.html").read_text(encoding="utf-8"))
    judged = json.loads(said("claims", folder, "--json"))
    assert isinstance(console.file, io.StringIO)
    return Shown(folder, console.file.getvalue(), said("status", folder), page, judged)


@pytest.fixture(scope="module")
def bent(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Two frameworks on one and two workers, three launches a point, and something wrong with many of them."""
    folder = tmp_path_factory.mktemp("bent") / "r"
    generate.study(folder, ways=WAYS, workers=(1, 2), scaling=("strong",), repeats=3, measured=20)

    def at(point: str, repeat: int | None = None) -> list[Path]:
        return sorted(folder.glob(f"trials/{point}-b*-r{'*' if repeat is None else f'{repeat:02d}'}"))

    for home in at("tf-multiworker-n1"):
        reports(home, cpus=[0], threads=2)
    reports(at("torch-ddp-n2", 1)[0], cpus=[0], threads=1)
    reports(at("torch-n1", 0)[0], quota_periods=957, throttled_periods=956, throttled_seconds=45.0)
    for repeat, version in enumerate(("2.8.0", "2.8.0", "2.9.0")):
        reports(at("torch-ddp-n1", repeat)[0], versions={"torch": version})
    stop(at("tf-n1", 2)[0], "train")
    stop(at("tf-multiworker-n2", 0)[0], "compute_only")
    planned(
        folder,
        3,
        left_out=["strong scaling at 3 workers: is not divisible"],
        data=[{"path": "/photos", "files": 9, "left_out": {"GIF files": 2}}],
        not_available={"jax": "jax is not installed"},
    )
    return show(folder)


@pytest.mark.parametrize(
    ("strategy", "workers", "warning"),
    [
        ("tf-multiworker", 1, SHORT), ("torch-ddp", 2, SHARED), ("torch", 1, QUOTA), ("torch-ddp", 1, TORCH),
        ("tf", 1, STOOD), ("tf-multiworker", 2, ALONE), ("torch-ddp", 2, OF_BASE),
    ],
)  # fmt: skip
def test_what_is_wrong_with_launches_stands_beside_their_number(
    strategy: str, workers: int, warning: str, bent: Shown
) -> None:
    """In the table on the terminal, in that of the page, in its CSV file and in what machines read."""
    (row,) = [r for r in bent.table("estimates") if (r["strategy"], r["workers"]) == (strategy, str(workers))]
    assert warning in row["warning"]
    letters = [line.partition(": ")[0] for line in bent.terminal.splitlines() if line[1:].startswith(f": {warning}")]
    (line,) = [li for li in bent.terminal.splitlines() if f" {strategy} " in li and f" {workers} " in li and "±" in li]
    assert len(letters) == 1
    assert letters[0] in line.split()[-1]
    assert warning in bent.page
    if "base case" not in warning:
        scales = next(claim for claim in bent.judged["claims"] if claim["id"] == "tf-scales-better")
        told = {point: texts for point, texts in scales["warnings"].items() if any(warning in text for text in texts)}
        # The verdict stands on two workers and on one of each framework's base case.
        stands = workers == 2 or strategy in ("torch", "tf")
        assert [point.partition("-n")[0] for point in told] == ([strategy] if stands else [])


@pytest.mark.parametrize(
    "kind", ["fewer cores than threads", "share cores", "a CPU quota held", "torch (2.8", "stood still"]
)
def test_status_counts_the_warnings_of_launches_that_have_ended(kind: str, bent: Shown) -> None:
    lines = [line for line in bent.status.splitlines() if kind in line]
    assert lines
    assert all(line.startswith("warning, 1 of 6 points: ") for line in lines)


def test_what_was_left_out_is_said_wherever_numbers_are(bent: Shown) -> None:
    for text in (bent.terminal, bent.status, bent.page):
        assert "strong scaling at 3 workers: is not divisible" in text
        assert "jax is not installed" in text
        assert "2 GIF files" in text
    assert bent.judged["left_out"] == [
        "left out: strong scaling at 3 workers: is not divisible", "not available: jax: jax is not installed",
        "left out of /photos: 2 GIF files",
    ]  # fmt: skip
    assert [row["why"] for row in bent.table("not-measured")] == [
        "strong scaling at 3 workers: is not divisible", "jax is not installed",
    ]  # fmt: skip


def test_a_comparison_says_what_to_warn_of_on_either_side(bent: Shown, tmp_path: Path) -> None:
    clean = generate.study(tmp_path / "clean", ways=WAYS, workers=(1, 2), scaling=("strong",), repeats=3)
    warned = compare(load(clean), load(bent.folder)).warned
    assert any(line.startswith("in B, 1 of 6 points: ranks that share cores") for line in warned)
    assert not any(line.startswith("in A") for line in warned)


def test_step_lines_of_a_huge_folder_are_not_read_for_status(bent: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """What outcomes say is told all the same, and that the rest is not."""
    monkeypatch.setattr(standing, "LARGEST_BYTES", 1000)
    monkeypatch.setattr("analysis.load.trial.read_steps", lambda home: pytest.fail("read"))
    said = "\n".join(told(bent.folder))
    assert "share cores" in said
    assert "stood still" not in said
    assert "steadiness" not in said
    assert "step lines were not read" in said


@pytest.mark.parametrize(("name", "table"), [("infer", "inference"), ("ingest", "ingest"), ("accuracy", "accuracy")])
def test_calls_files_and_time_to_accuracy_carry_the_same_warnings(name: str, table: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(files.RESULTS / name, folder)
    home = observed.homes(folder)[0]
    trial = json.loads((home / "trial.json").read_text())
    reports(home, threads=2, cpus=[0], quota_periods=50, throttled_periods=49)
    stop(home, trial.get("workload", "train"))
    shown = show(folder)
    for warning in (
        "fewer cores than threads in a rank (1 core for 2 threads)",
        "a CPU quota held 1 of ",
        "stood still for ",
    ):
        assert any(warning in row["warning"] for row in shown.table(table)), warning
        kind = warning.partition(" for ")[0] if "still" in warning else warning.replace("1 of ", "some launches")
        assert kind in shown.status
        assert shown.page.count(warning) >= 1
        assert warning in shown.terminal


def test_results_that_do_not_say_are_not_warned_of(tmp_path: Path) -> None:
    folder = generate.study(
        tmp_path / "old", ways=WAYS[:2], workers=(1, 2), scaling=("strong",), repeats=5, measured=40
    )
    assert set(estimate(load(folder))["warning"]) == {""}
    assert not any("warning" in line for line in told(folder))


def test_every_table_of_points_has_the_warnings_of_its_rows(bent: Shown) -> None:
    for name in ("estimates", "breakdown", "steps", "ranks", "limits", "claims"):
        assert any(row["warning"] for row in bent.table(name)), name
    (row,) = [r for r in bent.table("steps") if (r["strategy"], r["workers"]) == ("tf-multiworker", "1")]
    assert SHORT in row["warning"]
    of_rank = [r for r in bent.table("ranks") if r["trial_id"].startswith("torch-ddp-n2")]
    assert of_rank
    assert all(SHARED in row["warning"] for row in of_rank)
    assert sum(SHORT.removesuffix(" in 3 of 3 launches") in row["warning"] for row in bent.table("launches")) == 3


def test_page_and_status_count_the_same_points(tmp_path: Path) -> None:
    """Two batches alike make a point that is strong and weak; it is one."""
    folder = generate.study(
        tmp_path / "r", ways=WAYS[:2], workers=(1, 2), batch_global=64, per_worker=64, repeats=5, measured=20
    )
    for home in observed.homes(folder):
        reports(home, cpus=[0, 1], threads=1, niceness=5)
    planned(folder, 5)
    for repeat in range(5):
        stop(sorted(folder.glob(f"trials/torch-ddp-n2-*-r{repeat:02d}"))[0], "train")
    shown = show(folder)
    points = load(folder).trials["point"].n_unique()
    assert f"warning, {points} of {points} points: ranks that give way" in shown.status
    assert "ranks that give way to others (niceness 5) in some launches: all points" in shown.page
    assert shown.page.count(f"some launches stood still, not on all ranks at once: 1 of {points} points") == 1


def test_status_says_which_launches_are_not_used_and_hashes_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(files.RESULTS / "spoilt", tmp_path / "spoilt"))
    monkeypatch.setattr("jobs.contract.folder.sum_of", lambda path: pytest.fail("read again"))
    said_so = said("status", folder)
    assert "not used: torch-ddp-n2-b32-06592845-r01: rank-00001.jsonl line 16" in " ".join(said_so.split())
    assert said_so.count("outcomes carried sums of their files") == 1
    results = load(folder)
    assert facts.left_out(results)[0].startswith("not used: ")


OTHER = {"cpu": "Other CPU", "system": "Linux 6.1"}


@pytest.mark.parametrize("moved", ["tf", "torch"])
def test_a_verdict_says_what_its_sides_do_not_share(moved: str, tmp_path: Path) -> None:
    """One framework measured on another machine: each point is alike in itself, and as its base case."""
    folder = generate.study(tmp_path / "r", ways=WAYS, workers=(1, 2), scaling=("strong",), repeats=5, measured=20)
    for home in observed.homes(folder):
        there = home.name.startswith(moved)
        own = {"tensorflow": "2.21"} if there else {"tensorflow": "2.16", "torch": "2.9"}
        versions = {"python": "3.12" if there else "3.11", **own}
        environment = {"TF_CPP_MIN_LOG_LEVEL": "1"} if there else {}
        hardware = OTHER if there else {"cpu": "Example CPU 9000", "system": "Linux 5.1"}
        observed.edit(home / "outcome.json", versions=versions)
        reports(home, versions=versions, hardware=hardware, environment=environment)
    planned(folder, 5)
    shown = show(folder)
    assert not any("other hardware" in row["warning"] for row in shown.table("estimates"))
    machines = "the sides ran on different hardware ("
    differs = "the sides differ in python (3.11 / 3.12), system (Linux 5.1 / Linux 6.1)"
    scales = next(claim for claim in shown.judged["claims"] if claim["id"] == "tf-scales-better")
    for comparison in scales["comparisons"]:
        assert any(text.startswith(machines) for text in comparison["warnings"])
        assert differs in comparison["warnings"]
    of_claim = [row for row in shown.table("claims") if row["claim"] == "tf-scales-better"]
    assert all(differs in row["warning"] for row in of_claim)
    for text in (shown.terminal, shown.page):
        assert f"comparisons: {differs}" in text


def test_a_side_that_is_not_as_its_base_case_is_said_with_the_verdict(tmp_path: Path) -> None:
    folder = generate.study(tmp_path / "r", ways=WAYS, workers=(1, 2), scaling=("strong",), repeats=5, measured=20)
    for home in observed.homes(folder):
        if home.name.startswith("tf-n1"):
            observed.edit(home / "outcome.json", hardware=OTHER)
    scales = json.loads(said("claims", folder, "--json"))["claims"][0]
    found = scales["comparisons"][0]["warnings"]
    assert "tf-multiworker: its base case ran on other hardware (Other CPU)" in found


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"concurrent": True}, "5 of 5 launches ran beside other trials"),
        ({"status": "failed"}, "4 of 5 launches did not succeed"),
        ({"hardware": {"cpu": "Other CPU"}}, "launches ran on different hardware"),
    ],
)
def test_what_is_wrong_with_a_base_case_is_said_of_what_is_set_against_it(
    wrong: dict[str, Any], text: str, tmp_path: Path
) -> None:
    ways = (*WAYS[:2], generate.Way("torch-horovod"))
    folder = generate.study(tmp_path / "r", ways=ways, workers=(1, 2), scaling=("strong",), repeats=5)
    for base in ("torch-n1", "torch-ddp-n1"):
        homes = sorted(folder.glob(f"trials/{base}-*"))
        for home in homes if "concurrent" in wrong else homes[1:]:
            observed.edit(home / "outcome.json", **wrong)
    rows = {(r["strategy"], r["workers"]): r["warning"] for r in estimate(load(folder)).iter_rows(named=True)}
    assert text in rows["torch", 1]
    assert f"its base case: {text}" in rows["torch-horovod", 2]
    assert f"its run at one worker: {text}" in rows["torch-ddp", 2]
    assert "at one worker" not in rows["torch-horovod", 2]
    assert f"its base case: {text}" not in rows["torch", 1]


@pytest.mark.parametrize(
    ("name", "table", "ratio", "reference", "called"),
    [
        ("infer", "inference", "over_eager", {"execution": ("eager", "default")}, "eager execution"),
        ("ingest", "ingest", "over_one", {"readers": (1,)}, "one reader"),
        ("accuracy", "accuracy", "speedup", {"strategy": ("torch",)}, "its base case"),
    ],
)
def test_a_ratio_has_the_warnings_of_what_it_is_over(
    name: str, table: str, ratio: str, reference: dict[str, tuple[Any, ...]], called: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(files.RESULTS / name, tmp_path / name))
    for home in observed.homes(folder):
        trial = json.loads((home / "trial.json").read_text())
        if trial["strategy"].startswith("torch") and all(trial[key] in values for key, values in reference.items()):
            reports(home, niceness=7)
    frames = {"infer": calls, "ingest": readings, "accuracy": times}
    rows = (
        frames[name](load(folder))
        .filter(pl.col(ratio).is_not_null(), pl.col(ratio) != 1, framework="PyTorch")
        .rows(named=True)
    )
    assert rows
    assert all(f"{called}: ranks that give way to others (niceness 7)" in row["warning"] for row in rows)


def test_compute_only_steps_of_a_base_case_bend_no_communication(tmp_path: Path) -> None:
    folder = generate.study(tmp_path / "r", ways=WAYS[:2], workers=(1,), scaling=("strong",), repeats=5)
    stop(sorted(folder.glob("trials/torch-n1-*"))[0], "compute_only")
    row = estimate(load(folder)).filter(strategy="torch").row(0, named=True)
    assert "stood still in compute-only steps: their compute-only time is too long" in row["warning"]
