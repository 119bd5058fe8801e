"""Published efficiency behind one's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from matplotlib.figure import Figure

from analysis.figures import published, style
from analysis.load.results import load
from tests.analysis import generate


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ways = [generate.Way("torch", rate=1000.0), generate.Way("torch-ddp", rate=990.0)]
    return generate.study(tmp_path_factory.mktemp("known") / "r", ways=ways, workers=(1, 2, 4), repeats=3)


def test_published_series_stand_behind_and_the_axis_reaches_them(study: Path, tmp_path: Path) -> None:
    paths = published.write(load(study), tmp_path, ["pytorch_ddp_readme:resnet50"])
    assert [p.name for p in paths] == ["efficiency-published.svg", "efficiency-published.png"]
    assert all(p.stat().st_size > 10_000 for p in paths)
    text = paths[0].read_text()
    assert "resnet50, PyTorch DDP NCCL" in text  # the legend is text or its comment
    assert ">16<" in text or "<!-- 16 -->" in text


@pytest.mark.parametrize("wanted", ["pytorch_dp", "pytorch_ddp_readme:resnet5", ""])
def test_an_unknown_source_is_refused_by_name(wanted: str, study: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no |not "):
        published.write(load(study), tmp_path / "none", [wanted])
    assert not (tmp_path / "none").exists()


def test_behind_strong_scaling_published_series_say_that_theirs_is_weak(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = load(study)
    strong = replace(results, trials=results.trials.filter("strong").with_columns(weak=pl.lit(False)))
    figures: list[Figure] = []
    monkeypatch.setattr(style, "save", lambda figure, path: figures.append(figure))
    published.write(strong, tmp_path, ["pytorch_ddp_readme:resnet50"])
    said = [text.get_text() for text in figures[0].legends[0].get_texts() if "PyTorch DDP" in text.get_text()]
    assert said
    assert all(text.startswith("weak scaling: ") for text in said)
