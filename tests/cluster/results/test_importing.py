"""`scaling import`: what comes in, what does not, and that nothing there is ever lost."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.load import trial as analysis_trial
from analysis.load.results import load
from analysis.verdicts.claims import judge
from cluster.driver import status
from cluster.results import archive, importing
from cluster.results.folder import InUse, ResultsFolder
from cluster.study import file
from cluster.study.schema import StudyError
from jobs.contract import files
from scaling import examine
from tests import measured
from tests.litter import strew
from tests.test_front_door import scaling

TPU = {"cpu": "AMD EPYC 7B13", "physical_cores": 4, "accelerator": "TPU v5 lite"}


def bring(source: Path, target: Path) -> importing.Brought:
    return importing.bring(source, target, examine)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    made = measured.study(tmp_path / "elsewhere", ["torch", "tf"])
    (made / "machine.json").write_text('{"format": 1}\n')
    return made


@pytest.fixture
def zipped(elsewhere: Path) -> Path:
    return Path(shutil.make_archive(str(elsewhere), "zip", elsewhere.parent, elsewhere.name))


@pytest.mark.parametrize("kind", ["folder", "zip", "zip-without-a-folder-in-it"])
def test_what_was_measured_elsewhere_is_the_same_here(kind: str, elsewhere: Path, zipped: Path, tmp_path: Path) -> None:
    source = {"folder": elsewhere, "zip": zipped}.get(kind)
    source = source or Path(shutil.make_archive(str(tmp_path / "flat"), "zip", elsewhere))
    brought = bring(source, tmp_path / "here")
    assert (brought.launches, brought.there, brought.refused) == ({"torch": 3, "tf": 3}, 0, [])
    assert content(tmp_path / "here") == content(elsewhere)
    assert status.status(tmp_path / "here") == status.status(elsewhere)


def test_the_command_names_the_machine_the_launches_and_what_to_do_next(zipped: Path, tmp_path: Path) -> None:
    done = scaling("import", zipped, "--results", tmp_path / "here")
    assert (done.returncode, done.stderr) == (0, "")
    assert "measured on Example CPU 9000, 8 cores" in done.stdout
    assert "6 launches (tf 3, torch 3)" in done.stdout
    assert f"scaling claims {tmp_path / 'here'}" in done.stdout
    again = scaling("import", zipped, "--results", tmp_path / "here")
    assert again.returncode == 0
    assert "there already, the same: 6 launches" in again.stdout


def test_a_zip_with_the_separators_of_windows_is_taken(elsewhere: Path, tmp_path: Path) -> None:
    """As .NET before 4.6.1 and old archivers write them; a mixture of both is refused as ever."""
    archive = tmp_path / "windows.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(zipfile.ZipInfo("results\\"), b"")
        for path in sorted(elsewhere.rglob("*")):
            if path.is_file():
                name = "\\".join(("results", *path.relative_to(elsewhere).parts))
                packed.writestr(zipfile.ZipInfo(name), path.read_bytes())
    assert bring(archive, tmp_path / "here").launches == {"torch": 3, "tf": 3}
    assert content(tmp_path / "here") == content(elsewhere)
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(zipfile.ZipInfo("results/x"), b"")
    with pytest.raises(StudyError, match="is no path of a results folder"):
        bring(archive, tmp_path / "not")
    outside = tmp_path / "outside.zip"
    with zipfile.ZipFile(outside, "w") as packed:
        packed.writestr(zipfile.ZipInfo("results\\..\\..\\study.yaml"), b"")
    with pytest.raises(StudyError, match="leads out of the folder"):
        bring(outside, tmp_path / "not")


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_what_other_programs_leave_is_passed_over(kind: str, elsewhere: Path, tmp_path: Path) -> None:
    clean = content(elsewhere)
    bring(elsewhere, tmp_path / "here")
    strew(elsewhere)
    strew(tmp_path / "here")
    source = (
        Path(shutil.make_archive(str(elsewhere), "zip", elsewhere.parent, elsewhere.name))
        if kind == "zip"
        else elsewhere
    )
    again = bring(source, tmp_path / "here")
    assert (again.launches, again.there, again.refused) == ({}, 6, [])
    bring(source, tmp_path / "new")
    assert content(tmp_path / "new") == clean
    assert load(elsewhere).set_aside == load(tmp_path / "here").set_aside == []
    assert ResultsFolder(tmp_path / "here").foreign() == []
    assert analysis_trial.LITTER == files.LITTER


def test_launches_of_another_kind_add_to_a_study_that_is_there(elsewhere: Path, tmp_path: Path) -> None:
    here = measured.study(tmp_path / "here", ["torch"], scaling=["weak"], batch={"per_worker": 16})
    before = content(here)
    assert bring(elsewhere, here).launches == {"torch": 3, "tf": 3}
    after = content(here)
    assert all(after[name] == data for name, data in before.items() if name.startswith("trials"))
    study = file.stored(here)
    assert (study.strategies, study.scaling) == (["torch", "tf"], ["weak", "strong"])
    assert (study.batch.global_, study.batch.per_worker) == (8, 16)
    assert [s.ok for s in status.status(here)] == [3, 3, 3]
    trials = load(here).trials
    assert (trials["strong"] | trials["weak"]).all()


def test_a_launch_that_is_there_is_never_overwritten(elsewhere: Path, tmp_path: Path) -> None:
    here = measured.study(tmp_path / "here", ["torch"], seconds={"torch": 0.5})
    before = content(here)
    brought = bring(elsewhere, here)
    assert brought.launches == {"tf": 3}
    assert len(brought.refused) == 3
    assert "another launch of that name is in" in brought.refused[0]
    assert {name: data for name, data in content(here).items() if "torch-n1" in name} == {
        name: data for name, data in before.items() if "torch-n1" in name
    }


def test_a_launch_that_failed_here_makes_room_and_is_kept(elsewhere: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    shutil.copytree(elsewhere, here)
    home = next((here / "trials").glob("torch-*-r01"))
    measured.edit(home / "outcome.json", status="failed", error="no memory")
    brought = bring(elsewhere, here)
    assert (brought.launches, brought.there) == ({"torch": 1}, 5)
    assert "had ended as failed: no memory; kept in set-aside/" in brought.moved[0]
    assert (load(here).trials["status"] == "ok").all()
    assert len(list((here / "set-aside").iterdir())) == 1


def test_a_launch_that_may_be_running_here_is_left_alone(elsewhere: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    shutil.copytree(elsewhere, here)
    home = next((here / "trials").glob("torch-*-r01"))
    (home / "outcome.json").unlink()
    assert len(bring(elsewhere, here).refused) == 1
    assert not (home / "outcome.json").exists()


def test_a_failed_launch_comes_in_as_such_since_nothing_is_unreported(elsewhere: Path, tmp_path: Path) -> None:
    home = next((elsewhere / "trials").glob("tf-*-r02"))
    measured.edit(home / "outcome.json", status="timeout", error="stood still")
    assert bring(elsewhere, tmp_path / "here").launches == {"torch": 3, "tf": 3}
    assert load(tmp_path / "here").trials["status"].to_list().count("timeout") == 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda home: (home / "rank-00000.jsonl").unlink(), "no steps of rank 0"),
        (lambda home: (home / "outcome.json").write_text("{"), "outcome.json is not readable as JSON"),
        (lambda home: measured.edit(home / "outcome.json", format=3), "format 3; this version reads up to 2"),
        (lambda home: measured.edit(home / "trial.json", strategy="tf-quantum"), "trial.json"),
        (lambda home: measured.edit(home / "trial.json", seed=7), "its trial.json is that of"),
        (lambda home: measured.edit(home / "trial.json", colour="red"), "written by another version?"),
        (lambda home: home.rename(home.with_name("torch-n1-b8-00000000-r00")), "not of this folder"),
        (lambda home: (shutil.rmtree(home), home.write_text("")), "not a trial's folder"),
    ],
)
def test_a_launch_that_its_files_do_not_bear_out_is_refused(
    spoil: Callable[[Path], object], said: str, elsewhere: Path, tmp_path: Path
) -> None:
    spoil(next((elsewhere / "trials").glob("torch-*-r01")))
    brought = bring(elsewhere, tmp_path / "here")
    assert brought.launches.total() == 5
    assert len(brought.refused) == 1
    assert said in brought.refused[0]
    assert len(list((tmp_path / "here" / "trials").iterdir())) == 5


def test_what_the_data_were_comes_along_and_stays_when_more_comes(elsewhere: Path, tmp_path: Path) -> None:
    data = [{"path": "/data/images", "images": 20, "classes": {"a": 20}, "left_out": {".webp files": 3}}]
    measured.edit(elsewhere / "plan.json", data=data)
    bring(elsewhere, tmp_path / "here")
    more = measured.study(tmp_path / "more", ["torch", "tf", "jax"])
    bring(more, tmp_path / "here")
    plan = json.loads((tmp_path / "here" / "plan.json").read_text())
    assert (plan["data"], len(plan["points"])) == (data, 3)
    assert "data" not in json.loads((more / "plan.json").read_text())


def test_an_unfinished_launch_is_left_out_and_is_no_fault(elsewhere: Path, tmp_path: Path) -> None:
    (next((elsewhere / "trials").glob("torch-*-r01")) / "outcome.json").unlink()
    brought = bring(elsewhere, tmp_path / "here")
    assert (brought.launches.total(), brought.refused) == (5, [])
    assert "was not finished" in brought.left[0]


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_text("{")])
def test_what_has_come_in_since_is_not_said_to_be_left_out(
    spoil: Callable[[Path], object], elsewhere: Path, tmp_path: Path
) -> None:
    def left_out() -> list[str]:
        return list(json.loads((tmp_path / "here" / "plan.json").read_text())["left_out"])

    before = shutil.copytree(elsewhere, tmp_path / "before")
    spoil(next((before / "trials").glob("torch-*-r01")) / "outcome.json")
    bring(before, tmp_path / "here")
    assert sum(line.startswith("not imported: torch-") for line in left_out()) == 1
    bring(elsewhere, tmp_path / "here")
    bring(before, tmp_path / "here")
    assert not any(line.startswith("not imported: ") for line in left_out())


def refused(source: Path, target: Path) -> str:
    """The one line with which the command refuses; it must leave `target` as it was."""
    before = content(target) if target.exists() else None
    with pytest.raises(StudyError) as caught:
        bring(source, target)
    assert (content(target) if target.exists() else None) == before
    (line,) = caught.value.faults
    assert "\n" not in line
    return line


def test_curves_are_not_mixed_from_two_machines(elsewhere: Path, tmp_path: Path) -> None:
    here = measured.study(tmp_path / "here", ["torch"], hardware={"cpu": "Another CPU", "physical_cores": 2}, repeats=1)
    line = refused(elsewhere, here)
    assert "measured on Another CPU, 2 cores, this on Example CPU 9000, 8 cores" in line
    on_tpu = measured.study(tmp_path / "tpu", ["tf"], hardware=TPU)
    emulated = measured.study(tmp_path / "emulated", ["tf"], hardware=TPU | {"emulated": True})
    assert "this on TPU v5 lite (emulated) in AMD EPYC 7B13" in refused(emulated, on_tpu)


def test_another_study_is_refused(elsewhere: Path, tmp_path: Path) -> None:
    other = measured.study(tmp_path / "other", ["torch"], seed=1)
    assert "holds another study (seed: 1 there, 0 here)" in refused(elsewhere, other)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda home: (home / "study.yaml").unlink(), "no study.yaml there"),
        (lambda home: (home / "study.yaml").write_text("format: 3\nname: x\n"), "format 3; this version reads up to 2"),
        (lambda home: (home / "study.yaml").write_text("format: 1\na: &a [1]\nb: *a\n"), "aliases (*name)"),
        (lambda home: (home / "plan.json").write_text('{"points": 3}'), "plan.json: cannot be read (points"),
        (lambda home: shutil.rmtree(home / "trials"), "it holds no launch"),
        (lambda home: [p.unlink() for p in home.glob("trials/*/outcome.json")], "was not finished"),
        (lambda home: (home / "trials" / "x").symlink_to("/etc"), "is a link, a device or a pipe"),
        (lambda home: os.mkfifo(next(home.glob("trials/*")) / "rank-00000.pipe"), "is a link, a device or a pipe"),
    ],
)
def test_a_folder_that_is_no_whole_study_is_refused_in_one_line(
    spoil: Callable[[Path], object], said: str, elsewhere: Path, tmp_path: Path
) -> None:
    spoil(elsewhere)
    assert said in refused(elsewhere, tmp_path / "here")


def test_a_folder_in_use_and_the_folder_itself_are_refused(elsewhere: Path, tmp_path: Path) -> None:
    assert "is the folder itself" in refused(elsewhere, elsewhere)
    bring(elsewhere, tmp_path / "here")
    driver = ResultsFolder(tmp_path / "here")
    driver.open(file.stored(elsewhere))
    try:
        with pytest.raises(InUse):
            bring(elsewhere, tmp_path / "here")
    finally:
        driver.close()


def entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (entry("/etc/passwd"), "is an absolute path"),
        (entry("made/../../evil"), "leads out of the folder"),
        (entry(".."), "leads out of the folder"),
        (entry("made\\..\\..\\evil"), "is no path"),
        (entry("C:evil"), "is no path"),
        (entry("made//evil"), "is no path"),
        (entry("made/\x1b[31mevil"), "is no path"),
        (entry("made/" + "x" * 300), "is no path"),
        (entry("/".join("abcdefghijklmnop")), "is no path"),
        (entry("made/link", stat.S_IFLNK | 0o777), "is a link"),
        (entry("made/null", stat.S_IFCHR | 0o666), "is a device"),
        (entry("made/pipe", stat.S_IFIFO | 0o666), "is a device"),
        (entry("elsewhere/study.yaml"), "is in it twice"),
        (entry("elsewhere/study.yaml/x"), "is a file and a folder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_no_results_have_refuses_the_zip(
    info: zipfile.ZipInfo, said: str, zipped: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(zipped, "a") as opened:
        opened.writestr(info, "/etc/passwd")
    assert said in refused(zipped, tmp_path / "here")


def test_a_bomb_is_refused_by_what_it_says_of_itself(
    zipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(zipped, "a") as opened:
        opened.writestr(entry("elsewhere/zeros"), bytes(64 << 20))
    assert "times its size, which no results do" in refused(zipped, tmp_path / "here")
    monkeypatch.setattr(archive, "MOST_BYTES", 32 << 20)
    assert "at most 33554432 are taken" in refused(zipped, tmp_path / "here")
    monkeypatch.setattr(archive, "MOST_FILES", 10)
    assert "files; at most 10 are taken" in refused(zipped, tmp_path / "here")


def test_a_bomb_that_understates_its_size_is_found_out(zipped: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(zipped, "a") as opened:
        opened.writestr(entry("elsewhere/zeros"), bytes(1 << 20))
    data = zipped.read_bytes()
    zipped.write_bytes(data.replace((1 << 20).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    assert "is no zip, or a damaged one" in refused(zipped, tmp_path / "here")


def test_an_encrypted_zip_and_what_is_no_zip_are_refused(zipped: Path, tmp_path: Path) -> None:
    data = bytearray(zipped.read_bytes())
    flags = data.rfind(b"PK\x01\x02") + 8  # of the last entry in the central directory
    data[flags] |= 1
    zipped.write_bytes(data)
    assert "is encrypted" in refused(zipped, tmp_path / "here")
    zipped.write_bytes(b"PK\x03\x04 and then nothing")
    assert "is no zip, or a damaged one" in refused(zipped, tmp_path / "here")
    assert "No such file" in refused(tmp_path / "nowhere.zip", tmp_path / "here")
    with zipfile.ZipFile(zipped, "w") as opened:
        opened.writestr("readme.txt", "")
    assert "holds no results folder" in refused(zipped, tmp_path / "here")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1), rubbish=st.binary(min_size=1, max_size=30))
def test_no_damage_to_a_zip_crashes_it_or_leaves_anything_broken(
    where: float, rubbish: bytes, zipped: Path, tmp_path: Path
) -> None:
    data, target = zipped.read_bytes(), tmp_path / "damaged-here"
    at = int(where * len(data))
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(data[:at] + rubbish + data[at + len(rubbish) :])
    shutil.rmtree(target, ignore_errors=True)
    try:
        bring(damaged, target)
    except StudyError as error:
        assert len(error.faults) == 1
        assert not target.exists()
    else:
        assert set(load(target).trials["status"]) == {"ok"}


@settings(max_examples=200, deadline=None)
@given(name=st.text(st.sampled_from("ab./\\:\x00\n\u00e9"), min_size=1, max_size=12))
def test_no_name_in_a_zip_leads_out_of_the_folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("names")
    with zipfile.ZipFile(place / "x.zip", "w") as opened:
        opened.writestr(entry(name), "content")
    (place / "to").mkdir()
    try:
        archive.unpack(place / "x.zip", place / "to")
    except StudyError:
        assert not list((place / "to").iterdir())
    assert {p.name for p in place.iterdir()} == {"x.zip", "to"}


# Kill the command at the `at`-th call of one of those by which it writes.
KILLED = """
import os, pathlib, shutil, sys
at, source, target = int(sys.argv[1]), sys.argv[2], sys.argv[3]
calls = 0
def deadly(function):
    def wrapper(*arguments, **more):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), 9)
        return function(*arguments, **more)
    return wrapper
