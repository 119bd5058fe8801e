"""A file that is not what it was when its launch ended: both who read outcomes tell it, by its name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from analysis.load import trial as analysis_trial
from analysis.load.results import load
from analysis.report import facts
from analysis.report.page import render
from analysis.report.study import Study, write_tables
from cluster.driver import status
from cluster.results.importing import bring
from jobs.contract import folder as jobs_folder
from jobs.contract import outcome
from scaling import app, examine
from tests import measured
from tests.kept import files as kept

LINES, REPORT, TELEMETRY = "rank-00001.jsonl", "rank-00001.json", "telemetry-host.jsonl"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two ranks whose launches have telemetry, which ended before the outcome."""
    folder = tmp_path_factory.mktemp("sums") / "sound"
    measured.study(folder, ["torch-ddp"], workers=[2], repeats=2)
    for home in (folder / "trials").iterdir():
        rows = [{"kind": "start", "unix": 1.0, "host": "host"}, *({"kind": "sample", "unix": u} for u in (1.0, 2.0))]
        (home / TELEMETRY).write_text("".join(json.dumps(row) + "\n" for row in rows))
        order = json.loads((home / "outcome.json").read_text())["order"]
        outcome.conclude(home, status="ok", error="", launcher="local", order=order, started=outcome.now(), exits=[])
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(sound, tmp_path / "made"))


def first(folder: Path) -> Path:
    return sorted((folder / "trials").iterdir())[0]


