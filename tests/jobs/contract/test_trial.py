"""What defines a trial, and its id."""

import pytest
from pydantic import ValidationError

from jobs.contract.catalog import STRATEGIES
from jobs.contract.parts import Limits, Steps
from jobs.contract.trial import Trial

CALLS = {"strategy": "torch", "workers": 1, "steps": Steps(compute_only=0)}


def trial(**changes: object) -> Trial:
    return Trial.model_validate({"strategy": "torch-ddp", "workers": 2, "global_batch": 64} | changes)


def test_the_same_configuration_has_the_same_id() -> None:
    assert trial().id == trial().id
    assert trial().id.startswith("torch-ddp-n2-b64-")
    assert Trial.model_validate_json(trial(repeat=3).model_dump_json()) == trial(repeat=3)


def test_a_recorded_id_is_still_made_today() -> None:
    """Results on disk are found by it: a change of this text orphans every result there is."""
    assert trial().id == "torch-ddp-n2-b64-c678c77b-r00"


def test_how_often_a_node_is_sampled_makes_no_other_point() -> None:
    assert trial(telemetry={"hertz": 0.5}).id == trial(telemetry=False).id == trial().id
    assert trial(telemetry=False).telemetry.hertz == 0.0  # YAML reads `off` as false
    with pytest.raises(ValidationError, match="less than or equal to 20"):
        trial(telemetry={"hertz": 1000})


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"precision": "float64"},
        {"precision": "bfloat16"},
        {"layout": "channels-last"},
        {"optimizer": "framework-default"},
        {"threads_per_worker": 2},
        {"gpus_per_worker": 1},
        {"learning_rate_rule": "sqrt", "reference_batch": 32},
        {"learning_rate_warmup": 5},
        {"until_accuracy": 0.9, "steps": Steps(at_most=100)},
    ],
)
def test_every_factor_makes_another_point(change: dict[str, object]) -> None:
    assert trial(**change).point != trial().point


def test_repeats_share_their_point_and_limits_do_not_count() -> None:
    assert trial(repeat=1).point == trial(repeat=2).point
    assert trial(repeat=1).id != trial(repeat=2).id
    assert trial(limits=Limits(hang=5.0)).id == trial().id


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"strategy": "torch-dpp"}, "unknown strategy"),
        ({"global_batch": 63}, "63 is not divisible by 2 workers"),
        ({"strategy": "torch"}, "base case"),
        ({"workers": 0}, "greater than or equal to 1"),
        ({"workers": "2"}, "valid integer"),
        ({"workrs": 2}, "not permitted"),
        ({"steps_per_call": 3, "steps": Steps(warmup=3, measured=10)}, "measured 10 is not a multiple"),
        ({"learning_rate": float("nan")}, "finite|greater"),
        ({"data": {"kind": "digits", "path": "x"}}, "goes with kind mnist"),
        ({"gpus_per_worker": 2}, "less than or equal to 1"),
        ({"gpus_per_worker": True}, "valid integer"),
        ({"precision": "tf32"}, "is a mode of NVIDIA GPUs"),
        ({"strategy": "tf-multiworker", "layout": "channels-last"}, "channels-last .NHWC. as they are"),
        ({"strategy": "tf-tpu", "tpu": "emulated", "gpus_per_worker": 1}, "a TPU's core or a GPU"),
        ({"strategy": "torch-xla", "gpus_per_worker": 1}, "torch-xla does not compute on GPUs"),
        ({"strategy": "jax-sharded", "tpu": "real", "gpus_per_worker": 1}, "a TPU's core or a GPU"),
        ({"learning_rate_rule": "linear"}, "reference_batch: go together"),
        ({"reference_batch": 64}, "reference_batch: go together"),
        ({"until_accuracy": 0.9}, "steps.at_most: is missing"),
        ({"steps": Steps(at_most=9)}, "belong to until_accuracy"),
        (CALLS | {"workload": "infer", "optimizer": "framework-default"}, "workload infer: has no optimizer"),
        (CALLS | {"workload": "ingest", "precision": "bfloat16"}, "ingest trials run no model"),
        ({"steps": Steps(evaluate_every=9)}, "belong to until_accuracy"),
        ({"until_accuracy": 1.0, "steps": Steps(at_most=9)}, "less than 1"),
        ({"until_accuracy": 0.9, "steps": Steps(at_most=9), "data": {"kind": "synthetic"}}, "are noise"),
        (
            {"until_accuracy": 0.9, "steps": Steps(at_most=99), "strategy": "tf-horovod", "steps_per_call": 10},
            "at_most 99 is not a multiple",
        ),
    ],
)
def test_an_impossible_trial_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        trial(**change)


def test_a_mirrored_trial_is_one_process() -> None:
    assert trial(strategy="tf-mirrored").processes == 1
    assert trial().processes == 2
    assert trial().worker_batch == 32
    assert trial(strategy="tf-mirrored", gpus_per_worker=1).gpus_per_process == 2
    assert trial(gpus_per_worker=1).gpus_per_process == 1


def test_each_framework_has_exactly_one_base_case() -> None:
    bases = [info for info in STRATEGIES.values() if info.is_base_case]
    assert sorted(info.framework for info in bases) == ["JAX", "PyTorch", "TensorFlow"]
