"""The check for a steady state raises its alarm as rarely as it says, and does raise it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.stats import steady
from tests.analysis.generate import Shape, step_noise

STUDIES = 250


def alarms(series: list[NDArray[np.float64]]) -> float:
    return sum(steady.check(seconds)[0] is False for seconds in series) / len(series)


def noise(steps: int, rng: np.random.Generator, lag1: float = 0.0, outliers: float = 0.0) -> NDArray[np.float64]:
    white = step_noise(rng, Shape(step_cv=0.05, autocorrelation=lag1), steps)
    late = (rng.random(steps) < outliers) * rng.exponential(1.0, steps)
    return np.asarray(0.05 * (white + late), dtype=np.float64)


@pytest.mark.parametrize("steps", [20, 50, 200, 1000])
@pytest.mark.parametrize("outliers", [0.0, 0.03])
def test_steady_steps_raise_at_most_two_percent_false_alarms(steps: int, outliers: float) -> None:
    rng = np.random.default_rng(steps)
    assert alarms([noise(steps, rng, outliers=outliers) for _ in range(STUDIES)]) <= 0.02


@pytest.mark.parametrize("steps", [50, 200, 1000])
def test_autocorrelated_steps_raise_at_most_six_percent_false_alarms(steps: int) -> None:
    rng = np.random.default_rng(steps)
    assert alarms([noise(steps, rng, lag1=0.6) for _ in range(STUDIES)]) <= 0.06


@pytest.mark.parametrize(("steps", "least"), [(50, 0.6), (200, 0.95)])
def test_a_drift_of_ten_percent_is_noticed_in_noise_of_five(steps: int, least: float) -> None:
    rng = np.random.default_rng(1)
    drift = 1 + 0.1 * np.linspace(0, 1, steps)
    assert alarms([noise(steps, rng) * drift for _ in range(100)]) >= least


def test_a_late_shift_is_noticed_and_placed() -> None:
    rng = np.random.default_rng(2)
    seconds = noise(200, rng) * np.where(np.arange(200) < 150, 1.0, 1.2)
    is_steady, note = steady.check(seconds)
    assert is_steady is False
    assert "shifts by +" in note
    assert abs(int(note.rsplit(" ", 1)[1]) - 150) <= 10


def test_what_is_too_small_to_matter_is_no_alarm() -> None:
    seconds = np.linspace(1.0, 1.01, 200)
    assert steady.check(seconds)[0] is True


def test_equal_steps_are_steady() -> None:
    assert steady.check(np.full(50, 0.1)) == (True, "")


def test_a_few_steps_are_not_judged() -> None:
    is_steady, note = steady.check(np.full(5, 0.1))
    assert is_steady is None
    assert "too few" in note


def test_blocks_end_with_the_last_step_so_a_shift_is_placed_to_the_step() -> None:
    """What does not fill a block is left over beside the warm-up, where it matters least."""
    steps, left_over, at = 239, 5, 125  # blocks of six
    assert (steps - left_over) % 6 == (at - left_over) % 6 == 0
    rng = np.random.default_rng(0)
    seconds = rng.normal(1.0, 0.001, steps) * np.where(np.arange(steps) < at, 1.0, 1.2)
    assert steady.check(seconds) == (False, f"step time shifts by +20.0% at measured step {at}")
