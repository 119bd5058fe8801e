"""The sampler and NVML: against a stand-in for NVIDIA's library, and where there is one, against a real GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pynvml as nvml
import pytest

from tests.packages import install, old_pynvml
from tests.running import until
from tests.sampler import read, sampler

ROOT = Path(__file__).parents[3]
A, B = "GPU-aaaaaaaa-0000-0000-0000-000000000000", "GPU-bbbbbbbb-1111-1111-1111-111111111111"
MIG = "MIG-cccccccc-2222-2222-2222-222222222222"
NAMES = {
    "sm_percent", "memory_percent", "memory_bytes", "power_watts", "energy_joules", "sm_mhz", "memory_mhz",
    "temperature_celsius", "throttle", "pcie_sent_bytes_per_second", "pcie_received_bytes_per_second",
    "nvlink_sent_bytes", "nvlink_received_bytes", "ecc_uncorrected",
}  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the stand-in libnvidia-ml.so.1, which the loader is told to look into first."""
    folder = tmp_path_factory.mktemp("nvml")
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "building the stand-in needs a C compiler"
    source = Path(__file__).with_name("nvml_standin.c")
    command = [compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(source)]
    subprocess.run(command, check=True)
    return folder


def sampled(
    folder: Path, library: Path, devices: str | None = f"{A},{B}", faults: str = "", lost: Path | None = None
) -> Path:
    """The file of a sampler that saw a rank with these devices; if `lost` is given, it comes into being meanwhile."""
    file = folder / "telemetry-host.jsonl"
    variables = {"LD_LIBRARY_PATH": str(library), "NVML_STANDIN_FAULTS": faults}
    if lost:
        variables["NVML_STANDIN_LOST"] = str(lost)
    with sampler(file, [(os.getpid(), [0])], devices=[devices], variables=variables) as process:
        if lost:
            lost.touch()
            time.sleep(0.5)
        assert process.poll() is None
    return file


def notes(file: Path) -> dict[str, str]:
    """What is missing ─▶ why; nothing may be said twice."""
    rows = [row for row in read(file, "note") if row["what"].startswith("gpu")]
    found = {row["what"]: row["why"] for row in rows}
    assert len(found) == len(rows)
    return found


def test_each_counter_arrives_in_its_unit(library: Path, tmp_path: Path) -> None:
    file = sampled(tmp_path, library)
    (start,) = read(file, "start")
    assert start["gpus"] == [
        {"uuid": A, "name": "Stand-in A", "index": 0},
        {"uuid": B, "name": "Stand-in B", "index": 1},
    ]
    assert start["ranks"][0]["gpus"] == [A, B]
    samples = read(file, "sample")
    first, second = samples[0]["gpus"]
    energy = [sample["gpus"][0].pop("energy_joules") for sample in samples]
    assert energy == sorted(energy)
    assert energy[0] == 5000.0
    assert first == {
        "uuid": A,
        "sm_percent": 87,
        "memory_percent": 41,
        "memory_bytes": 1 << 30,
        "power_watts": 312.5,
        "sm_mhz": 1755,
        "memory_mhz": 2619,
        "temperature_celsius": 63,
        "throttle": ["sw_power_cap", "sw_thermal_slowdown"],
        "pcie_sent_bytes_per_second": 7_000_000,
        "pcie_received_bytes_per_second": 9_000_000,
        "nvlink_sent_bytes": 1000 * 1024,
        "nvlink_received_bytes": 2000 * 1024,
        "ecc_uncorrected": 3,
    }
    assert second["memory_bytes"] == 2 << 30
    assert not notes(file)


@pytest.mark.parametrize(
    ("faults", "missing", "why"),
    [
        ("nvmlDeviceGetTotalEnergyConsumption=3", ["energy_joules"], "not supported by this device"),
        ("throughput=3 count=3", ["nvlink_sent_bytes", "nvlink_received_bytes"], "not supported by this device"),
        ("nvmlDeviceGetUtilizationRates=4", ["sm_percent", "memory_percent"], "Insufficient Permissions"),
        ("nvmlDeviceGetTotalEccErrors=999", ["ecc_uncorrected"], "Unknown Error"),
    ],
)
def test_a_counter_that_cannot_be_read_is_null_and_said_once(
    library: Path, tmp_path: Path, faults: str, missing: list[str], why: str
) -> None:
    file = sampled(tmp_path, library, A, faults)
    assert notes(file) == {f"gpu {A}: {name}": why for name in missing}
    for sample in read(file, "sample"):
        (gpu,) = sample["gpus"]
        assert {name for name in NAMES if gpu[name] is None} == set(missing)


def test_the_newest_links_have_counters_of_their_own(library: Path, tmp_path: Path) -> None:
    file = sampled(tmp_path, library, A, "throughput=3")
    assert not notes(file)
    gpu = read(file, "sample")[-1]["gpus"][0]
    assert (gpu["nvlink_sent_bytes"], gpu["nvlink_received_bytes"]) == (202, 204)


def test_an_older_driver_has_its_reasons_by_their_older_name(library: Path, tmp_path: Path) -> None:
    file = sampled(tmp_path, library, A, "nvmlDeviceGetCurrentClocksEventReasons=13")
    assert not notes(file)
    assert read(file, "sample")[-1]["gpus"][0]["throttle"] == ["hw_slowdown"]


def test_a_driver_that_is_lost_leaves_nulls_and_the_trial_goes_on(library: Path, tmp_path: Path) -> None:
    file = sampled(tmp_path, library, lost=tmp_path / "lost")
    samples = read(file, "sample")
    assert samples[0]["gpus"][0]["power_watts"] == 312.5
    for gpu in samples[-1]["gpus"]:
        assert all(gpu[name] is None for name in NAMES)
    assert samples[-1]["ranks"]  # everything else is still read
    assert set(notes(file)) == {f"gpu {A}", f"gpu {B}"}
    assert set(notes(file).values()) == {"GPU is lost"}


