"""What the sampler reads of NVIDIA GPUs, through NVML (nvidia-ml-py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pynvml as nvml

from jobs.machine.gpus import VISIBLE, as_text, visible

Note = Callable[[str, str], None]

# nvml.h, nvmlClocksEventReasons: why the clocks are not higher.
REASONS = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}


def _errors(*names: str) -> set[int]:
    """Numbers of NVML's errors; not of those that an older package of the name pynvml does not know."""
    return {getattr(nvml, f"NVML_ERROR_{name}") for name in names if hasattr(nvml, f"NVML_ERROR_{name}")}


# Errors that will not go away, so the counter is not asked for again …
LASTING = _errors(
    "NOT_SUPPORTED", "NO_PERMISSION", "FUNCTION_NOT_FOUND", "INVALID_ARGUMENT", "ARGUMENT_VERSION_MISMATCH",
)  # fmt: skip
# … and those after which the device is not asked for anything: a lost one may take seconds to say so.
LOST = _errors(
    "GPU_IS_LOST", "RESET_REQUIRED", "DRIVER_NOT_LOADED", "UNINITIALIZED", "LIB_RM_VERSION_MISMATCH", "GPU_NOT_FOUND",
)  # fmt: skip
ALL_LINKS = 0xFFFFFFFF
VALUE = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # nvmlValueType_t ─▶ the union's part


def _utilization(handle: Any) -> tuple[Any, ...]:
    rates = nvml.nvmlDeviceGetUtilizationRates(handle)
    return rates.gpu, rates.memory


def _throttle(handle: Any) -> tuple[Any, ...]:
    try:
        bits = nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
    except (nvml.NVMLError, AttributeError) as error:
        if getattr(error, "value", nvml.NVML_ERROR_FUNCTION_NOT_FOUND) != nvml.NVML_ERROR_FUNCTION_NOT_FOUND:
            raise  # else: its name before driver 535
        bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    return ([name for bit, name in REASONS.items() if bits & bit],)


def _nvlink(handle: Any) -> tuple[Any, ...]:
    try:
        kibibytes = _fields(
            handle, nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX
        )
        return tuple(1024 * value for value in kibibytes)
    except nvml.NVMLError as error:
        if error.value in LOST:
            raise
    # NVLink 5 has other counters, in bytes.
    return _fields(handle, nvml.NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES, nvml.NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES)


def _fields(handle: Any, *names: int) -> tuple[Any, ...]:
    """Values of NVLink fields, summed over the links by NVML itself."""
    values = nvml.nvmlDeviceGetFieldValues(handle, [(name, ALL_LINKS) for name in names])
    for value in values:
        if value.nvmlReturn:
            raise nvml.NVMLError(value.nvmlReturn)
    return tuple(getattr(value.value, VALUE[value.valueType]) for value in values)


def _pcie(handle: Any) -> tuple[Any, ...]:
    # In KB/s, of the 20 ms in which it waits: nvml.h.
    ways = (nvml.NVML_PCIE_UTIL_TX_BYTES, nvml.NVML_PCIE_UTIL_RX_BYTES)
    return tuple(1000 * nvml.nvmlDeviceGetPcieThroughput(handle, way) for way in ways)


def _one(read: Callable[..., Any], *more: Any, scale: float = 1) -> Callable[[Any], tuple[Any, ...]]:
    return lambda handle: (read(handle, *more) / scale if scale != 1 else read(handle, *more),)


Reader = tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]
MEMORY: Reader = (("memory_bytes",), lambda handle: (nvml.nvmlDeviceGetMemoryInfo(handle).used,))
# Of a whole board: an instance of a divided one (MIG) shares it, so these are not the instance's.
SHARED: tuple[Reader, ...] = (
    (("sm_percent", "memory_percent"), _utilization),
    (("power_watts",), _one(nvml.nvmlDeviceGetPowerUsage, scale=1000)),
    (("energy_joules",), _one(nvml.nvmlDeviceGetTotalEnergyConsumption, scale=1000)),
    (("nvlink_sent_bytes", "nvlink_received_bytes"), _nvlink),
)
# Also of a whole board, and true of each instance.
BOARD: tuple[Reader, ...] = (
    (("sm_mhz",), _one(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM)),
    (("memory_mhz",), _one(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM)),
    (("temperature_celsius",), _one(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU)),
    (("throttle",), _throttle),
    (
        ("ecc_uncorrected",),
        _one(nvml.nvmlDeviceGetTotalEccErrors, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC),
    ),
)
PCIE: Reader = (("pcie_sent_bytes_per_second", "pcie_received_bytes_per_second"), _pcie)