def change(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def spoil(home: Path) -> None:
        content = (home / name).read_bytes()
        assert old in content
        (home / name).write_bytes(content.replace(old, new, 1))

    return spoil


def cut(name: str) -> Callable[[Path], None]:
    """By its last line."""

    def spoil(home: Path) -> None:
        lines = (home / name).read_bytes().splitlines(keepends=True)
        (home / name).write_bytes(b"".join(lines[:-1]))

    return spoil


def linked_elsewhere(home: Path) -> None:
    (home / LINES).rename(home / "elsewhere")
    change("elsewhere", b"0.01", b"0.02")(home)
    (home / LINES).symlink_to("elsewhere")


def a_folder(home: Path) -> None:
    (home / LINES).unlink()
    (home / LINES).mkdir()


def a_pipe(home: Path) -> None:
    (home / LINES).unlink()
    os.mkfifo(home / LINES)


def line_ends(home: Path) -> None:
    for path in home.glob("*.json*"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def unnumbered(home: Path) -> None:
    """Step lines of another launch under a number that is nearly theirs."""
    (home / "rank-1.jsonl").write_bytes((home / LINES).read_bytes())
    change(LINES, b'"seconds": 0.01', b'"seconds": 0.02')(home)


def sums(keep: Callable[[str], bool], **more: object) -> Callable[[Path], None]:
    def spoil(home: Path) -> None:
        written = json.loads((home / "outcome.json").read_text())["sums"]
        measured.edit(home / "outcome.json", sums={name: s for name, s in written.items() if keep(name)} | more)

    return spoil


NO_SUM = "outcome.json has no sum of"
OTHER = "is not what it was when its launch ended"
SPOILT: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a-digit-of-a-step": (change(LINES, b'"seconds": 0.01', b'"seconds": 0.02'), LINES, OTHER),
    "a-step-less": (cut(LINES), LINES, " bytes, "),
    "no-steps": (lambda home: (home / LINES).unlink(), LINES, "is missing"),
    "a-report": (change(REPORT, b'"threads": 1', b'"threads": 8'), REPORT, OTHER),
    "no-report": (lambda home: (home / REPORT).unlink(), REPORT, "is missing"),
    "the-trial": (change("trial.json", b'"threads_per_worker": 1', b'"threads_per_worker": 2'), "trial.json", OTHER),
    "a-longer-trial": (change("trial.json", b"\n}", b"\n} "), "trial.json", " bytes, "),
    "telemetry-that-was-cut": (cut(TELEMETRY), TELEMETRY, " bytes, "),
    "telemetry-that-was-edited": (change(TELEMETRY, b"2.0", b"3.0"), TELEMETRY, OTHER),
    "telemetry-edited-and-grown": (change(TELEMETRY, b"2.0", b"3.0000"), TELEMETRY, OTHER),
    "a-folder-instead": (a_folder, LINES, "is no file"),
    "a-pipe-instead": (a_pipe, LINES, "is no file"),
    "a-link-to-another-file": (linked_elsewhere, LINES, OTHER),
    "line-ends-of-windows": (line_ends, "rank-00000.json", "other line ends"),
    "step-lines-under-a-number-nearly-theirs": (unnumbered, LINES, OTHER),
    "step-lines-of-a-rank-that-was-not": (
        lambda home: shutil.copy(home / LINES, home / "rank-00002.jsonl"),
        "rank-00002.jsonl",
        NO_SUM,
    ),
    "a-report-of-a-rank-that-was-not": (lambda home: (home / "rank-00002.json").write_text("{}"), "rank-00002", NO_SUM),
    "sums-without-a-rank": (sums(lambda name: name != LINES), LINES, NO_SUM),
    "sums-without-the-trial": (sums(lambda name: name != "trial.json"), "trial.json", NO_SUM),
    "sums-of-nothing": (sums(lambda name: False), "rank-00000.json", NO_SUM),
    "sums-of-a-later-version": (
        sums(lambda name: False, **{"steps.bin": {"length": 1, "sha256": "0"}}),
        "rank-00000.json",
        NO_SUM,
    ),
    "one-file-with-line-ends-of-windows": (change(LINES, b"\n", b"\r\n"), LINES, "other line ends"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_file_that_is_not_what_it_was_leaves_its_launch_out_by_name(case: str, folder: Path) -> None:
    spoil, name, said = SPOILT[case]
    home = first(folder)
    spoil(home)
    results = load(folder)
    row = results.trials.filter(trial_id=home.name).row(0, named=True)
    assert row["status"] == "broken"
    assert name in row["error"]
    assert said in row["error"]
    assert row["throughput"] is None
    assert [aside.reason for aside in results.set_aside] == [row["error"]]
    assert results.trials["status"].to_list().count("ok") == 1
    assert analysis_trial.read(home, [], check_steady=False)["status"] == "broken"  # type: ignore[index]
    written = outcome.read_outcome(home)
    assert written is not None
    driver = outcome.untrue(home, written)
    assert name in driver
    assert said in driver
    (point,) = status.status(folder)
    assert point.ok == 1
    assert home.name in point.trouble
    assert name in point.trouble


def grown(home: Path) -> None:
    with (home / TELEMETRY).open("a") as file:
        file.write('{"kind": "sample", "unix": 3.0}\n')


HARMLESS: dict[str, Callable[[Path], object]] = {
    "untouched": lambda home: None,
    "telemetry-that-has-grown": grown,
    "telemetry-of-another-node": lambda home: (home / "telemetry-late.jsonl").write_text('{"kind": "start"}\n'),
    "a-log": lambda home: (home / "rank-00000.log").write_text("nothing any more\n"),
    "a-link-to-the-same": lambda home: (
        (home / LINES).rename(home / "elsewhere"),
        (home / LINES).symlink_to("elsewhere"),
    ),
    "a-name-that-no-rank-has": lambda home: [
        shutil.copy(home / LINES, home / name) for name in ("rank-1.jsonl", "rank-000001.jsonl")
    ],
    "litter": lambda home: (home / "._rank-00000.jsonl").write_text("x"),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_what_is_no_fault_costs_nothing(case: str, folder: Path) -> None:
    home = first(folder)
    HARMLESS[case](home)
    results = load(folder)
    assert results.trials["status"].to_list() == ["ok", "ok"]
    assert results.trials["has_sums"].to_list() == [True, True]
    written = outcome.read_outcome(home)
    assert written is not None
    assert outcome.untrue(home, written) == ""


def test_telemetry_that_grows_while_it_is_compared_is_no_fault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for a sampler at its last words: a line more comes between the size and what is read."""
    read, home = Path.read_bytes, first(folder)

    def late(path: Path) -> bytes:
        return read(path) + (b'{"kind": "sample", "unix": 3.0}\n' if path.name == TELEMETRY else b"")

    monkeypatch.setattr(Path, "read_bytes", late)
    assert load(folder).trials["status"].to_list() == ["ok", "ok"]
    sum_of = jobs_folder.sum_of

    def longer(path: Path) -> jobs_folder.Sum:
        return jobs_folder.Sum.of(late(path)) if path.name == TELEMETRY else sum_of(path)

    monkeypatch.setattr(jobs_folder, "sum_of", longer)
    written = outcome.read_outcome(home)
    assert written is not None
    assert outcome.untrue(home, written) == ""


def test_what_a_launch_that_failed_still_wrote_is_no_fault_and_an_edited_file_is(folder: Path) -> None:
    home = first(folder)
    failed = {"status": "failed", "error": "x", "launcher": "local", "order": 0, "started": outcome.now(), "exits": []}
    written = outcome.conclude(home, **failed)  # type: ignore[arg-type]
    with (home / LINES).open("a") as file:
        file.write('{"phase": "train", "step": 99, "seconds": 1.0}\n')
    assert outcome.untrue(home, written) == ""
    assert examine(home) == ("failed", "x")
    change(REPORT, b'"threads": 1', b'"threads": 8')(home)
    assert REPORT in outcome.untrue(home, written)
    assert examine(home) == ("broken", f"{REPORT} {OTHER}")


@pytest.mark.parametrize("sums", ["x", 7, [1], {"trial.json": 3}, {"trial.json": {"length": "1", "sha256": 2}}])
def test_sums_that_are_none_are_said_and_crash_nobody(sums: object, folder: Path) -> None:
    measured.edit(first(folder) / "outcome.json", sums=sums)
    assert "sum" in load(folder).trials.filter(status="broken")["error"].item()
    with pytest.raises(outcome.UnreadableOutcome, match="sums"):
        outcome.read_outcome(first(folder))


def test_each_command_that_reads_names_the_file_and_moves_nothing(folder: Path, sound: Path) -> None:
    home = first(folder)
    change(LINES, b'"seconds": 0.01', b'"seconds": 0.02')(home)
    line = f"left out: {home.name}: {LINES} {OTHER}"
    for command in (("claims", folder, "--json"), ("compare", sound, folder)):
        done = CliRunner().invoke(app, list(map(str, command)))
        assert done.exit_code == 0
        assert done.stderr.splitlines() == [line]
    said = " ".join(CliRunner().invoke(app, ["status", str(folder)], env={"COLUMNS": "200"}).stdout.split())
    assert "1 of 2 planned launches are done" in said
    assert LINES in said
    told = Study.of(load(folder))
    assert f"{LINES} {OTHER}" in render(told, {})
    write_tables(told, folder / "report")
    assert f"trials/{home.name},{LINES} {OTHER}" in (folder / "report" / "set-aside.csv").read_text()
    assert home.is_dir()
    assert not (folder / "set-aside").exists()


def test_an_archive_whose_line_ends_were_changed_is_refused_by_the_files_name(folder: Path, tmp_path: Path) -> None:
    line_ends(first(folder))
    zipped = Path(shutil.make_archive(str(folder), "zip", folder.parent, folder.name))
    brought = bring(zipped, tmp_path / "here", examine)
    assert brought.launches.total() == 1
    assert len(brought.refused) == 1
    assert "rank-00000.json has other line ends" in brought.refused[0]
    assert "copy it byte by byte" in brought.refused[0]


def test_a_copy_that_broke_off_is_replaced_by_the_whole_one_and_kept(folder: Path, sound: Path, tmp_path: Path) -> None:
    home = first(folder)
    cut(LINES)(home)
    brought = bring(sound, folder, examine)
    assert (brought.launches.total(), brought.there, brought.refused) == (1, 1, [])
    assert LINES in brought.moved[0]
    assert load(folder).trials["status"].to_list() == ["ok", "ok"]
    (aside,) = (folder / "set-aside").iterdir()
    assert (aside / LINES).exists()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["train", "slurm", "ray"])
def test_results_of_before_are_read_without_a_fault_and_said_to_have_no_sums(name: str) -> None:
    results = load(kept.RESULTS / name)
    assert not results.set_aside
    ended_well = results.trials.filter(status="ok")
    assert len(ended_well)
    assert not ended_well["has_sums"].any()
    said = facts.without_sums(results)
    assert said.startswith(f"{len(ended_well)} of {len(ended_well)} launches were measured before")
