"""The notebook: kept clean, and executed from a copy of the project with CPU devices standing in for cores."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from PIL import Image

import scaling_notebook
from analysis.load.results import load
from analysis.verdicts.claims import judge
from cluster.results import importing
from cluster.study.schema import StudyError
from scaling import examine
from tests.warm.forges import lead, warm

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "colab_tpu.ipynb"
TINY = {
    "name": "tiny",
    "strategies": ["tf-tpu", "jax"],
    "workers": [1, 2],
    "scaling": ["strong"],
    "batch": {"global": 8},
    "steps": {"warmup": 2, "measured": 6, "compute_only": 2},
    "resources": {"tpu": "emulated"},
}
PARAMETERS = 'PROJECT, STUDY, CORES, BATCH, REPEATS, STEPS = "project.zip", "../../tiny.yaml", "1, 2", 16, 2, 6'
# A disconnected runtime: what was kept comes back into a folder that has nothing.
AGAIN = """
import shutil
drive = pathlib.Path("drive")
drive.mkdir()
cells.measure(study, drive)
results.rename("before")
cells.measure(study, drive)
# What was kept and is not here comes back, whatever else is here.
shutil.rmtree(next((results / "trials").iterdir()))
cells.measure(study, drive)
"""


@pytest.fixture(scope="module")
def cells() -> list[Any]:
    return list(nbformat.read(NOTEBOOK, as_version=4).cells)


def test_it_is_kept_without_outputs(cells: list[Any]) -> None:
    nbformat.validate(nbformat.read(NOTEBOOK, as_version=4))
    for cell in cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_it_is_short_cells_with_a_sentence_each_and_no_logic_of_its_own(cells: list[Any]) -> None:
    for before, cell in pairwise(cells):
        if cell.cell_type != "code":
            continue
        assert before.cell_type == "markdown"
        if cell.id not in ("parameters", "install"):
            assert len(cell.source.splitlines()) <= 4
            assert not re.search(r"^\s*(for|while|def|class|try|with)\b", cell.source, re.M)


def test_its_form_has_cores_batch_and_repeats(cells: list[Any]) -> None:
    form = next(c for c in cells if "parameters" in c.metadata.get("tags", [])).source
    for name, kind in {"CORES": "string", "BATCH": "integer", "REPEATS": "integer", "PROJECT": "string"}.items():
        assert re.search(rf'^{name} = .*# @param {{type:"{kind}"}}$', form, re.M)


def test_it_says_what_one_chip_can_show_and_where_more_are(cells: list[Any]) -> None:
    text = "".join(c.source for c in cells)
    for said in ("Free Colab has one chip", "Kaggle's accelerator TPU v5e-8", "*emulated*"):
        assert said in text
    assert nbformat.read(NOTEBOOK, as_version=4).metadata["colab"]["gpuType"] == "V5E1"


def test_the_badges_and_the_project_to_clone_name_one_address(cells: list[Any]) -> None:
    """OWNER until the project has a home; then it is to be replaced in both files."""
    badge = re.compile(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob/[\w.-]+/(\S+\.ipynb)")
    texts = (cells[0].source, (ROOT / "README.md").read_text())
    named = {match.groups() for text in texts for match in badge.finditer(text)}
    assert len(named) == 1
    repository, path = named.pop()
    assert (ROOT / path) == NOTEBOOK
    form = next(c for c in cells if "parameters" in c.metadata.get("tags", [])).source
    assert f'PROJECT = "https://github.com/{repository}"' in form


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory, forge_folder: Path) -> tuple[dict[str, Any], Path]:
    """The notebook's cells by id after "Run all", and the folder it worked in: an unpacked zip of the project.

    Its ranks are warm (tests/warm).
    """
    place = tmp_path_factory.mktemp("colab")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        (place / "zip" / "scaling-main" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, place / "zip" / "scaling-main" / name)
    shutil.make_archive(str(place / "project"), "zip", place / "zip")
    (place / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    at = next(i for i, cell in enumerate(notebook.cells) if cell.id == "parameters")
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(PARAMETERS))
    notebook.cells.append(nbformat.v4.new_code_cell(AGAIN, id="again"))
    with pytest.MonkeyPatch.context() as patch:
        lead(patch, warm(forge_folder))
        NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(place)}}).execute()
    nbformat.write(notebook, place / "executed.ipynb")
    return {cell.id: cell for cell in notebook.cells}, place / "project" / "scaling-main"


def said(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_without_a_tpu_it_runs_through_and_says_emulated(executed: tuple[dict[str, Any], Path]) -> None:
    cells, _ = executed
    assert "All results below are EMULATED" in said(cells["find"])
    assert "name: tiny-emulated-tpu-2" in said(cells["study"])
    assert "6/6 " in said(cells["measure"])
    assert "failed" not in said(cells["measure"])
    assert "These results are EMULATED" in said(cells["verdicts"])
    (table,) = [o.data["text/html"] for o in cells["verdicts"].outputs if "data" in o]
    row = next(r for r in table.split("<tr>") if "TensorFlow is best for Google's TPU" in r)
    assert "<td>untested</td>" in row
    assert "MLPerf Training v0.7" in row


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_draws_the_curves_and_the_figures_say_emulated(executed: tuple[dict[str, Any], Path]) -> None:
    cells, place = executed
    images = [o.data["image/png"] for o in cells["curves"].outputs if "image/png" in o.get("data", {})]
    assert len(images) >= 4
    figures = place / "before" / "figures"
    assert "emulated" in (figures / "throughput.svg").read_text().lower()
    with Image.open(figures / "throughput.png") as picture:
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 50


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_zip_comes_home_and_a_new_runtime_goes_on(executed: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    cells, place = executed
    brought = importing.bring(place / "tiny-emulated-tpu-2.zip", tmp_path / "home", examine)
    assert (brought.launches, brought.refused) == ({"tf-tpu": 4, "jax": 2}, [])
    results = load(tmp_path / "home")
    assert results.trials["emulated"].all()
    assert next(v for v in judge(results) if v.claim.id == "tf-suits-tpu").verdict == "untested"
    again = said(cells["again"])
    assert "6 launches (jax 2, tf-tpu 4)" in again
    assert again.count("6 launches are measured already") == 3
    assert "there already, the same: 5 launches" in again


def plan(tpu: scaling_notebook.Tpu, tmp_path: Path, content: dict[str, Any] = TINY, **fields: Any) -> Any:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    given = {"cores": "all", "batch": 64, "repeats": 3, "steps": 0, "study": tmp_path / "tiny.yaml"}
    return scaling_notebook.plan_study(tpu, Path("/env/bin/python"), **(given | fields))


EIGHT = scaling_notebook.Tpu("TPU v5e", 8, emulated=False)


def test_the_form_becomes_the_study(tmp_path: Path) -> None:
    study = plan(EIGHT, tmp_path)
    assert (study.slug, study.workers, study.resources.tpu) == ("tiny-v5e-8", [1, 2, 4, 8], "real")
    assert (study.batch.global_, study.repeats.min) == (64, 3)
    assert study.launcher.options["python"] == {"tf-tpu": "/env/bin/python"}
    assert plan(EIGHT, tmp_path, cores=" 1,4 ").workers == [1, 4]


def test_where_cpus_stand_in_less_is_measured(tmp_path: Path) -> None:
    six = scaling_notebook.Tpu("emulated TPU", 6, emulated=True)
    large = TINY | {"steps": {"warmup": 100, "measured": 500, "compute_only": 100}, "steps_per_call": 50}
    study = plan(six, tmp_path, large, batch=512)
    assert study.workers == [1, 2, 4]  # 6 does not divide the batch
    assert (study.batch.global_, study.steps.warmup, study.steps.measured, study.steps_per_call) == (64, 10, 30, 10)
    assert plan(six, tmp_path, large, steps=20).steps.measured == 20
    assert plan(EIGHT, tmp_path, large, batch=512).steps.measured == 500


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cores": "many"}, "cores: 'many' is wrong; write all, or numbers such as 1, 2, 4"),
        ({"cores": "1, 16"}, "cores: 16: there are 8"),
        ({"repeats": 0}, "repeats.min: 0 is wrong"),
        ({"study": Path("nowhere.yaml")}, "nowhere.yaml: No such file or directory"),
    ],
)
def test_a_wrong_form_field_is_a_line_without_a_traceback(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        plan(EIGHT, tmp_path, **fields)
    assert str(stopped.value).startswith(said)
    assert not isinstance(stopped.value, StudyError)


def test_where_no_tensorflow_works_the_menu_entry_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cluster.setup import tpu as tpu_setup

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tpu_setup, "environment", lambda place, candidate: (place, "it does not fit"))
    assert scaling_notebook.find_tensorflow(EIGHT) is None
    text = capsys.readouterr().out
    assert "Command palette (Ctrl+Shift+P) > Change runtime version > 2026.07" in text
    assert "tensorflow-tpu==2.20.0: it does not fit" in text
    assert scaling_notebook.plan_study(
        EIGHT, None, cores="1", batch=8, repeats=1, steps=0, study=_written(tmp_path)
    ).strategies == ["jax"]


def _written(place: Path) -> Path:
    (place / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return place / "tiny.yaml"


def test_one_core_is_said_to_be_a_point(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from jobs.machine import tpu

    monkeypatch.setattr(tpu, "chips", lambda: ["v5e"])
    monkeypatch.setattr(tpu, "cores", lambda: 1)
    assert scaling_notebook.find_tpu() == scaling_notebook.Tpu("TPU v5e", 1, emulated=False)
    text = capsys.readouterr().out
    assert "Found TPU v5e with 1 core." in text
    assert "One core gives a point, not a curve" in text
