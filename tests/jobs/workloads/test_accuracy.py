"""Time to accuracy, and the learning rate that large batches are given."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from analysis.load.results import load
from analysis.workloads.accuracy import times
from cluster.results.folder import ResultsFolder
from cluster.study import file
from jobs.contract.files import rank_file
from jobs.contract.parts import Steps
from jobs.contract.trial import Trial
from jobs.data.dataset import Indices
from jobs.rank.watchdog import Watchdog
from jobs.strategies import learning_rate
from jobs.strategies.interface import Losses
from jobs.workloads.accuracy import train_until
from tests.running import Done, launch

STEPS = Steps(warmup=2, measured=2, compute_only=2, at_most=120, evaluate_every=20)

pytestmark = pytest.mark.usefixtures("warm_ranks")


def trial(strategy: str, workers: int, **factors: Any) -> Trial:
    content = {"strategy": strategy, "workers": workers, "global_batch": 64, "steps": STEPS, "until_accuracy": 0.85}
    return Trial.model_validate(content | factors)


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return launch(trial("torch", 1), tmp_path_factory.mktemp("reached"))


def curve(done: Done) -> list[tuple[int, float]]:
    assert done.outcome.status == "ok", (done.outcome.error, done.outcome.exits)
    assert done.outcome.accuracy_curve is not None
    return [(point.step, point.accuracy) for point in done.outcome.accuracy_curve]


def test_training_ends_at_the_first_look_that_is_good_enough(reached: Done) -> None:
    points = curve(reached)
    assert [step for step, _ in points] == list(range(0, 20 * len(points), 20))
    assert all(accuracy < 0.85 for _, accuracy in points[:-1])
    assert points[0][1] < 0.3  # before the first step: it begins untrained
    found = reached.outcome.accuracy_reached
    assert found is not None
    assert (found.step, found.accuracy) == points[-1]
    assert found.accuracy >= 0.85
    assert found.samples == 64 * found.step
    assert found == reached.outcome.ranks[0].accuracy_reached


class Sleepy:
    """A strategy whose steps take no time; looks take 0.3 s each, and so does starting over."""

    clock = None

    def __init__(self) -> None:
        self.context = SimpleNamespace(dataset=SimpleNamespace(train_labels=np.zeros(640)))
        self.looks = 0

    def start_over(self) -> None:
        time.sleep(0.3)

    def train(self, batches: Indices) -> Losses:
        return np.zeros(len(batches))

    def evaluate(self) -> float:
        time.sleep(0.3)
        self.looks += 1
        return 0.2 * self.looks


def test_looks_and_starting_over_are_not_in_its_time(tmp_path: Path) -> None:
    asked = trial("torch", 1)
    rows: list[dict[str, object]] = []
    alone = SimpleNamespace(place=SimpleNamespace(rank=0, world_size=1), gather=lambda mine: [mine])
    dog = Watchdog(tmp_path / "alive", 60.0)
    found, points = train_until(0.85, asked, cast(Any, Sleepy()), cast(Any, alone), dog, rows)
    dog.stop()
    assert found is not None
    assert (found.step, len(points), len(rows)) == (80, 5, 80)
    assert found.seconds < 0.3  # of 1.8


def test_its_clock_is_that_of_its_own_steps_and_the_measured_steps_stay_what_they_were(reached: Done) -> None:
    rows = reached.rows(0, "accuracy")
    found = reached.outcome.accuracy_reached
    assert found is not None
    assert [row["step"] for row in rows] == list(range(found.step))
    assert found.seconds == pytest.approx(sum(row["seconds"] for row in rows), abs=1e-6)
    assert [row["step"] for row in reached.rows(0, "train")] == [0, 1, 2, 3]
    # From the initial weights, in the same order of batches.
    assert [row["loss"] for row in rows[:4]] == [row["loss"] for row in reached.rows(0, "train")]


def test_the_analysis_finds_the_time_that_was_measured(reached: Done, tmp_path: Path) -> None:
    content: dict[str, Any] = {"name": "accuracy", "strategies": ["torch"], "workers": [1], "scaling": ["strong"]}
    content |= {"batch": {"global": 64}, "steps": STEPS.model_dump(), "until_accuracy": 0.85}
    folder = ResultsFolder(tmp_path)
    folder.open(file.check(content))
    folder.close()
    shutil.copytree(reached.folder, tmp_path / "trials" / reached.folder.name)
    (row,) = times(load(tmp_path)).filter(scaling="strong").to_dicts()
    found = reached.outcome.accuracy_reached
    assert found is not None
    assert (row["strategy"], row["workers"], row["n_reached"], row["until_accuracy"]) == ("torch", 1, 1, 0.85)
    assert (row["seconds"], row["steps"]) == (pytest.approx(found.seconds), found.step)
    assert (row["samples"], row["best"]) == (found.samples, found.accuracy)


@pytest.mark.parametrize(
    ("strategy", "factors"),
    [
        ("torch-ddp", {}),
        pytest.param("torch-horovod", {}, marks=pytest.mark.horovod),
        ("tf-mirrored", {"steps_per_call": 2}),
        ("tf-multiworker", {}),
        pytest.param("tf-horovod", {}, marks=pytest.mark.horovod),
    ],
)
def test_all_ranks_stop_after_the_same_step_whatever_the_strategy(
    strategy: str, factors: dict[str, Any], reached: Done, tmp_path: Path
) -> None:
    done = launch(trial(strategy, 2, **factors), tmp_path)
    points, expected = curve(done), curve(reached)
    assert [step for step, _ in points] == [step for step, _ in expected]
    np.testing.assert_allclose([a for _, a in points], [a for _, a in expected], atol=0.03)
    # From the initial weights and with a fresh optimizer, in the same order of batches.
    np.testing.assert_allclose(done.losses("accuracy")[:4], done.losses("train"), rtol=1e-4)
    seconds = [[row["seconds"] for row in done.rows(rank, "accuracy")] for rank in range(done.trial.processes)]
    found = done.outcome.accuracy_reached
    assert found is not None
    assert {len(times) for times in seconds} == {found.step}
    assert found.seconds == pytest.approx(np.max(seconds, axis=0).sum(), abs=1e-5)
    reports = [json.loads(rank_file(done.folder, rank, "json").read_text()) for rank in range(done.trial.processes)]
    assert [bool(report["accuracy_curve"]) for report in reports] == [True, False][: len(reports)]


def test_an_accuracy_that_is_not_reached_is_no_failure_and_its_curve_is_kept(tmp_path: Path) -> None:
    steps = STEPS.model_copy(update={"at_most": 6, "evaluate_every": 4, "compute_only": 0})
    done = launch(trial("torch", 1, steps=steps, until_accuracy=0.999), tmp_path)
    assert [step for step, _ in curve(done)] == [0, 4, 6]
    assert done.outcome.accuracy_reached is None


# The learning rate


def rated(batch: int, **factors: Any) -> Trial:
    return trial("torch-ddp", 2, global_batch=batch, learning_rate=0.001, **factors)


@pytest.mark.parametrize(("rule", "factor"), [("linear", 4.0), ("sqrt", 2.0)])
def test_a_rule_multiplies_the_rate_by_what_the_batch_is_of_its_reference(rule: str, factor: float) -> None:
    assert learning_rate.peak(rated(256).recipe, 256) == 0.001
    assert learning_rate.peak(rated(64, learning_rate_rule=rule, reference_batch=64).recipe, 64) == 0.001
    peak = learning_rate.peak(rated(256, learning_rate_rule=rule, reference_batch=64).recipe, 256)
    assert peak == pytest.approx(factor * 0.001)


def test_a_warm_up_rises_in_equal_steps_and_stays_there() -> None:
    warming = rated(128, learning_rate_rule="linear", reference_batch=64, learning_rate_warmup=4)
    rates = [learning_rate.at(warming.recipe, warming.global_batch, step) for step in range(6)]
    np.testing.assert_allclose(rates, [0.0005, 0.001, 0.0015, 0.002, 0.002, 0.002])
    assert [learning_rate.at(rated(64).recipe, 64, step) for step in (0, 9)] == [0.001, 0.001]


def test_keras_own_schedule_rises_in_the_same_way() -> None:
    from jobs.strategies.tf.adam import rising

    schedule = rising(0.001, 4)
    np.testing.assert_allclose([float(schedule(s)) for s in range(6)], [0.00025, 0.0005, 0.00075, 0.001, 0.001, 0.001])
