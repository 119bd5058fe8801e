"""The `scaling` command as a person meets it: help, errors, a whole small study."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.load.results import load
from analysis.report import facts
from tests.jobs.data.pictures import halves, saved
from tests.warm.forges import bare, warm

ROOT = Path(__file__).parents[1]
GOOD: dict[str, Any] = {
    "name": "tiny",
    "strategies": ["torch", "torch-ddp", "tf"],
    "workers": [1, 2],
    "batch": {"global": 8, "per_worker": 8},
    "steps": {"warmup": 2, "measured": 6, "compute_only": 2},
    "repeats": {"min": 3},
    "launcher": {"kind": "local", "oversubscribe": True},
}


INGEST: dict[str, Any] = {
    "workload": "ingest",
    "strategies": ["torch"],
    "workers": "auto",
    "batch": {"sizes": [8]},
    "steps": {"warmup": 2, "measured": 6, "compute_only": 0},
}


def scaling(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scaling", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "140"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def study(tmp_path: Path, **change: Any) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(GOOD | change))
    return path


@pytest.mark.parametrize("arguments", ["--help", "run --help", "plot --help", "status --help", "schema"])
def test_help_loads_neither_a_framework_nor_the_analysis(arguments: str) -> None:
    code = (
        f"import sys; sys.argv = ['scaling', *{arguments.split()!r}]\n"
        "import scaling\n"
        "try: scaling.main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'tensorflow', 'ray', 'horovod', 'pandas', 'polars', 'scipy', 'matplotlib', 'sklearn'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("module", ["cluster.slurm.rank", "cluster.ray.rank"])
def test_what_stands_beside_a_rank_while_it_starts_imports_little(module: str) -> None:
    code = (
        f"import sys, {module}, jobs.rank.keeper, jobs.machine.cores\n"
        "heavy = {'pydantic', 'numpy', 'psutil', 'yaml'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_analysis_of_a_results_folder_needs_no_framework(finished: Path) -> None:
    code = (
        "import sys\n"
        "class NotHere:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] in ('torch', 'tensorflow', 'ray', 'horovod', 'keras'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, NotHere())\n"
        f"sys.argv = ['scaling', 'plot', {str(finished)!r}, '--to', {str(finished / 'again')!r}]\n"
        "import scaling; scaling.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list((finished / "again").glob("*.svg"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"strategies": ["torch-dpp"]}, "did you mean torch-ddp?"),
        ({"stpes": {}}, "did you mean steps?"),
        ({"workers": [3]}, "batch.global: 8 is not divisible by 3 workers"),
        ({"workers": [8], "launcher": {"kind": "local"}, "resources": {"threads_per_worker": 64}}, "do not fit on the"),
        ({"launcher": {"kind": "slrum"}}, "launcher.kind: 'slrum' is not a launcher"),
        ({"launcher": {"kind": "local", "nodes": 4}}, "launcher.nodes: is not an option of the local launcher"),
        ({"data": {"kind": "mnist", "path": "/nowhere"}}, "/nowhere: no such file or folder"),
        ({"data": {"kind": "images", "path": "/nowhere"}}, "/nowhere: no such folder"),
        (INGEST | {"files": {"path": "/nowhere"}}, "files.path: no PNG files in /nowhere, which is not there"),
        (INGEST | {"source": "cached"}, "steps.warmup: 2 batches of 8 do not fill the cache with 1024 files"),
        (INGEST | {"source": "tfrecord", "batch": {"sizes": [2000]}}, "readers: 1024 files make fewer batches of 2000"),
    ],
)
def test_a_mistake_in_the_study_is_one_line_and_exit_code_2(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    results = tmp_path / "results"
    done = scaling("run", study(tmp_path, **change), "--results", results)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not results.exists()


@pytest.mark.parametrize("command", ["status", "plot"])
def test_a_folder_that_holds_no_study_is_said(command: str, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        done = scaling(command, folder)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["report", "plot"])
def test_a_place_that_cannot_be_written_is_said(command: str, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = scaling(command, finished, "--to", tmp_path / "file")
    assert done.returncode == 2
    assert done.stderr.startswith(str(tmp_path / "file"))
    assert (done.stderr.count("\n"), "Traceback" in done.stderr) == (1, False)


def test_an_unknown_launcher_on_the_command_line_is_said(tmp_path: Path) -> None:
    done = scaling("run", study(tmp_path), "--on", "moon")
    assert done.returncode == 2
    assert "'moon' is not a launcher; known: local" in done.stderr


def test_a_dry_run_says_the_plan_and_touches_nothing(tmp_path: Path) -> None:
    results = tmp_path / "results"
    done = scaling("run", study(tmp_path), "--results", results, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "5 points, at least 15 launches" in done.stdout
    assert "torch and tf at more than 1 worker: a base case is a single process" in done.stdout
    assert not results.exists()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A data set in two parts, and more."""
    for part, count in (("train", 6), ("val", 2), ("test", 1)):
        for name in ("cat", "dog"):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            for i in range(count):
                content = saved(halves(10 * i, 200 - i), "JPEG")
                (tmp_path / "set" / part / name / f"{i}.jpg").write_bytes(content)
    (tmp_path / "set" / "train" / "dog" / "7.webp").write_bytes(b"x")
    return tmp_path / "set"


