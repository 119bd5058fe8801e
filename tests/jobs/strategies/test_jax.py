"""JAX beside the other frameworks: the same training on one device and on as many as a TPU has cores.

1, 2 and 4 devices of `jax-sharded` over 20 steps are in test_parity.py, with all strategies.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.contract.catalog import STRATEGIES
from jobs.contract.parts import Steps
from jobs.contract.trial import Trial
from jobs.strategies import learning_rate
from jobs.strategies.jax.plain import intra_op_threads
from tests.running import Done, launch

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("warm_ranks")]


def train(folder: Path, strategy: str, workers: int = 1, **factors: Any) -> Done:
    fields = {"global_batch": 16, "precision": "float64", "steps": Steps(warmup=2, measured=4, compute_only=2)}
    done = launch(Trial.model_validate({"strategy": strategy, "workers": workers} | fields | factors), folder)
    assert done.outcome.status == "ok", (done.outcome.error, done.outcome.exits)
    return done


@pytest.fixture(scope="module")
def torch_losses(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return train(tmp_path_factory.mktemp("torch"), "torch").losses()


def test_one_device_trains_as_pytorch_does(torch_losses: np.ndarray, tmp_path: Path) -> None:
    done = train(tmp_path, "jax")
    np.testing.assert_allclose(done.losses(), torch_losses, rtol=0, atol=1e-10)
    assert (done.outcome.framework, done.outcome.base_case, done.outcome.emulated) == ("JAX", "jax", False)
    (rank,) = done.outcome.ranks
    assert (rank.device, rank.parameters, rank.intra_op_threads, rank.threads) == ("cpu", 387466, 1, 1)
    assert {"jax", "jaxlib", "optax"} <= rank.versions.keys()


def test_eight_devices_and_several_steps_per_call_train_as_one(torch_losses: np.ndarray, tmp_path: Path) -> None:
    done = train(tmp_path, "jax-sharded", 8, steps_per_call=2)
    np.testing.assert_allclose(done.losses(), torch_losses, rtol=0, atol=1e-10)
    assert done.outcome.ranks[0].intra_op_threads == 8
    assert done.outcome.timing_granularity == 2
    seconds = [row["seconds"] for row in done.rows(0, "train")]
    assert seconds[0::2] == seconds[1::2]


def test_sixteen_bits_are_mixed(torch_losses: np.ndarray, tmp_path: Path) -> None:
    """Near what float64 gives, and not the same: the arithmetic is in 16 bits, the weights are not."""
    away = np.abs(train(tmp_path, "jax", precision="bfloat16").losses() - torch_losses)
    assert 1e-5 < away[0] < 1e-2
    assert away.max() < 0.1


def test_the_rate_rises_as_jobs_learning_rate_has_it(tmp_path: Path) -> None:
    warming = {"learning_rate_warmup": 2, "learning_rate_rule": "linear", "reference_batch": 8}
    done = train(tmp_path, "jax", **warming)
    assert [learning_rate.at(done.trial.recipe, done.trial.global_batch, step) for step in range(3)] == [
        1e-3,
        2e-3,
        2e-3,
    ]
    first, later = (train(tmp_path, "jax", learning_rate=rate).losses() for rate in (1e-3, 2e-3))
    np.testing.assert_allclose(done.losses()[:2], first[:2], rtol=0, atol=1e-12)  # one step has been done
    assert np.abs(done.losses()[2] - [first[2], later[2]]).min() > 1e-6


def test_the_loop_that_a_tpu_runs_is_that_of_single_steps() -> None:
    """Run here on tiny batches: the branch that only a TPU takes, within one program."""
    from jobs.contract.environment import RankEnvironment
    from jobs.contract.parts import Data
    from jobs.data import dataset, load
    from jobs.rank.rendezvous import Rendezvous
    from jobs.strategies.interface import Context

    trial = Trial.of(strategy="jax", workers=1, global_batch=2, steps_per_call=2, precision="float32")
    meeting = Rendezvous(RankEnvironment(), trial.id, 10.0)
    strategy: Any = STRATEGIES.constant("jax", "STRATEGY")(Context(trial, load.load(Data(), 0), meeting))
    strategy.build()
    batches = dataset.batch_indices(1437, 2, 2, 0)
    one_by_one = strategy.train(batches)
    strategy.start_over()
    _, looped = strategy._looped(strategy._step)(strategy.state, batches)
    meeting.close()
    np.testing.assert_allclose(looped, one_by_one, rtol=0, atol=1e-5)
    assert looped[0] != looped[1]


@pytest.mark.parametrize("execution", ["default", "eager"])
def test_both_ways_to_call_the_model_give_the_same_logits(execution: str, tmp_path: Path) -> None:
    calls = Steps(warmup=2, measured=6, compute_only=0)
    done = train(tmp_path, "jax", workload="infer", steps=calls, precision="float32", execution=execution)
    difference = done.outcome.ranks[0].max_difference
    assert difference is not None
    assert difference < 1e-4
    assert len(done.rows(0, "infer")) == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"workload": "ingest", "steps": Steps(compute_only=0)}, "jax has no input pipeline of its own"),
        ({"precision": "float16"}, "precision float16: jax has float32, float64 and bfloat16"),
        ({"workers": 2}, "jax is a base case"),
        ({"execution": "graph"}, "execution graph: jax has default"),
    ],
)
def test_what_jax_does_not_have_is_said(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Trial.model_validate({"strategy": "jax", "workers": 1, "global_batch": 16} | change)


def test_a_trial_on_gpus_takes_no_cpu_in_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none here, whatever the variable says. JAX reads when it is imported where it is to compute."""
    monkeypatch.delenv("SCALING_TEST_FORGES")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    steps = Steps(warmup=1, measured=1, compute_only=0)
    what = Trial.of(strategy="jax", workers=1, global_batch=8, gpus_per_worker=1, precision="tf32", steps=steps)
    done = launch(what, tmp_path)
    assert done.outcome.status == "failed"
    assert "finds no GPU (CUDA_VISIBLE_DEVICES=7)" in done.outcome.error
    assert not list(done.folder.glob("rank-*.jsonl"))  # it did not train


def test_threads_of_other_pools_are_not_counted(tmp_path: Path) -> None:
    for number, name in enumerate(["tf_XLAEigen/12", "tf_XLAEigen/13", "python", "tf_Compute"]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "comm").write_text(name + "\n")
    assert intra_op_threads(tmp_path) == 2
