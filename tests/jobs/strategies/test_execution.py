"""The ways to execute one program, in training and in inference, compute the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs.contract.parts import Steps
from jobs.contract.possible import executions, named_execution
from jobs.contract.trial import Trial
from tests.running import Done, launch

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("warm_ranks")]
TRAIN = Steps(warmup=2, measured=8, compute_only=2)
CALLS = Steps(warmup=2, measured=6, compute_only=0)


def trial(strategy: str, execution: str, **factors: object) -> Trial:
    content = {"strategy": strategy, "workers": 1, "global_batch": 8, "execution": execution, "steps": TRAIN}
    return Trial.model_validate(content | factors)


@pytest.fixture(scope="module")
def eager(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return launch(trial("torch", "default", precision="float64"), tmp_path_factory.mktemp("eager"))


@pytest.mark.parametrize(("strategy", "execution"), [("torch", "graph"), ("tf", "eager"), ("tf", "xla")])
def test_training_is_the_same_however_it_is_executed(
    strategy: str, execution: str, eager: Done, tmp_path: Path
) -> None:
    done = launch(trial(strategy, execution, precision="float64"), tmp_path)
    assert done.outcome.status == "ok", done.outcome.error
    np.testing.assert_allclose(done.losses(), eager.losses(), rtol=1e-10)
    np.testing.assert_allclose(done.losses("compute_only"), eager.losses("compute_only"), rtol=1e-10)


def test_a_distributed_model_can_be_compiled(eager: Done, tmp_path: Path) -> None:
    done = launch(trial("torch-ddp", "graph", precision="float64", workers=2), tmp_path)
    assert done.outcome.status == "ok", done.outcome.error
    np.testing.assert_allclose(done.losses(), eager.losses(), rtol=1e-10)


@pytest.mark.parametrize(("strategy", "execution"), [(s, e) for s in ("torch", "tf") for e in executions(s, "infer")])
def test_every_way_to_call_the_model_gives_the_same_logits(strategy: str, execution: str, tmp_path: Path) -> None:
    done = launch(trial(strategy, execution, workload="infer", steps=CALLS), tmp_path)
    assert done.outcome.status == "ok", (done.outcome.error, done.outcome.exits)
    (report,) = done.outcome.ranks
    assert report.max_difference is not None
    assert report.max_difference < 1e-4
    assert (report.prepare_seconds or 0) > 0
    rows = done.rows(0, "infer")
    assert [row["step"] for row in rows] == list(range(8))
    assert [row.get("warmup", False) for row in rows] == [True] * 2 + [False] * 6
    assert {(row["samples"], row["loss"]) for row in rows} == {(8, None)}
    assert all(row["seconds"] > 0 for row in rows)


def test_plain_execution_has_one_name_and_so_one_id() -> None:
    assert named_execution("torch", "eager") == named_execution("tf", "graph") == "default"
    assert named_execution("torch", "graph") == "graph"
    assert named_execution("torch", "xla") is None
    assert trial("torch", "default").id == Trial.of(strategy="torch", workers=1, global_batch=8, steps=TRAIN).id


@pytest.mark.parametrize(
    ("strategy", "factors", "fault"),
    [
        ("torch", {"execution": "xla"}, "execution xla: torch has default, graph"),
        ("torch", {"execution": "torchscript"}, "execution torchscript: torch has default, graph"),
        ("tf-mirrored", {"execution": "eager"}, "execution eager: tf-mirrored has default"),
        ("tf", {"execution": "eager", "steps_per_call": 2}, "execution eager: several steps in one call"),
        ("torch-ddp", {"workload": "infer", "steps": CALLS}, "workload infer: torch-ddp adds nothing"),
        ("torch", {"workload": "infer"}, "workload infer: has no compute-only steps"),
        (
            "tf",
            {"workload": "infer", "steps": CALLS, "execution": "tflite", "precision": "float64"},
            "execution tflite",
        ),
    ],
)
def test_what_does_not_exist_is_refused(strategy: str, factors: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        trial(strategy, str(factors.pop("execution", "default")), **factors)
