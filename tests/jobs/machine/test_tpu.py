"""The TPU's cores: which of them are taken, how they are counted, and CPU devices that stand in for them.

No TPU is needed: topologies are as TensorFlow 2.21 describes them, and what a machine with a TPU shows of
its PCI bus is laid out in a folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.driver.plan import plan
from cluster.local.launcher import LocalLauncher
from cluster.study import file
from cluster.study.schema import StudyError
from jobs.contract.parts import Steps
from jobs.contract.trial import Trial
from jobs.machine import tpu
from tests.running import launch

pytestmark = pytest.mark.usefixtures("warm_ranks")

# The mesh of chips (x, y, z) and cores per chip, of hosts with: v2-8 and v3-8; v5e-8; v5e-1.
TOPOLOGIES = {"v3-8": (2, 2, 1, 2), "v5e-8": (2, 4, 1, 1), "v5e-1": (1, 1, 1, 1)}


def topology(shape: tuple[int, int, int, int]) -> Any:
    from tensorflow.python.tpu.topology import Topology

    coordinates = np.array(list(np.ndindex(*shape)), np.int32)[np.newaxis]  # one host: [tasks, devices, 4]
    return Topology(mesh_shape=shape, device_coordinates=coordinates)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_any_number_of_cores_can_be_taken_each_once(name: str) -> None:
    from jobs.strategies.tf.tpu import assignment

    there = topology(TOPOLOGIES[name])
    cores = int(np.prod(TOPOLOGIES[name]))
    for k in range(1, cores):
        taken = assignment(there, k)
        assert taken.num_replicas == k
        where = [tuple(taken.coordinates(replica, 0)) for replica in range(k)]
        assert len(set(where)) == k
        assert all(there.tpu_device_ordinal_at_coordinates(c) < cores for c in where)
    assert assignment(there, cores) is None  # all of them: TensorFlow's own order
    with pytest.raises(ValueError, match=f"{cores + 1} workers on a TPU of {cores} cores"):
        assignment(there, cores + 1)


def test_chips_are_told_by_the_bus(tmp_path: Path) -> None:
    for number, (vendor, device) in enumerate([("0x1ae0", "0x0063")] * 2 + [("0x8086", "0x0063"), ("0x1ae0", "0x1")]):
        slot = tmp_path / f"0000:00:0{number}.0"
        slot.mkdir()
        (slot / "vendor").write_text(vendor + "\n")
        (slot / "device").write_text(device + "\n")
    (tmp_path / "0000:00:09.0").mkdir()
    assert tpu.chips(tmp_path) == ["v5e", "v5e"]
    assert tpu.chips(tmp_path / "none") == []


def program(folder: Path, *lines: str) -> str:
    path = folder / "python"
    path.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["echo noise", """echo '{"cores": 0, "error": "no TPU"}'"""], "no TPU"),
        (["echo dying >&2", "exit 1"], "dying"),
        (["echo '{'"], "it said nothing"),
        (["exec sleep 60"], "did not answer within 2 s"),
    ],
)
def test_a_tpu_that_cannot_be_counted_is_said_in_one_line(lines: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(tpu.TpuError, match=said):
        tpu.cores(program(tmp_path, *lines), patience=2.0)


def test_the_last_line_of_the_probe_counts(tmp_path: Path) -> None:
    assert tpu.cores(program(tmp_path, "echo noise", """echo '{"cores": 8, "by": "jax"}'""")) == 8


def test_the_probe_says_why_there_is_none_here() -> None:
    """Run for real, with the frameworks there are; a TPU host would print its cores."""
    command = [sys.executable, "-P", "-m", "jobs.machine.tpu"]
    quick = os.environ | {"TPU_SKIP_MDS_QUERY": "1"}
    done = subprocess.run(command, env=quick, capture_output=True, text=True, check=True, timeout=120)
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["cores"] > 0 if tpu.chips() else "jax: " in answer["error"]


STUDY: dict[str, Any] = {
    "name": "t",
    "strategies": ["tf-tpu", "jax", "jax-sharded"],
    "scaling": ["strong"],
    "batch": {"global": 64},
    "resources": {"tpu": "real"},
}


class Eight(LocalLauncher):
    """A host with a TPU of eight cores."""

    def tpu_cores(self) -> int:
        return 8


def test_workers_are_the_tpus_cores(tmp_path: Path) -> None:
    eight = Eight({"oversubscribe": True}, tmp_path)
    points = plan(file.check(STUDY), eight).grid.points
    assert [p.workers for p in points if p.strategy == "tf-tpu"] == [1, 2, 4, 8]
    assert {p.tpu for p in points} == {"real"}
    with pytest.raises(StudyError, match="workers: 16 are more than the 8 cores the TPU has"):
        plan(file.check(STUDY | {"workers": [1, 16]}), eight)


def test_pytorch_xla_is_planned_on_one_device_and_on_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Eight, "unavailable", lambda *_: None)
    planned = plan(file.check(STUDY | {"strategies": ["jax", "torch-xla"]}), Eight({"oversubscribe": True}, tmp_path))
    assert [p.workers for p in planned.grid.points if p.strategy == "torch-xla"] == [1, 8]
    assert (
        "torch-xla at 4 workers: PyTorch/XLA's mesh spans all 8 devices there are; it runs on 1 or 8" in planned.notes()
    )


class Without(LocalLauncher):
    def tpu_cores(self) -> int:
        raise tpu.TpuError("none found")


def test_a_study_of_a_tpu_is_refused_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"resources.tpu: no TPU can be used here \(none found\); `emulated` lets"):
        plan(file.check(STUDY), Without({}, tmp_path))


@pytest.mark.parametrize(
    ("strategy", "where", "said"),
    [
        ("tf-tpu", "none", "tf-tpu runs on a TPU only: set resources.tpu to real, or to emulated"),
        ("torch", "real", "resources.tpu real: torch does not run on a TPU"),
        ("tf-mirrored", "emulated", "resources.tpu emulated: tf-mirrored does not run on a TPU"),
    ],
)
def test_cores_are_stood_in_for_only_where_it_is_asked_for(strategy: str, where: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Trial.of(strategy=strategy, workers=1, global_batch=64, tpu=where)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The losses of TensorFlow's plain process."""
    done = launch(trial("tf", 1), tmp_path_factory.mktemp("alone"))
    assert done.outcome.status == "ok", done.outcome.exits
    return done.losses()


def trial(strategy: str, workers: int, **fields: Any) -> Trial:
    steps = Steps(warmup=2, measured=10, compute_only=2 if workers == 2 else 0)
    return Trial.of(
        strategy=strategy,
        workers=workers,
        global_batch=16,
        steps=steps,
        precision="float64",
        steps_per_call=2,
        **fields,
    )


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_stand_ins_for_cores_keep_the_loss_trajectory_and_are_called_emulated(
    workers: int, alone: np.ndarray, tmp_path: Path
) -> None:
    done = launch(trial("tf-tpu", workers, tpu="emulated"), tmp_path)
    outcome = done.outcome
    assert (outcome.status, outcome.error) == ("ok", ""), outcome.exits
    np.testing.assert_allclose(done.losses(), alone, rtol=0, atol=1e-10)
    assert outcome.emulated
    assert (outcome.base_case, outcome.timing_granularity) == ("tf-tpu", 2)
    assert outcome.ranks[0].device == "cpu"
    assert "accelerator" not in outcome.hardware
