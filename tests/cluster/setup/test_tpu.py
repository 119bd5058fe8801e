"""A TensorFlow for the TPU: each candidate apart, tried with a time limit, in order, until one works."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest

from cluster.setup import tpu
from cluster.setup.probe import EXPECTED
from cluster.setup.tpu import Candidate
from tests.cluster.local.test_interpreters import program

WORKS = f"""echo '{json.dumps({"tensorflow": "2.20.0", "products": [EXPECTED] * 8})}'"""


def test_the_environment_is_real_and_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "print('a tiny package')\n")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    tiny = Candidate("tiny==1.0", sys.version_info[:2], ("--no-index", "--find-links", str(tmp_path)))
    python, why = tpu.environment(tmp_path / "e", tiny)
    assert why == ""
    assert tpu._run([str(python), "-c", "import tiny"], 20) == ("a tiny package\n", "")
    monkeypatch.setattr(tpu, "_run", lambda *_: pytest.fail("it was made again"))
    assert tpu.environment(tmp_path / "e", tiny) == (python, "")


def test_what_cannot_be_installed_is_said_and_not_taken_for_ready(tmp_path: Path) -> None:
    absent = Candidate("no-such-package==1.0", sys.version_info[:2], ("--no-index",))
    for _ in range(2):
        _, why = tpu.environment(tmp_path, absent)
        assert "No matching distribution found for no-such-package==1.0" in why
    _, why = tpu.environment(tmp_path, Candidate("old==1.0", (3, 7)))
    assert why == f"there is none for Python 3.{sys.version_info[1]}"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (WORKS, ""),
        ("sleep 60", "no answer within 0.5 s"),
        ("echo 'No OpKernel was registered to support Op ConfigureDistributedTPU' >&2; exit 1",
         "No OpKernel was registered to support Op ConfigureDistributedTPU"),
        ("exit 3", "it ended with exit code 3"),
        ("kill -9 $$", "it ended with exit code -9"),
        ("echo started", "it did not say what it computed"),
        ("echo '{\"products\": []}'", f"it computed [], not {EXPECTED:g} on each core"),
        ("echo '{\"products\": [2097152.0, 2096128.0]}'", "it computed [2097152.0, 2096128.0], not"),
    ],
)  # fmt: skip
def test_the_probe_believes_only_the_right_product_on_every_core(body: str, why: str, tmp_path: Path) -> None:
    python = Path(program(tmp_path / "python", body))
    said = tpu.probe(python, patience=0.5 if "sleep" in body else 20.0)
    assert said.startswith(why)
    assert bool(said) == bool(why)


def test_candidates_are_tried_in_order_until_one_drives_the_tpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = {"tensorflow-tpu==2.20.0": "echo 'RuntimeError: no compatible libtpu' >&2; exit 1"}

    def environment(place: Path, candidate: Candidate) -> tuple[Path, str]:
        name = candidate.requirement
        if name not in bodies:
            return place, "there is none for Python 3.13"
        return Path(program(place / name.replace("==", "-"), bodies[name])), ""

    monkeypatch.setattr(tpu, "environment", environment)
    python, reasons = tpu.tensorflow(tmp_path, lambda _: None)
    assert (python, len(reasons)) == (None, 2)
    assert reasons[0] == "tensorflow-tpu==2.20.0: RuntimeError: no compatible libtpu"
    assert reasons[1] == "tensorflow-tpu==2.18.0: there is none for Python 3.13"
    bodies["tensorflow-tpu==2.18.0"] = WORKS
    python, reasons = tpu.tensorflow(tmp_path, lambda _: None)
    assert python == tmp_path / "tensorflow-tpu-2.18.0"
    assert len(reasons) == 1
    bodies["tensorflow-tpu==2.20.0"] = WORKS
    assert tpu.tensorflow(tmp_path, lambda _: None) == (tmp_path / "tensorflow-tpu-2.20.0", [])


def test_the_probe_computes_on_every_replica(tmp_path: Path) -> None:
    """On CPU devices, as there is no TPU here; what only a TPU can show is its initialization."""
    code = (
        "import tensorflow as tf; from cluster.setup.probe import EXPECTED, products\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)\n"
        "assert products(tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])) == [EXPECTED] * 2"
    )
    assert tpu._run([sys.executable, "-c", code], 120.0) == ("", "")