@pytest.mark.parametrize(
    ("faults", "why"), [("", "NVML Shared Library Not Found"), ("nvmlInitWithFlags=9", "Driver Not Loaded")]
)
def test_without_a_driver_there_are_no_gpus_and_the_reason(
    library: Path, tmp_path: Path, faults: str, why: str
) -> None:
    if not faults and shutil.which("nvidia-smi"):
        pytest.skip("this machine has a driver")
    file = sampled(tmp_path, library if faults else tmp_path, A, faults)
    assert read(file, "start")[0]["gpus"] == []
    assert notes(file) == {"gpus": why}
    assert read(file, "sample")[-1]["gpus"] == []


@pytest.mark.parametrize(
    ("devices", "uuids"),
    [
        ("1", [B]),
        ("1,0", [B, A]),
        ("0,-1,1", [A]),
        (None, [A, B]),
        ("GPU-bb", [B]),
        (MIG, [MIG]),
        (f"{A},{A}", [A]),
    ],
)
def test_the_gpus_are_those_that_cuda_shows_the_rank(
    library: Path, tmp_path: Path, devices: str | None, uuids: list[str]
) -> None:
    file = sampled(tmp_path, library, devices)
    assert [gpu["uuid"] for gpu in read(file, "start")[0]["gpus"]] == uuids
    assert read(file, "start")[0]["ranks"][0]["gpus"] == uuids
    assert [gpu["uuid"] for gpu in read(file, "sample")[-1]["gpus"]] == uuids


def test_a_rank_without_gpus_asks_no_driver(library: Path, tmp_path: Path) -> None:
    file = sampled(tmp_path, library, "", "nvmlInitWithFlags=9")
    assert read(file, "start")[0]["gpus"] == []
    assert not notes(file)


def test_a_device_that_is_not_there_is_named(library: Path, tmp_path: Path) -> None:
    file = sampled(tmp_path, library, "7")
    assert notes(file) == {"gpu 7": "Invalid Argument"}


def test_an_instance_of_a_divided_gpu_has_its_own_memory_and_not_the_boards_power(
    library: Path, tmp_path: Path
) -> None:
    file = sampled(tmp_path, library, MIG)
    assert read(file, "start")[0]["gpus"][0]["board"] == B
    (gpu,) = read(file, "sample")[-1]["gpus"]
    assert gpu["memory_bytes"] == 3 << 30
    assert gpu["temperature_celsius"] == 63
    assert gpu["power_watts"] is None
    assert notes(file)[f"gpu {MIG}: power_watts"] == "is the whole board's, of which this is an instance"


@pytest.mark.gpu
def test_a_real_gpu_tells_its_power_memory_and_clocks(tmp_path: Path) -> None:
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        pytest.skip(f"no NVIDIA GPU: {error}")
    file = tmp_path / "telemetry-host.jsonl"
    with sampler(file, [(os.getpid(), [0])], hertz=2, devices=[None]):
        until(lambda: time.sleep(5) is None)
    assert len(read(file, "start")[0]["gpus"]) == count
    samples, said = read(file, "sample"), notes(file)
    for index, uuid in enumerate(gpu["uuid"] for gpu in read(file, "start")[0]["gpus"]):
        gpu: dict[str, Any] = samples[-1]["gpus"][index]
        assert {name for name in NAMES if gpu[name] is None} == {
            name for name in NAMES if f"gpu {uuid}: {name}" in said
        }
        assert 0 < gpu["memory_bytes"] < 1e12
        assert 5 < gpu["power_watts"] < 2000
        assert 0 < gpu["sm_mhz"] < 5000
    (end,) = read(file, "end")
    assert end["cpu_seconds"] < 0.05 * (samples[-1]["unix"] - samples[0]["unix"])


def test_gpus_keep_their_names_under_another_pynvml(tmp_path: Path, library: Path) -> None:
    """In the rank's variable, and in what is sampled."""
    old_pynvml(tmp_path / "site")
    variables = {"PYTHONPATH": str(tmp_path / "site"), "LD_LIBRARY_PATH": str(library)}
    code = "from jobs.machine import gpus; print(gpus.visible({}))"
    said = subprocess.run([sys.executable, "-P", "-c", code], env=variables, cwd=ROOT, capture_output=True, text=True)
    assert said.stdout == f"{[A, B]}\n", said.stderr
    file = tmp_path / "telemetry-host.jsonl"
    with sampler(file, [(1, [0])], devices=[f"{A},{B}"], variables=variables) as process:
        assert process.poll() is None
    (start,) = read(file, "start")
    assert [gpu["uuid"] for gpu in start["gpus"]] == [A, B]
    assert read(file, "sample")[-1]["gpus"][0]["throttle"]


def test_a_package_that_is_called_pynvml_and_is_something_else_costs_no_measurement(tmp_path: Path) -> None:
    install(tmp_path / "site", "pynvml", "0.1", {"pynvml/__init__.py": "raise ImportError('built for Windows')"})
    variables = {"PYTHONPATH": str(tmp_path / "site")}
    code = "from jobs.machine import provenance; print(provenance.gpus())"
    said = subprocess.run([sys.executable, "-P", "-c", code], env=variables, cwd=ROOT, capture_output=True, text=True)
    assert said.stdout == "[]\n", said.stderr
    file = tmp_path / "telemetry-host.jsonl"
    with sampler(file, [(1, [0])], devices=["0"], variables=variables) as process:
        assert process.poll() is None
    (note,) = [row for row in read(file, "note") if row["what"] == "gpus"]
    assert "built for Windows" in note["why"]
    assert read(file, "sample")
