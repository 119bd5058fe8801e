"""What a report says of where it was measured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.machine import gpus, provenance

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("file", "variables", "said"),
    [
        (".dockerenv", {}, "docker"),
        ("run/.containerenv", {}, "podman"),
        ("etc", {}, None),
        (".dockerenv", {"APPTAINER_CONTAINER": "/images/torch.sif"}, "apptainer torch.sif"),
        (".dockerenv", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
    ],
)
def test_a_container_is_told_by_its_marks(
    file: str, variables: dict[str, str], said: str | None, tmp_path: Path
) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    assert provenance.container(tmp_path, variables) == said


def test_numa_nodes_are_in_order_with_their_cpus(tmp_path: Path) -> None:
    for node, cpus in (("node0", "0-3"), ("node10", "8-11"), ("node2", "4-7")):
        (tmp_path / node).mkdir()
        (tmp_path / node / "cpulist").write_text(cpus + "\n")
    (tmp_path / "node3").mkdir()  # memory without CPUs, or a kernel that does not tell
    assert list(provenance.numa(tmp_path).items()) == [("node0", "0-3"), ("node2", "4-7"), ("node10", "8-11")]
    assert provenance.numa(tmp_path / "absent") == {}


def test_the_commit_says_when_files_differ_from_it(tmp_path: Path) -> None:
    assert provenance.commit(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("one")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    clean = provenance.commit(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "file").write_text("two")
    assert provenance.commit(tmp_path) == f"{clean}-dirty"


def test_the_commit_is_looked_for_where_this_project_is() -> None:
    assert provenance.PROJECT == ROOT
    assert (provenance.commit() is not None) == (ROOT / ".git").exists()


def test_a_node_without_a_driver_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    assert provenance.gpus() == []


@pytest.mark.parametrize("kind", [str, str.encode])  # bytes are what pynvml before 11.5 gives, another package
def test_links_between_gpus_are_told_and_what_one_cannot_tell_is_null(
    kind: Callable[[str], str | bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pynvml

    def refuse(*_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def status(one: int, other: int, _: int) -> int:
        return int(pynvml.NVML_P2P_STATUS_OK if {one, other} == {0, 1} else pynvml.NVML_P2P_STATUS_NOT_SUPPORTED)

    answers: dict[str, Callable[..., object]] = {
        "nvmlInit": lambda: None, "nvmlShutdown": lambda: None, "nvmlDeviceGetCount": lambda: 3,
        "nvmlSystemGetDriverVersion": lambda: kind("580.1"), "nvmlSystemGetCudaDriverVersion_v2": lambda: 13010,
        "nvmlDeviceGetHandleByIndex": int, "nvmlDeviceGetUUID": lambda i: kind(f"GPU-{i}"),
        "nvmlDeviceGetName": lambda i: kind("Some GPU"), "nvmlDeviceGetMemoryInfo": refuse,
        "nvmlDeviceGetTopologyCommonAncestor": lambda one, other: 40, "nvmlDeviceGetP2PStatus": status,
    }  # fmt: skip
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    first, _, third = provenance.gpus()
    assert (first["name"], first["memory_bytes"], first["cuda"]) == ("Some GPU", None, "13.1")
    assert (first["uuid"], first["driver"]) == ("GPU-0", "580.1")
    assert first["topology"] == [
        {"uuid": "GPU-1", "ancestor": 40, "nvlink": True},
        {"uuid": "GPU-2", "ancestor": 40, "nvlink": False},
    ]
    assert [link["nvlink"] for link in third["topology"]] == [False, False]


def test_what_another_package_called_pynvml_lacks_is_null_and_costs_no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its functions of before 2019, and of NVML's its error alone."""
    import pynvml

    answers: dict[str, Callable[..., object]] = {
        "nvmlInit": lambda: None, "nvmlShutdown": lambda: None, "nvmlDeviceGetCount": lambda: 2,
        "nvmlSystemGetDriverVersion": lambda: b"580.1", "nvmlDeviceGetHandleByIndex": int,
        "nvmlDeviceGetUUID": lambda i: f"GPU-{i}".encode(), "nvmlDeviceGetName": lambda i: b"Some GPU",
        "nvmlDeviceGetMemoryInfo": lambda i: SimpleNamespace(total=80),
    }  # fmt: skip
    theirs = SimpleNamespace(NVMLError=pynvml.NVMLError, **answers)
    monkeypatch.setitem(sys.modules, "pynvml", theirs)
    first, _ = provenance.gpus()
    assert (first["name"], first["memory_bytes"], first["driver"], first["cuda"]) == ("Some GPU", 80, "580.1", None)
    assert first["topology"] == [{"uuid": "GPU-1", "ancestor": None, "nvlink": None}]
    assert gpus.visible({}) == ["GPU-0", "GPU-1"]
    del theirs.nvmlDeviceGetUUID
    assert provenance.gpus() == []
    with pytest.raises(gpus.GpuError, match="the pynvml here is not nvidia-ml-py's"):
        gpus.visible({})
