"""The GPUs of this node that a process may use, and a rank's share of them. No framework is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

VISIBLE = "CUDA_VISIBLE_DEVICES"


def as_text(value: Any) -> str:
    """What NVML calls something. Another package that is called pynvml, too, gives bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


class GpuError(RuntimeError):
    """The process cannot have the GPUs that its trial asks for; the message is one line."""


def visible(variables: Mapping[str, str]) -> list[str]:
    """What to write into CUDA_VISIBLE_DEVICES for each GPU that may be used here.

    The entries of that variable where somebody has set it (indices, UUIDs, MIG instances: a launcher's
    or a user's choice), else the UUIDs that NVML finds, which unlike an index mean the same device to
    CUDA. Empty without a driver. Raises GpuError where another package is called as NVML's.
    """
    given = variables.get(VISIBLE)
    if given is not None:
        # As CUDA reads it: what comes after an entry that names no device is not seen either.
        entries = [entry.strip() for entry in given.split(",")]
        end = next((i for i, entry in enumerate(entries) if entry in ("", "-1", "NoDevFiles")), len(entries))
        return entries[:end]
    try:
        import pynvml as nvml

        begin, no_driver = nvml.nvmlInit, nvml.NVMLError
    except (ImportError, AttributeError) as error:
        raise _foreign(error) from None
    try:
        begin()
    except no_driver:
        return []
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        return [as_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    except no_driver:
        return []
    except AttributeError as error:
        raise _foreign(error) from None
    finally:
        nvml.nvmlShutdown()


def _foreign(error: Exception) -> GpuError:
    return GpuError(f"the pynvml here is not nvidia-ml-py's ({error}); `scaling doctor` says what it is")


def share(gpus: Sequence[str], local_rank: int, local_processes: int, wanted: int) -> list[str]:
    """The GPUs of the process `local_rank` among `local_processes` of this node, of which each wants
    `wanted`. Raises GpuError.

    Where all are seen, each process takes its own; where just this process's are (SLURM and Ray show a
    rank no others), it takes those.
    """
    if len(gpus) >= local_processes * wanted:
        return list(gpus[local_rank * wanted : (local_rank + 1) * wanted])
    if len(gpus) == wanted:
        return list(gpus)
    raise GpuError(
        f"this node has {local_processes} of the trial's processes, each wants {wanted} of its GPUs, and "
        f"{len(gpus)} can be seen; ask for more, or use fewer workers"
    )
