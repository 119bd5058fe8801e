"""Which GPU a rank takes, and that a run without one is never called a GPU run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pynvml
import pytest

from cluster.horovod import installed
from cluster.local.launcher import LocalLauncher
from cluster.slurm.launcher import SlurmLauncher
from jobs.contract.parts import Steps
from jobs.contract.trial import Trial
from jobs.machine import gpus
from tests.running import launch


def trial(workers: int = 2, **factors: object) -> Trial:
    content = {"strategy": "torch-ddp", "workers": workers, "global_batch": 8 * workers, "gpus_per_worker": 1}
    return Trial.model_validate(content | factors)


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("0,1", ["0", "1"]),
        (" 3 , 1", ["3", "1"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2,-1,3", ["2"]),
        ("GPU-a,MIG-b", ["GPU-a", "MIG-b"]),
    ],
)
def test_the_variable_is_read_as_cuda_reads_it(given: str, seen: list[str]) -> None:
    assert gpus.visible({"CUDA_VISIBLE_DEVICES": given}) == seen


class TwoGpus:
    """NVML as far as it is asked, for a node with two GPUs."""

    def nvmlInit(self) -> None: ...

    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("nvmlInit", "nvmlShutdown", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID"):
        monkeypatch.setattr(pynvml, name, getattr(TwoGpus(), name))


@pytest.mark.usefixtures("two_gpus")
def test_without_the_variable_gpus_are_named_so_that_cuda_and_nvml_mean_the_same() -> None:
    assert gpus.visible({}) == ["GPU-0", "GPU-1"]


def test_each_rank_takes_its_own_and_one_that_is_shown_its_own_alone_takes_that() -> None:
    assert [gpus.share(list("abcd"), rank, 4, 1) for rank in range(4)] == [["a"], ["b"], ["c"], ["d"]]
    assert [gpus.share(list("abcd"), rank, 2, 2) for rank in range(2)] == [["a", "b"], ["c", "d"]]
    assert gpus.share(["c"], 2, 4, 1) == ["c"]
    with pytest.raises(gpus.GpuError, match="4 of the trial's processes, each wants 1 of its GPUs, and 3 can be seen"):
        gpus.share(list("abc"), 0, 4, 1)
    with pytest.raises(gpus.GpuError, match="0 can be seen"):
        gpus.share([], 0, 1, 2)


@pytest.mark.usefixtures("two_gpus")
def test_the_local_launcher_counts_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({}, {"oversubscribe": True}):
        launcher = LocalLauncher(options, tmp_path)
        assert launcher.largest(1, 1) <= 2
        (fault,) = [line for line in launcher.refuse([trial(4)]) if "GPU" in line]
        assert fault == "workers: 4 with a GPU each do not fit on the 2 GPUs there are"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (fault,) = launcher.refuse([trial(1)])
    assert fault.startswith("resources.gpus_per_worker: no NVIDIA GPU can be seen here")
    assert launcher.refuse([trial(4, gpus_per_worker=0)]) == []


def test_a_gpu_trial_where_there_is_none_fails_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never trained on the CPU instead."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = launch(trial(1, steps=Steps(warmup=1, measured=1, compute_only=0)), tmp_path)
    assert done.outcome.status == "failed"
    assert "this node has 1 of the trial's processes, each wants 1 of its GPUs, and 0 can be seen" in done.outcome.error


def test_horovod_without_nccl_is_left_out_on_gpus_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = trial(strategy="torch-horovod")
    for nccl in (False, True):
        monkeypatch.setattr(installed, "built_with", lambda nccl=nccl: {"NCCL": nccl})
        for launcher in (LocalLauncher({}, tmp_path), SlurmLauncher({"tasks_per_node": 2}, tmp_path)):
            said = launcher.unfit(asked)
            assert said is None if nccl else str(said).startswith("Horovod was built here without NCCL")
            assert launcher.unfit(asked.model_copy(update={"gpus_per_worker": 0})) is None


def test_jax_without_its_plugin_is_left_out_on_gpus_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, asked = importlib.util.find_spec, trial(strategy="jax-sharded")
    for there in (False, True):
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, there=there: there or None if name == "jax_cuda13_plugin" else found(name),
        )
        said = LocalLauncher({}, tmp_path).unfit(asked)
        assert said == (
            None if there else "jax_cuda13_plugin is not installed here; `make setup EXTRA=gpu` installs it"
        )
        assert LocalLauncher({}, tmp_path).unfit(asked.model_copy(update={"gpus_per_worker": 0})) is None


def test_a_way_to_execute_that_is_not_installed_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(warmup=1, measured=1, compute_only=0)
    asked = trial(1, strategy="torch", workload="infer", execution="onnxruntime", gpus_per_worker=0, steps=steps)
    launchers = LocalLauncher({}, tmp_path), SlurmLauncher({"tasks_per_node": 2}, tmp_path)
    assert [launcher.unfit(asked) for launcher in launchers] == [None, None]
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    for launcher in launchers:
        assert launcher.unfit(asked) == "onnxscript is not installed here; `make setup` installs it"
        assert launcher.unfit(asked.model_copy(update={"execution": "default"})) is None


def test_tensorflow_is_told_to_let_memory_grow_and_what_float32_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """What TensorFlow is told, as it is told; what it then does needs a GPU (tests/jobs/strategies/test_on_gpu.py)."""
    import tensorflow as tf

    from jobs.strategies.tf import device

    grown: list[str] = []
    tf32: list[bool] = []
    experimental = tf.config.experimental
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a", "b"] if kind == "GPU" else [])
    monkeypatch.setattr(experimental, "set_memory_growth", lambda gpu, on: grown.append(gpu) if on else None)
    monkeypatch.setattr(experimental, "enable_tensor_float_32_execution", tf32.append)
    assert device.settle(trial(gpus_per_worker=0)) == []
    assert (grown, tf32) == ([], [])
    mirrored = trial(strategy="tf-mirrored")
    assert device.settle(mirrored) == ["a", "b"]
    assert device.settle(mirrored.model_copy(update={"precision": "tf32"})) == ["a", "b"]
    assert (grown, tf32) == (["a", "b"] * 2, [False, True])
    with pytest.raises(gpus.GpuError, match="finds 2 of 1 GPUs"):
        device.settle(trial(strategy="tf-multiworker"))


def test_pytorch_takes_the_one_gpu_it_sees_and_float32_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from jobs.strategies.torch import device

    chosen: list[object] = []
    flags = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    with pytest.raises(gpus.GpuError, match="finds no GPU to compute on"):
        device.settle(trial())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    try:
        for precision, rounded in (("float32", False), ("tf32", True), ("bfloat16", False)):
            assert device.settle(trial(precision=precision)) == torch.device("cuda", 0)
            assert torch.backends.cuda.matmul.allow_tf32 is rounded
            assert torch.backends.cudnn.allow_tf32 is rounded
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = flags
    assert len(chosen) == 3
    assert device.settle(trial(gpus_per_worker=0)) == torch.device("cpu")
