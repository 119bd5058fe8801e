"""What the doctor finds of the machine: cores, memory, GPUs, TPUs."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.horovod import nccl
from cluster.setup.finding import SETUP, Finding, version_of
from jobs.machine.cores import allowed_cores, quota_note
from jobs.machine.gpus import as_text
from jobs.machine.provenance import cpu_model
from jobs.machine.quota import cgroup_quota

TPU_SETUP = "python3 -m venv .venv-tpu && .venv-tpu/bin/pip install tensorflow-tpu==2.20.0"


def cores(name: str) -> Finding:
    import psutil

    usable, quota = len(allowed_cores()), cgroup_quota()
    of = f"of {psutil.cpu_count(logical=False) or os.cpu_count()} on this machine"
    limit = "" if quota is None else f", {quota_note() or f'a CPU quota of {quota:g} cores'}"
    return Finding(name, True, f"{usable} physical for this process, {of}{limit} ({cpu_model()})")


def memory(name: str) -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    return Finding(name, True, f"{memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f} GiB")


def gpus(name: str) -> Finding:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return Finding(name, None, "none found")
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        names = [as_text(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
        driver = as_text(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()
    says = f"{', '.join(names)} (driver {driver})" if names else "none found"
    if names and not nccl.torch_has_cuda():
        return Finding(name, False, f"{says}, but PyTorch here is built for CPUs", f"{SETUP} EXTRA=gpu")
    return Finding(name, True if names else None, says)


def tpus(name: str) -> Finding:
    """A TPU shows as /dev/accel* (v2 to v4) or as a VFIO group (v5e and later), which others may be too."""
    accel = sorted(path.name for path in Path("/dev").glob("accel*"))
    groups = sorted(path.name for path in Path("/dev/vfio").glob("[0-9]*"))
    if not accel and not groups:
        return Finding(name, None, "none found")
    found = [f"/dev/{file}" for file in accel] + [f"/dev/vfio/{group}" for group in groups]
    if version_of("libtpu") is None and version_of("libtpu-nightly") is None:
        says = f"{', '.join(found)} may be one, but libtpu is not installed"
        return Finding(name, None, says, TPU_SETUP)
    return Finding(name, True, f"{', '.join(found)}, libtpu {version_of('libtpu') or version_of('libtpu-nightly')}")