def test_a_dry_run_counts_images_and_says_what_is_left_out_and_how_long_decoding_takes(
    images: Path, tmp_path: Path
) -> None:
    asked = study(tmp_path, data={"kind": "images", "path": str(images)}, strategies=["torch"])
    done = scaling("run", asked, "--results", tmp_path / "results", "--dry-run", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert f"{images}: 16 images of 2 classes (cat 8, dog 8), 4 held out (val/)" in done.stdout
    assert f"{images}: left out: 2 images in test/, which is neither train nor val, 1 .webp files" in done.stdout
    assert f"{images}: decoded once, in less than a second, and kept in {tmp_path / 'cache'}" in done.stdout
    assert not (tmp_path / "cache").exists()
    (images / "val" / "cat" / "0.jpg").write_bytes(b"")
    done = scaling("run", asked, "--results", tmp_path / "results", "--dry-run", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "0.jpg: not readable as an image (an empty file)" in done.stderr


def test_what_is_in_a_folder_of_images_is_told_with_the_results(images: Path, tmp_path: Path) -> None:
    asked = study(tmp_path, data={"kind": "images", "path": str(images)}, strategies=["torch"], repeats={"min": 1})
    folder, cache = tmp_path / "results", tmp_path / "cache"
    done = scaling("run", asked, "--results", folder, XDG_CACHE_HOME=str(cache), **bare())
    assert done.returncode == 0, done.stderr
    told = json.loads((folder / "plan.json").read_text())["data"]
    assert told == [json.loads(next(folder.glob("trials/*/rank-00000.json")).read_text())["data"]]
    assert told[0]["left_out"] == {"images in test/, which is neither train nor val": 2, ".webp files": 1}
    assert [path.suffix for path in (cache / "scaling" / "images").iterdir()] == [".npy"]
    page = (folder / "report" / "index.html").read_text()
    for said in ("16 images of 2 classes, 8 each; 4 held out (val/)", "2 images in test/, which is neither train"):
        assert said in page
    told = facts.data(load(folder))
    (folder / "plan.json").unlink()  # of a study whose folder the one who planned it could not see
    assert facts.data(load(folder)) == told


def test_the_schema_is_json() -> None:
    assert json.loads(scaling("schema").stdout)["properties"]["strategies"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, forge_folder: Path) -> Path:
    """A whole small study, run by the command. Its ranks are warm (tests/warm)."""
    place = tmp_path_factory.mktemp("study")
    done = scaling("run", study(place), "--results", place / "results", **warm(forge_folder))
    assert done.returncode == 0, done.stdout + done.stderr
    (place / "results" / "said.txt").write_text(done.stdout)
    (place / "results" / "noise.txt").write_text(done.stderr)
    return place / "results"


def test_a_study_ends_with_table_figures_and_no_noise(finished: Path) -> None:
    said = (finished / "said.txt").read_text()
    assert "15 launches to do" in said
    assert "15/15" in said
    for word in ("torch-ddp", "samples/s", "speedup", "efficiency"):
        assert word in said.lower()
    assert (finished / "noise.txt").read_text() == ""
    names = {p.name for p in (finished / "figures").iterdir()}
    for figure in ("throughput", "speedup", "efficiency", "breakdown"):
        assert {f"{figure}.svg", f"{figure}.png"} <= names


def test_a_local_study_says_what_limits_it_and_stands_under_the_measured_roof_of_its_machine(finished: Path) -> None:
    assert "what limits it" in (finished / "said.txt").read_text()
    assert (finished / "machine.json").exists()
    tables = finished / "report" / "tables"
    assert {"limits.csv", "roofline.csv"} <= {path.name for path in tables.iterdir()}


def test_a_second_run_measures_nothing(finished: Path, tmp_path: Path) -> None:
    done = scaling("run", study(tmp_path), "--results", finished)
    assert done.returncode == 0, done.stderr
    assert "15 launches are measured already" in done.stdout


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_a_terminal_that_cannot_show_a_sign_costs_nothing(encoding: str, finished: Path) -> None:
    """What was measured is shown, judged and examined with a mark in its place; JSON stays whole."""
    for command in (["status", finished], ["claims", finished], ["doctor"], ["compare", finished, finished]):
        done = subprocess.run(
            [sys.executable, "-m", "scaling", *map(str, command)],
            cwd=ROOT,
            env=os.environ | {"COLUMNS": "140", "PYTHONIOENCODING": encoding},
            capture_output=True,
        )
        assert (done.returncode, done.stderr) == (0, b""), command
        assert done.stdout.decode(encoding)
    judged = scaling("claims", finished, "--json", PYTHONIOENCODING=encoding)
    assert json.loads(judged.stdout) == json.loads(scaling("claims", finished, "--json").stdout)


def test_status_says_what_is_done(finished: Path) -> None:
    said = scaling("status", finished).stdout
    assert "15 of 15 planned launches are done" in said
    assert "sums" not in said


def test_a_failed_launch_does_not_stop_the_study_and_ends_with_exit_code_1(tmp_path: Path) -> None:
    """A rank of TensorFlow that is not given the time to start is given up; PyTorch's mostly makes it."""
    limits = {"startup": 1.0, "hang": 30.0, "trial": 600.0}
    path = study(tmp_path, strategies=["torch", "tf"], workers=[1], limits=limits, repeats={"min": 1})
    done = scaling("run", path, "--results", tmp_path / "r")
    assert done.returncode == 1
    said = " ".join(done.stdout.split())
    assert "tf, 1 worker, batch 8, launch 1: timeout: rank 0 stood still for 0:00:01, its log says where" in said
    assert "Traceback" not in done.stderr
    assert "timeout: rank 0 stood still" in " ".join(scaling("status", tmp_path / "r").stdout.split())
