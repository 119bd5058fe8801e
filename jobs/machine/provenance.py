"""On what a rank ran: versions, hardware, container, commit, for its report.

Gathered after training, so that none of it costs a measured step.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from jobs.machine.gpus import as_text

PACKAGES = (
    "torch", "tensorflow", "tensorflow-cpu", "tensorflow-tpu", "keras", "horovod", "jax", "jaxlib", "optax",
    "torch_xla", "libtpu", "numpy", "ray", "scaling",
    "nvidia-nccl-cu12", "nvidia-nccl-cu13", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13",
)  # fmt: skip
PROJECT = Path(__file__).resolve().parents[2]


def versions() -> dict[str, str]:
    """Version of Python and of every installed package that matters to a measurement."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """CPU model, physical cores, NUMA nodes with their CPUs, memory in bytes, kernel, and the GPUs that
    are in the node, used or not."""
    import psutil

    return {
        "cpu": cpu_model(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cpus": psutil.cpu_count(),
        "numa": numa(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "gpus_present": gpus(),
    }


def cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(("model name", "Model", "CPU part")):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def numa(root: Path = Path("/sys/devices/system/node")) -> dict[str, str]:
    """NUMA node ─▶ its CPUs, as the kernel writes them ("0-15,32-47"); empty where it tells none."""
    found = {}
    for path in sorted(root.glob("node[0-9]*"), key=lambda path: int(path.name[4:])):
        try:
            found[path.name] = (path / "cpulist").read_text(encoding="utf-8").strip()
        except OSError:
            continue
    return found


def gpus() -> list[dict[str, Any]]:
    """Name, UUID, memory, driver and CUDA version of each NVIDIA GPU of the node, by NVML, and how each
    is linked to the others; empty without a driver. What a device cannot tell is None."""
    try:
        import pynvml as nvml

        nvml.nvmlInit()
    except Exception:  # no driver, or a package that is called so and is something else, which `doctor` tells
        return []

    def told(read: Callable[..., Any], *arguments: Any) -> Any:
        try:
            value = read(*arguments)
        except (nvml.NVMLError, AttributeError):  # another package that is called so lacks what ours has
            return None
        return as_text(value) if isinstance(value, bytes) else value

    def ancestor(one: Any, other: Any) -> Any:
        return nvml.nvmlDeviceGetTopologyCommonAncestor(one, other)

    def linked(one: Any, other: Any) -> bool:
        status = nvml.nvmlDeviceGetP2PStatus(one, other, nvml.NVML_P2P_CAPS_INDEX_NVLINK)
        return bool(status == nvml.NVML_P2P_STATUS_OK)

    try:
        driver = told(nvml.nvmlSystemGetDriverVersion)
        cuda = told(lambda: nvml.nvmlSystemGetCudaDriverVersion_v2())
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        uuids = [told(nvml.nvmlDeviceGetUUID, handle) for handle in handles]
        found = []
        for handle, uuid in zip(handles, uuids, strict=True):
            memory = told(nvml.nvmlDeviceGetMemoryInfo, handle)
            links = [
                {
                    "uuid": its,
                    # NVML's level of the nearest common ancestor over PCIe: 0 on one board … 50 across sockets.
                    "ancestor": told(ancestor, handle, other),
                    "nvlink": told(linked, handle, other),
                }
                for other, its in zip(handles, uuids, strict=True) if other is not handle
            ]  # fmt: skip
            found.append(
                {
                    "name": told(nvml.nvmlDeviceGetName, handle),
                    "uuid": uuid,
                    "memory_bytes": None if memory is None else memory.total,
                    "driver": driver,
                    "cuda": None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
                    "topology": links,
                }
            )
        return found
    except (nvml.NVMLError, AttributeError):
        return []
    finally:
        told(lambda: nvml.nvmlShutdown())


def container(root: Path = Path("/"), variables: Mapping[str, str] = os.environ) -> str | None:
    """In what kind of container this runs, None in none that can be told."""
    for name in ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"):
        if name in variables:
            return f"apptainer {Path(variables[name]).name}"
    if "PYXIS_VERSION" in variables or "ENROOT_VERSION" in variables:
        return "enroot"
    if "KUBERNETES_SERVICE_HOST" in variables:
        return "kubernetes"
    if (root / "run/.containerenv").exists():
        return "podman"
    return "docker" if (root / ".dockerenv").exists() else None


def commit(project: Path = PROJECT) -> str | None:
    """The project's commit, with "-dirty" after it if files differ from it; None outside git."""
    if not (project / ".git").exists():
        return None
    command = ["git", "-C", str(project), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode().strip() or None
