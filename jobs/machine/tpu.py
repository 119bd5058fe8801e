"""The TPU of this machine, without any framework in this process.

    python -m jobs.machine.tpu      asks the framework that is installed, and prints what it found as JSON

A TPU belongs to one process at a time, and a framework that cannot reach one may wait for minutes, so
a driver asks in a process of its own, with a time limit: `cores`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PATIENCE = 180.0  # seconds in which a TPU that is there has answered
VENDOR = "0x1ae0"  # Google's, of the PCI bus
# PCI device ─▶ its generation; the same table is in JAX (jax/_src/hardware_utils.py). v2 has no entry there.
GENERATIONS = {
    "0x0027": "v3",
    "0x005e": "v4",
    "0x0062": "v5p",
    "0x0063": "v5e",
    "0x006f": "v6e",
    "0x0076": "7x",
}


class TpuError(RuntimeError):
    """There is no TPU that can be used; the message is one line and says why."""


def chips(root: Path = Path("/sys/bus/pci/devices")) -> list[str]:
    """The generation of each TPU chip on this machine's PCI bus, "v5e" say; empty without a TPU."""
    found = []
    for device in sorted(root.glob("*")):
        try:
            vendor, number = (device / "vendor").read_text().strip(), (device / "device").read_text().strip()
        except OSError:
            continue
        if vendor == VENDOR and number in GENERATIONS:
            found.append(GENERATIONS[number])
    return found


def name() -> str:
    """What the TPU is called in results: "TPU v5e", or "TPU" where the bus does not tell."""
    generations = dict.fromkeys(chips())
    return f"TPU {' and '.join(generations)}" if generations else "TPU"


def address() -> str:
    """What TensorFlow's resolver is asked for: the TPU that TPU_NAME names, by default this machine's."""
    return os.environ.get("TPU_NAME") or "local"


def cores(python: str = sys.executable, patience: float = PATIENCE) -> int:
    """How many cores the TPU has for a framework that the interpreter `python` has. Raises TpuError."""
    command = [python, "-P", "-m", "jobs.machine.tpu"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=patience)
    except subprocess.TimeoutExpired:
        raise TpuError(f"the TPU did not answer within {patience:g} s") from None
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        if answer["cores"]:
            return int(answer["cores"])
        said = str(answer["error"])
    except (IndexError, KeyError, TypeError, ValueError):
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    raise TpuError(said)


def _by_jax() -> int:
    os.environ["JAX_PLATFORMS"] = "tpu"
    import jax

    return int(jax.device_count())


def _by_tensorflow() -> int:
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address())
    tf.config.experimental_connect_to_cluster(resolver)
    topology = tf.tpu.experimental.initialize_tpu_system(resolver)
    return int(topology.num_tasks * topology.num_tpus_per_task)


def _by_torch_xla() -> int:
    os.environ["PJRT_DEVICE"] = "TPU"
    import torch_xla.runtime

    return int(torch_xla.runtime.global_runtime_device_count())


WAYS: dict[str, Callable[[], int]] = {"jax": _by_jax, "tensorflow": _by_tensorflow, "torch_xla": _by_torch_xla}


def main() -> None:
    """Ask each framework that is installed, until one finds a TPU; print {"cores": n, "error": why}."""
    why = {}
    for module, count in WAYS.items():
        if importlib.util.find_spec(module) is None:
            continue
        try:
            print(json.dumps({"cores": count(), "by": module}))
            return
        except Exception as error:  # each framework has its own way to say that there is none
            why[module] = " ".join(str(error).split())[:200] or type(error).__name__
    none = "no framework that knows TPUs is installed"
    print(json.dumps({"cores": 0, "error": "; ".join(f"{m}: {text}" for m, text in why.items()) or none}))


if __name__ == "__main__":
    main()