class Gpus:
    """The GPUs that a node's ranks may use. `found` describes them for the start line."""

    def __init__(self, devices: Sequence[str | None], note: Note) -> None:
        """`devices` are the ranks' CUDA_VISIBLE_DEVICES, None where all are seen."""
        self._note = note
        self._named: dict[str, _Gpu | None] = {}
        self._count = 0
        try:
            nvml.nvmlInit()
            self._count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            note("gpus", in_words(error))
        for text in devices:
            for entry in self._entries(text) if self._count else []:
                if entry not in self._named:
                    self._named[entry] = self._find(entry)
        self._gpus = {gpu.uuid: gpu for gpu in self._named.values() if gpu}
        self.found = [gpu.found for gpu in self._gpus.values()]

    def of(self, devices: str | None) -> list[str]:
        """UUIDs of those that CUDA_VISIBLE_DEVICES lets a rank use."""
        gpus = [self._named.get(entry) for entry in self._entries(devices)]
        return list(dict.fromkeys(gpu.uuid for gpu in gpus if gpu))

    def sample(self) -> list[dict[str, Any]]:
        entries = [gpu.sample(self._note) for gpu in self._gpus.values()]
        # Last, as each of these takes 40 ms: the rest is of one moment.
        for gpu, entry in zip(self._gpus.values(), entries, strict=True):
            entry |= gpu.ask(PCIE, gpu.board, self._note) if gpu.whole else dict.fromkeys(PCIE[0])
        return entries

    def _entries(self, devices: str | None) -> list[str]:
        if devices is None:
            return [str(index) for index in range(self._count)]
        return visible({VISIBLE: devices})

    def _find(self, entry: str) -> _Gpu | None:
        """By index, by UUID or the beginning of one, or by the name of a MIG instance."""
        try:
            if entry.isdigit():
                return _Gpu(nvml.nvmlDeviceGetHandleByIndex(int(entry)))
            if entry.startswith("GPU-"):
                for index in range(self._count):
                    handle = nvml.nvmlDeviceGetHandleByIndex(index)
                    if as_text(nvml.nvmlDeviceGetUUID(handle)).startswith(entry):
                        return _Gpu(handle)
            return _Gpu(nvml.nvmlDeviceGetHandleByUUID(entry.encode()))
        except nvml.NVMLError as error:
            self._note(f"gpu {entry}", in_words(error))
            return None


class _Gpu:
    """A device, or an instance of a divided one: then `board` is the device's handle."""

    def __init__(self, handle: Any) -> None:
        self._handle = self.board = handle
        self.whole = True
        try:
            if nvml.nvmlDeviceIsMigDeviceHandle(handle):
                self.board = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
                self.whole = False
        except nvml.NVMLError:
            pass  # a driver from before there was MIG
        self.uuid = as_text(nvml.nvmlDeviceGetUUID(handle))
        self.found: dict[str, Any] = {
            "uuid": self.uuid,
            "name": as_text(nvml.nvmlDeviceGetName(handle)),
            "index": int(nvml.nvmlDeviceGetIndex(self.board)),
        }
        if not self.whole:
            self.found["board"] = as_text(nvml.nvmlDeviceGetUUID(self.board))
        self._missing: set[str] = set()
        self._lost = False

    def sample(self, note: Note) -> dict[str, Any]:
        """All but PCIe; what cannot be told is None."""
        entry: dict[str, Any] = {"uuid": self.uuid}
        for reader in SHARED:
            if self.whole:
                entry |= self.ask(reader, self.board, note)
            else:
                entry |= dict.fromkeys(reader[0])
        entry |= self.ask(MEMORY, self._handle, note)
        for reader in BOARD:
            entry |= self.ask(reader, self.board, note)
        if not self.whole:
            for name in (*(name for names, _ in SHARED for name in names), *PCIE[0]):
                note(f"gpu {self.uuid}: {name}", "is the whole board's, of which this is an instance")
        return entry

    def ask(self, reader: Reader, handle: Any, note: Note) -> dict[str, Any]:
        """Name ─▶ value of what `reader` reads; all None, and a note, where it cannot."""
        names, read = reader
        if not self._lost and names[0] not in self._missing:
            try:
                return dict(zip(names, read(handle), strict=True))
            except AttributeError as error:  # of an older package of the name pynvml
                self._missing.add(names[0])
                for name in names:
                    note(f"gpu {self.uuid}: {name}", str(error))
            except nvml.NVMLError as error:
                if error.value in LOST:
                    self._lost = True
                    note(f"gpu {self.uuid}", in_words(error))
                    return dict.fromkeys(names)
                if error.value in LASTING:
                    self._missing.add(names[0])
                for name in names:
                    note(f"gpu {self.uuid}: {name}", in_words(error))
        return dict.fromkeys(names)


def in_words(error: Any) -> str:
    """What NVML says of its error; of a counter that the device lacks, the same in our words."""
    return "not supported by this device" if error.value == nvml.NVML_ERROR_NOT_SUPPORTED else str(error)
