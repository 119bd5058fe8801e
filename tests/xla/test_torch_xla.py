"""PyTorch/XLA on XLA's CPU devices: the same training as plain PyTorch, on one device and on several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jobs.contract.outcome import read_outcome
from jobs.contract.parts import Steps
from jobs.contract.trial import Trial
from tests.running import Done, launch

Train = Callable[..., Done]

LONG = {"precision": "float32", "global_batch": 64, "steps": Steps(warmup=10, measured=40, compute_only=0)}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    done: dict[str, Done] = {}
    results = tmp_path_factory.mktemp("xla")

    def once(strategy: str, workers: int = 1, **factors: Any) -> Done:
        # XLA's convolutions in float64 are slow on CPUs: a small batch, few steps.
        fields = {"precision": "float64", "global_batch": 16, "steps": Steps(warmup=2, measured=8, compute_only=4)}
        fields |= factors
        trial = Trial.of(strategy=strategy, workers=workers, **fields)
        if trial.id not in done:
            done[trial.id] = launch(trial, results)
        outcome = done[trial.id].outcome
        assert outcome.status == "ok", (outcome.error, outcome.exits)
        return done[trial.id]

    return once


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_float64_losses_are_those_of_plain_pytorch_whatever_the_devices(workers: int, train: Train) -> None:
    reference = train("torch").losses()
    assert len(reference) == 10
    assert len(set(reference)) == 10
    np.testing.assert_allclose(train("torch-xla", workers).losses(), reference, rtol=0, atol=1e-10)


def test_float32_losses_stay_together_for_50_steps(train: Train) -> None:
    reference, done = train("torch", **LONG), train("torch-xla", **LONG)
    reference, losses = reference.losses(), done.losses()
    assert len(losses) == 50
    assert reference[-1] < reference[0] / 2
    assert (done.outcome.test_accuracy or 0) > 0.9
    np.testing.assert_allclose(losses[:10], reference[:10], rtol=0, atol=1e-4)
    np.testing.assert_allclose(losses, reference, rtol=0, atol=2e-3)


def test_sixteen_bits_are_mixed(train: Train) -> None:
    done, exact = train("torch-xla", **LONG | {"precision": "bfloat16"}), train("torch", **LONG).losses()
    losses = done.losses()
    np.testing.assert_allclose(losses[:10], exact[:10], rtol=0, atol=5e-2)
    assert np.abs(losses[:10] - exact[:10]).max() > 1e-4  # and not float32 under another name
    assert (done.outcome.test_accuracy or 0) > 0.9


def test_several_steps_per_call_change_the_clock_but_not_the_training(train: Train) -> None:
    done = train("torch-xla", 2, steps_per_call=2)
    np.testing.assert_allclose(done.losses(), train("torch").losses(), rtol=0, atol=1e-10)
    assert done.outcome.timing_granularity == 2
    seconds = [row["seconds"] for row in done.rows(0, "train")]
    assert seconds[0::2] == seconds[1::2]


def test_no_step_after_the_first_ones_is_compiled(train: Train) -> None:
    """A step that is compiled anew takes ten times as long: seen where a batch was indexed on the device."""
    seconds = np.array([row["seconds"] for row in train("torch-xla", **LONG).rows(0, "train")])
    assert np.median(seconds[10:]) * 5 < seconds[0]
    assert np.percentile(seconds[10:], 90) < 3 * np.median(seconds[10:])


def test_a_step_that_only_computes_is_that_of_one_devices_part(train: Train) -> None:
    done = train("torch-xla", 2)
    found = done.losses("compute_only")
    assert len(found) == 3 + 4
    assert np.isfinite(found).all()
    assert len(set(found)) == len(found)


def test_it_is_its_own_base_case_and_says_what_it_ran_on(train: Train) -> None:
    done = train("torch-xla", 2)
    outcome = read_outcome(done.folder)
    assert outcome is not None
    assert (outcome.framework, outcome.base_case, outcome.emulated) == ("PyTorch", "torch-xla", False)
    assert outcome.versions["torch_xla"] == "2.9.0"
    (rank,) = outcome.ranks
    assert (rank.device, rank.intra_op_threads) == ("cpu", 2)
