"""Which GPU a rank takes, and that a run without one is never called a GPU run."""

from __future__ import annotations

from pathlib import Path

import pynvml
import pytest

from cluster.local import LocalLauncher
from jobs import gpus
from jobs.trial import Steps, Trial
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