shutil.copytree, shutil.rmtree = deadly(shutil.copytree), deadly(shutil.rmtree)
shutil.copyfile = deadly(shutil.copyfile)
pathlib.Path.rename, pathlib.Path.replace = deadly(pathlib.Path.rename), deadly(pathlib.Path.replace)
from cluster.results import importing
from scaling import examine
importing.bring(pathlib.Path(source), pathlib.Path(target), examine)
"""


@pytest.mark.parametrize("at", [1, 2, 5, 9, 30, 33, 36])
def test_killed_at_any_moment_it_leaves_whole_launches_and_goes_on(at: int, elsewhere: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    command = [sys.executable, "-c", KILLED, str(at), str(elsewhere), str(here)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    assert set(load(here).trials["status"]) <= {"ok"}
    brought = bring(elsewhere, here)
    assert brought.there + brought.launches.total() == 6
    assert content(here) == content(elsewhere)


def test_a_tpu_results_zip_judges_the_claim_at_home(tmp_path: Path) -> None:
    elsewhere = measured.study(
        tmp_path / "elsewhere", ["tf-tpu", "jax"], name="tpu", seconds={"tf-tpu": 0.010, "jax": 0.014}, repeats=6,
        hardware=TPU, host="colab", resources={"tpu": "real"},
    )  # fmt: skip
    zipped = Path(shutil.make_archive(str(elsewhere), "zip", elsewhere.parent, elsewhere.name))
    done = scaling("import", zipped, "--results", tmp_path / "here")
    assert done.returncode == 0, done.stderr
    assert "TPU v5 lite in AMD EPYC 7B13, 4 cores" in done.stdout
    verdict = next(v for v in judge(load(tmp_path / "here")) if v.claim.id == "tf-suits-tpu")
    assert verdict.verdict == "supported"
    assert verdict.comparisons[0].ratio == pytest.approx(1.4, rel=0.02)
    assert len(verdict.comparisons[0].records) == 12
    assert "supported" in scaling("claims", tmp_path / "here").stdout


def test_emulated_results_never_judge_the_claim(tmp_path: Path) -> None:
    cells = {"tpu": "emulated"}
    emulated = measured.study(tmp_path / "e", ["tf-tpu", "jax"], hardware=TPU, resources=cells, repeats=6)
    brought = bring(emulated, tmp_path / "here")
    assert brought.machines == ["TPU v5 lite (emulated) in AMD EPYC 7B13, 4 cores"]
    verdict = next(v for v in judge(load(tmp_path / "here")) if v.claim.id == "tf-suits-tpu")
    assert verdict.verdict == "untested"
