"""Published efficiency behind one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis import plot_published
from analysis.load import load
from tests.analysis import generate


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ways = [generate.Way("torch", rate=1000.0), generate.Way("torch-ddp", rate=990.0)]
    return generate.study(tmp_path_factory.mktemp("known") / "r", ways=ways, workers=(1, 2, 4), repeats=3)


def test_published_series_stand_behind_and_the_axis_reaches_them(study: Path, tmp_path: Path) -> None:
    paths = plot_published.write(load(study), tmp_path, ["pytorch_ddp_readme:resnet50"])
    assert [p.name for p in paths] == ["efficiency-published.svg", "efficiency-published.png"]
    assert all(p.stat().st_size > 10_000 for p in paths)
    text = paths[0].read_text()
    assert "resnet50, PyTorch DDP NCCL" in text  # the legend is text or its comment
    assert ">16<" in text or "<!-- 16 -->" in text


@pytest.mark.parametrize("wanted", ["pytorch_dp", "pytorch_ddp_readme:resnet5", ""])
def test_an_unknown_source_is_refused_by_name(wanted: str, study: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no |not "):
        plot_published.write(load(study), tmp_path / "none", [wanted])
    assert not (tmp_path / "none").exists()
