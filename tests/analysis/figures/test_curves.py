"""Figures: what must be on them is there, whatever the study is called, and twice the same."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from analysis.figures import breakdown, curves, laws, style, write
from analysis.figures.laws import LOOKS
from analysis.figures.style import looks
from analysis.laws.fit import fit
from analysis.load.results import Results, load
from analysis.measures.breakdown import parts
from analysis.measures.efficiency import estimate
from tests.analysis import blocks, generate

NASTY = "$\\alpha$ _{x}_ <script>alert(1)</script> & %"
CURVES = ("throughput", "speedup", "efficiency")


def make(folder: Path, **options: Any) -> tuple[Results, pl.DataFrame]:
    results = load(generate.study(folder, **{"repeats": 3, **options}))
    return results, estimate(results, resamples=499)


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, pl.DataFrame]:
    return make(tmp_path_factory.mktemp("r") / "s", name=NASTY, hardware={"cpu": "CPU $5 $6"})


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


def panels(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.axison]


def dots(ax: Axes) -> int:
    return sum(np.shape(c.get_offsets())[0] for c in ax.collections if isinstance(c, PathCollection))


@pytest.mark.parametrize("name", CURVES)
def test_every_launch_is_a_dot_and_every_point_has_its_bar(studied: tuple[Results, pl.DataFrame], name: str) -> None:
    results, estimates = studied
    figure = write.FIGURES[name](estimates, results)
    assert len(panels(figure)) == 2
    for ax, scaling in zip(panels(figure), ("strong", "weak"), strict=True):
        assert dots(ax) == results.trials.filter(pl.col(scaling)).height
        bars = [c for c in ax.containers if isinstance(c, ErrorbarContainer)]
        rows = estimates.filter(scaling=scaling)
        assert sum(np.size(bar.lines[0].get_xdata()) for bar in bars) == len(rows)
        assert len(bars) == rows["strategy"].n_unique()


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_is_its_estimates_their_intervals_and_their_launches(
    studied: tuple[Results, pl.DataFrame], name: str
) -> None:
    results, estimates = studied
    for ax, scaling in zip(panels(write.FIGURES[name](estimates, results)), ("strong", "weak"), strict=True):
        bars = {str(c.get_label()).removeprefix("_"): c for c in ax.containers if isinstance(c, ErrorbarContainer)}
        clouds = [c for c in ax.collections if isinstance(c, PathCollection)]
        for (strategy, bar), cloud in zip(bars.items(), clouds, strict=True):
            rows = estimates.filter(scaling=scaling, strategy=strategy).sort("workers")
            assert list(bar.lines[0].get_ydata()) == rows[name].to_list()  # type: ignore[arg-type]
            ends = [(bottom[1], top[1]) for bottom, top in bar.lines[2][0].get_segments()]
            assert np.array(ends) == pytest.approx(rows.select(f"{name}_low", f"{name}_high").to_numpy())
            launches = results.trials.filter(pl.col(scaling), pl.col("strategy") == strategy)
            one = {"throughput": 1.0}.get(name, rows["base_throughput"][0])
            each = launches["throughput"] / one / (launches["workers"] if name == "efficiency" else 1)
            assert np.asarray(cloud.get_offsets())[:, 1].tolist() == pytest.approx(each.to_list())


def test_the_legend_shows_each_strategy_as_it_is_drawn(studied: tuple[Results, pl.DataFrame]) -> None:
    figure = curves.speedup(studied[1], studied[0])
    (legend,) = figure.legends
    shown = {str(line.get_label()).removesuffix(" (base case)"): line for line in legend.get_lines()}
    for container in panels(figure)[0].containers:
        assert isinstance(container, ErrorbarContainer)
        drawn, said = container.lines[0], shown[str(container.get_label()).removeprefix("_")]
        assert isinstance(drawn, Line2D)
        for look in ("color", "marker", "markerfacecolor", "markeredgecolor", "linestyle"):
            assert getattr(said, f"get_{look}")() == getattr(drawn, f"get_{look}")(), look


@pytest.mark.parametrize("name", CURVES)
def test_axes_are_labelled_and_ticks_are_the_worker_counts(studied: tuple[Results, pl.DataFrame], name: str) -> None:
    results, estimates = studied
    figure = write.FIGURES[name](estimates, results)
    first = panels(figure)[0]
    assert first.get_xlabel() == "workers"
    assert first.get_ylabel() != ""
    assert list(first.get_xticks()) == [1, 2, 4]
    assert first.get_xscale() == "log"
    said = texts(figure)
    assert any("strong scaling, 512 samples" in text for text in said)
    assert any("weak scaling, 64 samples" in text for text in said)


def test_the_ideal_line_is_the_number_of_workers(studied: tuple[Results, pl.DataFrame]) -> None:
    results, estimates = studied
    for ax in panels(curves.speedup(estimates, results)):
        (ideal,) = [line for line in ax.lines if line.get_label() == "_ideal"]
        assert list(ideal.get_xdata()) == pytest.approx(list(ideal.get_ydata()))  # type: ignore[arg-type]
    for ax in panels(curves.efficiency(estimates, results)):
        (ideal,) = [line for line in ax.lines if line.get_label() == "_ideal"]
        assert set(ideal.get_ydata()) == {1.0}  # type: ignore[arg-type]
    for ax in panels(curves.throughput(estimates, results)):
        ideals = [line for line in ax.lines if line.get_label() == "_ideal"]
        assert len(ideals) == 2  # one per framework, each so many times its base case
        for line in ideals:
            rates = np.asarray(line.get_ydata()) / np.asarray(line.get_xdata())
            assert rates.tolist() == pytest.approx([rates[0]] * len(rates))
            assert any(rates[0] == pytest.approx(base) for base in estimates["base_throughput"])


@pytest.mark.parametrize("name", [*CURVES, "breakdown"])
def test_base_case_device_launcher_and_launches_are_named(studied: tuple[Results, pl.DataFrame], name: str) -> None:
    results, estimates = studied
    said = "\n".join(texts(write.FIGURES[name](estimates, results)))
    base = estimates.filter(strategy="torch", scaling="strong")["throughput"][0]
    assert f"torch {base:,.0f}" in said
    assert "CPU $5 $6" in said
    assert "local launcher" in said
    assert "3 launches per point" in said


@pytest.mark.parametrize("name", [*CURVES, "breakdown"])
def test_names_are_text_and_never_mathematics(studied: tuple[Results, pl.DataFrame], name: str) -> None:
    results, estimates = studied
    figure = write.FIGURES[name](estimates, results)
    assert any(NASTY[:30] in text for text in texts(figure))
    assert not any(text.get_parse_math() for text in figure.findobj(Text) if "$" in text.get_text())


def test_svg_escapes_names_and_is_the_same_every_time(studied: tuple[Results, pl.DataFrame], tmp_path: Path) -> None:
    results, estimates = studied
    for turn in ("a", "b"):
        style.save(curves.speedup(estimates, results), tmp_path / f"{turn}.svg")
    first, second = ((tmp_path / f"{turn}.svg").read_text() for turn in ("a", "b"))
    assert first == second
    assert "<script" not in first
    assert "<dc:date>" not in first


def test_the_breakdown_adds_up_to_the_step(studied: tuple[Results, pl.DataFrame]) -> None:
    results, estimates = studied
    broken = parts(estimates)
    total = broken["compute"] + broken["exposed communication"] + broken["input wait"] + broken["not broken down"]
    assert total.to_list() == pytest.approx((1e6 * estimates["workers"] / estimates["throughput"]).to_list())
    figure = breakdown.breakdown(estimates, results)
    bars = sum(len(c) for ax in panels(figure) for c in ax.containers if isinstance(c, BarContainer))
    assert bars == 3 * len(estimates)  # compute, exposed, input
    assert sum(dots(ax) for ax in panels(figure)) == sum(results.trials.filter(m).height for m in ("strong", "weak"))


def test_the_ideal_of_the_breakdown_is_the_base_cases_own_bar(studied: tuple[Results, pl.DataFrame]) -> None:
    results, estimates = studied
    bases = parts(estimates.filter(pl.col("strategy") == pl.col("base_case"), pl.col("workers") == 1))
    shown = panels(breakdown.breakdown(estimates, results))
    heights = [line.get_ydata()[0] for ax in shown for line in levels(ax)]
    assert len(heights) == len(shown)
    assert sorted(set(heights)) == pytest.approx(sorted(bases["total"]))


def levels(ax: Axes) -> list[Any]:
    """Lines from edge to edge."""
    return [line for line in ax.lines if np.ptp(np.asarray(line.get_ydata())) == 0 and len(line.get_ydata()) == 2]  # type: ignore[arg-type]


def test_communication_is_never_shown_below_zero(studied: tuple[Results, pl.DataFrame]) -> None:
    """As where the compute-only steps came out slower than the whole ones."""
    broken = parts(studied[1].with_columns(exposed_seconds=pl.lit(-1e-3)))
    assert set(broken["exposed communication"]) == {0.0}
    assert (broken["compute"] + broken["input wait"]).to_list() == pytest.approx(broken["total"].to_list())


def test_a_trial_without_compute_only_steps_is_not_broken_down(tmp_path: Path) -> None:
    results, estimates = make(tmp_path / "s", compute_only=0, ways=generate.TWO_BY_TWO[:2], workers=(1, 2))
    assert estimates["exposed_seconds"].null_count() == len(estimates)
    assert "not broken down" in texts(breakdown.breakdown(estimates, results))


def test_two_by_two_can_be_told_apart_without_colour(studied: tuple[Results, pl.DataFrame]) -> None:
    """Framework by fill, communication by marker and line: no pair of strategies shares all three."""
    found = [(look.filled, look.marker, str(look.line)) for look in looks(studied[1]).values()]
    assert len(set(found)) == len(found) == 6


def test_native_communication_has_the_same_marker_in_both_frameworks(tmp_path: Path) -> None:
    ways = [generate.Way(name) for name in ("torch-ddp", "tf-mirrored", "tf-multiworker")]
    _, estimates = make(tmp_path / "s", ways=ways, workers=(1, 2))
    found = looks(estimates)
    assert list(found) == ["torch-ddp", "tf-mirrored", "tf-multiworker"]
    assert found["tf-multiworker"].marker == found["torch-ddp"].marker != found["tf-mirrored"].marker


def test_emulated_times_say_so_on_every_figure(tmp_path: Path) -> None:
    results, estimates = make(
        tmp_path / "s", hardware={"cpu": "x", "emulated": True}, ways=generate.TWO_BY_TWO[:2], workers=(1, 2, 4, 8)
    )
    drawn = [draw(estimates, results) for draw in write.FIGURES.values()]
    for figure in (*drawn, laws.laws(estimates, results, fit(results))):
        assert figure is not None
        assert any("EMULATED" in text for text in texts(figure))


@pytest.mark.parametrize("workers", [(1,), (1, 2), (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)])
def test_all_figures_are_written_for_any_number_of_worker_counts(tmp_path: Path, workers: tuple[int, ...]) -> None:
    results, _ = make(
        tmp_path / "s", workers=workers, batch_global=9600, ways=generate.TWO_BY_TWO[:3], repeats=2, measured=8
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = write.write_all(results, tmp_path / "figures")
    names = [*write.FIGURES, *(["laws"] if len(workers) > 3 else [])]
    assert [path.name for path in written] == [f"{n}.{end}" for n, end in itertools.product(names, ("svg", "png"))]
    assert all(path.stat().st_size > 5_000 for path in written)


def test_factors_that_vary_get_rows_of_their_own(tmp_path: Path) -> None:
    folder = generate.study(tmp_path / "a", ways=generate.TWO_BY_TWO[3:], workers=(1, 2), repeats=2)
    other = generate.study(
        tmp_path / "b", ways=generate.TWO_BY_TWO[3:], workers=(1, 2), repeats=2, factors={"steps_per_call": 8}
    )
    for trial in (other / "trials").iterdir():
        trial.rename(folder / "trials" / trial.name)
    results = load(folder)
    figure = curves.speedup(estimate(results, resamples=99), results)
    assert len(panels(figure)) == 4
    assert any("steps_per_call 8" in text for text in texts(figure))


def test_curves_can_be_laid_behind(studied: tuple[Results, pl.DataFrame]) -> None:
    results, estimates = studied
    known = curves.Curve("published $x$", "strong", [1, 2, 4], [1.0, 0.9, 0.8])
    figure = curves.efficiency(estimates, results, behind=[known])
    assert any("published $x$" in text for text in texts(figure))
    ys = [list(line.get_ydata()) for line in panels(figure)[0].lines]  # type: ignore[arg-type]
    assert [1.0, 0.9, 0.8] in ys


def test_what_a_law_says_beyond_the_measured_is_marked_extrapolated(tmp_path: Path) -> None:
    results, estimates = make(tmp_path / "s", workers=(1, 2, 4, 8, 16), ways=generate.TWO_BY_TWO[:2], batch_global=3200)
    figure = laws.laws(estimates, results, fit(results))
    assert figure is not None
    assert "extrapolated" in texts(figure)
    reach = max(np.max(np.asarray(line.get_xdata(), dtype=float)) for ax in panels(figure) for line in ax.lines)
    assert reach <= 4 * 16


def test_the_legend_shows_each_law_as_it_is_drawn(tmp_path: Path) -> None:
    """In weak scaling there is no Amdahl: the looks of the others are still their own."""
    results, estimates = make(
        tmp_path / "s", workers=(1, 2, 4, 8, 16), scaling=("weak",), ways=generate.TWO_BY_TWO[:2], measured=8
    )
    figure = laws.laws(estimates, results, fit(results))
    assert figure is not None
    said = {str(line.get_label()): line for line in figure.legends[0].get_lines()}
    assert set(said) == {"Gustafson", "USL", "base case (ideal)"}
    drawn = {str(line.get_color()) for line in panels(figure)[0].lines}
    assert {str(said[law].get_color()) for law in ("Gustafson", "USL")} <= drawn
    assert said["USL"].get_color() == LOOKS["USL"][0]


def test_without_a_launch_that_succeeded_nothing_is_drawn(tmp_path: Path) -> None:
    folder = generate.study(tmp_path / "s", ways=generate.TWO_BY_TWO[:1], repeats=1)
    for outcome in folder.glob("trials/*/outcome.json"):
        outcome.unlink()
    assert write.write_all(load(folder), tmp_path / "figures") == []


def test_a_dot_is_its_launchs_own_pair_where_the_base_case_ran_beside(tmp_path: Path) -> None:
    ways = [generate.Way("torch"), generate.Way("torch-ddp", weak=generate.efficient(0.8))]
    folder = generate.study(
        tmp_path / "r", ways=ways, workers=(1, 2), scaling=("weak",), repeats=3, measured=30, compute_only=30
    )
    results = load(blocks.into(folder, rounds=10, rates={"torch": 1000.0}, launch_cv=0.3))
    wrapped = replace(results, trials=results.trials.filter(strategy="torch-ddp"))  # the base case ran beside only
    for each in (results, wrapped):
        estimates = estimate(each, resamples=499)
        figure = curves.efficiency(estimates, each)
        (ax,) = panels(figure)
        seen = [y for c in ax.collections if isinstance(c, PathCollection) for _, y in np.asarray(c.get_offsets())]
        pairs = each.trials.filter(strategy="torch-ddp").select(
            pl.col("base_each_cost") * pl.col("throughput") / pl.col("workers")
        )
        assert set(np.round(pairs.to_series(), 9)) <= set(np.round(seen, 9))
        said = " ".join(texts(figure))
        assert "speedup and efficiency over the one beside each launch" in " ".join(said.split())
    assert "torch beside other launches only" in " ".join(said.split())
