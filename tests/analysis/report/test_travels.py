"""What was left out, bent or shared goes with the number: terminal, `scaling status`, page, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import scaling
from analysis.load.results import load
from analysis.measures.efficiency import estimate
from analysis.report import standing
from analysis.report.terminal import show_results
from analysis.verdicts.compare import compare
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
    points = list(dict.fromkeys(home.name.rpartition("-r")[0] for home in observed.homes(folder)))
    plan = {"format": 1, "points": points, "repeats": 3, "left_out": ["strong scaling at 3 workers: is not divisible"],
            "data": [{"path": "/photos", "files": 9, "left_out": {"GIF files": 2}}],
            "not_available": {"jax": "jax is not installed"}}  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
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
    letters = [line.partition(": ")[0] for line in bent.terminal.splitlines() if warning in line and line[1:2] == ":"]
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
