"""A workload of another package is shown by its module alone; one that nobody knows does not vanish."""

from __future__ import annotations

import importlib
import io
import json
import sys
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from analysis.load.results import load
from analysis.report.terminal import show_results
from analysis.workloads.interface import WORKLOADS, Workload, shown, unknown, untold
from tests.analysis import generate

# All that a package brings: its module, and an entry point that names it.
MODULE = """
import polars as pl

from analysis.cells import Column, Table, number, whole
from analysis.workloads.interface import Workload


def numbers(results):
    ok = results.trials.filter(workload="nap", status="ok")
    return ok.group_by("strategy").agg(pl.len().alias("n_launches"), pl.col("step_p50").mean().alias("seconds"))


def table(frame):
    rows = [[whole(row["n_launches"]), number(row["seconds"], unit="ms")] for row in frame.iter_rows(named=True)]
    return Table("naps", "Naps taken", [Column("launches", True), Column("ms", True)], rows)


def draw(frame, results):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 2))
    figure.subplots().bar(frame["strategy"], frame["seconds"])
    return figure


WORKLOAD = Workload(
    numbers=numbers,
    render=lambda frame: f"a nap lasts {frame['seconds'][0]} seconds",
    section="Naps",
    about="The ranks sleep.",
    table=table,
    figure="their_nap:draw",
    picture="Bar chart of seconds",
    finding=lambda frame: f"The median nap is {frame['seconds'][0]} seconds.",
    file="nap",
)
"""
ENTRY_POINTS = "[scaling.analysis]\nnap = their_nap\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed as pip leaves it, on a path of its own."""
    place = tmp_path / "site"
    information = place / "their_nap-1.0.dist-info"
    information.mkdir(parents=True)
    (place / "their_nap.py").write_text(MODULE)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: their-nap\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delitem(sys.modules, "their_nap", raising=False)


def naps(folder: Path, repeats: int = 3) -> Path:
    """Launches whose steps of a workload of its own last a quarter of a second."""
    for repeat in range(repeats):
        home = folder / "trials" / f"torch-n1-b4-00000000-r{repeat:02d}"
        home.mkdir(parents=True)
        trial = {"strategy": "torch", "workers": 1, "global_batch": 4, "repeat": repeat, "workload": "nap"}
        trial |= {"steps": {"warmup": 1, "measured": 3}}
        outcome = {"format": 1, "trial_id": home.name, "status": "ok", "workers": 1, "ranks": [{"rank": 0}]}
        outcome |= {"framework": "PyTorch", "communication": "none", "order": repeat}
        lines = [
            {"phase": "nap", "step": step, "seconds": 0.25, "data_seconds": 0.0, "samples": 4, "warmup": step == 0}
            for step in range(4)
        ]
        (home / "trial.json").write_text(json.dumps(trial))
        (home / "outcome.json").write_text(json.dumps(outcome))
        (home / "rank-00000.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def seen(folder: Path) -> tuple[str, str]:
    """What the terminal shows, and the page."""
    console = Console(width=140, record=True, file=io.StringIO())
    show_results(console, folder)
    return console.export_text(), (folder / "report" / "index.html").read_text(encoding="utf-8")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


@pytest.mark.usefixtures("package")
def test_a_package_brings_a_workload(tmp_path: Path) -> None:
    folder = naps(tmp_path / "results")
    text, page = seen(folder)
    assert "a nap lasts 0.25 seconds" in text
    assert names(folder / "figures") == {"nap.svg", "nap.png"}
    assert names(folder / "report" / "figures") >= {"nap.svg", "nap.png"}
    assert pl.read_csv(folder / "report" / "tables" / "nap.csv").row(0) == ("torch", 3, 0.25)
    assert '<a href="#naps">Naps</a>' in page
    section = page[page.index('<section id="naps"') :].partition("</section>")[0]
    for said in (
        "The ranks sleep.",
        'alt="Bar chart of seconds. The median nap is 0.25 seconds.',
        "Naps taken",
        ">250<",
    ):
        assert said in section
    assert "This study trains nothing." in page
    assert not untold(load(folder))


@pytest.mark.usefixtures("package")
def test_it_stands_beside_what_is_trained(tmp_path: Path) -> None:
    folder = generate.study(tmp_path / "results", ways=generate.TWO_BY_TWO[:2], workers=(1, 2), repeats=2, measured=5)
    launches = load(naps(folder)).trials
    text, page = seen(folder)
    assert "a nap lasts" in text
    assert page.index('id="laws"') < page.index('id="naps"') < page.index('id="claims"')
    assert {"throughput.svg", "nap.svg"} <= names(folder / "figures")
    assert len(pl.read_csv(folder / "report" / "tables" / "launches.csv")) == len(launches)


def test_what_nobody_here_can_show_is_said(tmp_path: Path) -> None:
    folder = naps(tmp_path / "results")
    text, page = seen(folder)
    said = "3 launches are of workload nap, which this installation cannot show"
    assert said in text
    assert f"{said}; they are in the list of launches" in page
    rows = page[page.index('id="table-launches"') :].partition("</table>")[0]
    assert rows.count(">nap<") == 3
    assert "No launch has succeeded" not in page
    assert shown(load(folder)) == []
    assert list(unknown(load(folder))) == ["nap"]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import no_such_thing", "whose module cannot be used: No module named 'no_such_thing'"),
        ("", "whose module cannot be used: module 'their_nap' has no attribute 'WORKLOAD'"),
        ("WORKLOAD = 3", "whose module their_nap has something else as WORKLOAD"),
    ],
)
@pytest.mark.usefixtures("package")
def test_a_broken_package_costs_nothing_but_its_own(source: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "site" / "their_nap.py").write_text(source)
    assert untold(load(naps(tmp_path / "results"))) == [f"3 launches are of workload nap, {why}"]


def test_packages_are_looked_for_only_where_launches_are_of_an_unknown_workload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked(**_: str) -> None:
        raise AssertionError("looked through all packages")

    monkeypatch.setattr("analysis.workloads.interface.metadata.entry_points", looked)
    trained = load(generate.study(tmp_path / "a", ways=generate.TWO_BY_TWO[:1], workers=(1,), repeats=1, measured=4))
    assert (shown(trained), unknown(trained)) == ([], {})
    with pytest.raises(AssertionError, match="looked"):
        shown(load(naps(tmp_path / "b")))


def test_each_of_ours_is_where_the_registry_says() -> None:
    files = []
    for name, module in WORKLOADS.items():
        assert module.rpartition(".")[2] == name
        workload = importlib.import_module(module).WORKLOAD
        assert isinstance(workload, Workload)
        drawing, _, function = workload.figure.partition(":")
        assert callable(getattr(importlib.import_module(drawing), function))
        files.append(workload.file)
    assert files == ["inference", "ingest"]
