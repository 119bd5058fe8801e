"""A TensorFlow that drives this machine's TPU, in an environment of its own.

    python, why = tensorflow(Path("environments"))

Which TensorFlow drives which TPU runtime can only be found out on it, and one that does not may hang: so
each candidate is installed apart and tried in a process with a time limit, in order, until one works.
docs/tpu.md tells what is known of each.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster.setup.probe import EXPECTED

PATIENCE = 180.0  # seconds in which a TPU that works has been initialized
INSTALL_PATIENCE = 900.0  # seconds for a download of a few hundred megabytes
RUNTIME = "2026.07"  # the newest of Colab's runtimes with a Python that every candidate supports
MENU = f"In Colab choose: Command palette (Ctrl+Shift+P) > Change runtime version > {RUNTIME}, then Runtime > Run all."


@dataclass(frozen=True)
class Candidate:
    """A TensorFlow to be tried; `newest_python` is the last that it has a wheel for."""

    requirement: str
    newest_python: tuple[int, int]
    arguments: tuple[str, ...] = ()


CANDIDATES = (
    Candidate("tensorflow-tpu==2.20.0", (3, 13)),
    # It needs libtpu 2.18.0, which is not on PyPI.
    Candidate(
        "tensorflow-tpu==2.18.0",
        (3, 12),
        ("--find-links", "https://storage.googleapis.com/libtpu-tf-releases/index.html"),
    ),
)
ON_CPUS = Candidate("tensorflow-cpu==2.20.0", (3, 13))


def tensorflow(place: Path, say: Callable[[str], None] = print) -> tuple[Path | None, list[str]]:
    """The interpreter with which TensorFlow drives the TPU, None if there is none, and why each that was
    tried before it does not. Environments are made in the folder `place`, or found there."""
    reasons: list[str] = []
    for candidate in CANDIDATES:
        say(f"trying {candidate.requirement} …")
        python, why = environment(place, candidate)
        why = why or probe(python)
        if not why:
            return python, reasons
        reasons.append(f"{candidate.requirement}: {why}")
        say(f"  it does not work here: {why}")
    return None, reasons


def tensorflow_on_cpus(place: Path, say: Callable[[str], None] = print) -> tuple[Path | None, list[str]]:
    """An interpreter that has TensorFlow, for a machine without a TPU: this one if it does."""
    if importlib.util.find_spec("tensorflow") is not None:
        return Path(sys.executable), []
    say(f"installing {ON_CPUS.requirement} …")
    python, why = environment(place, ON_CPUS)
    return (None, [f"{ON_CPUS.requirement}: {why}"]) if why else (python, [])


def environment(place: Path, candidate: Candidate) -> tuple[Path, str]:
    """The interpreter of an environment with `candidate` on top of what this one has, and why there is
    none, "" if there is. One that was made before is taken as it is."""
    home = place / candidate.requirement.replace("==", "-")
    python, ready = home / "bin" / "python", home / ".ready"
    if ready.exists():
        return python, ""
    if sys.version_info[:2] > candidate.newest_python:
        return python, f"there is none for Python {sys.version_info[0]}.{sys.version_info[1]}"
    # Without pip, since Colab's Python lacks ensurepip: this one's pip installs into it.
    steps = (
        ("-m", "venv", "--clear", "--system-site-packages", "--without-pip", str(home)),
        ("-m", "pip", "--python", str(python), "install", "--quiet", *candidate.arguments, candidate.requirement),
    )
    for arguments in steps:
        _, why = _run([sys.executable, *arguments], INSTALL_PATIENCE)
        if why:
            return python, why
    ready.touch()
    return python, ""


def probe(python: Path, patience: float = PATIENCE) -> str:
    """Why TensorFlow does not drive the TPU with that interpreter, "" if it does."""
    said, why = _run([str(python), "-P", "-m", "cluster.setup.probe"], patience)
    if why:
        return why
    try:
        products = json.loads(said.splitlines()[-1])["products"]
    except (IndexError, KeyError, TypeError, ValueError):
        return "it did not say what it computed"
    wrong = not products or any(value != EXPECTED for value in products)
    return f"it computed {products}, not {EXPECTED:g} on each core" if wrong else ""


def _run(command: list[str], patience: float) -> tuple[str, str]:
    """What a program printed, and in a line why it failed, "" if it did not."""
    # For a TPU's library that waits for another process to let go of the chips, or logs for ever.
    variables = os.environ | {"TPU_STDERR_LOG_LEVEL": "3", "TF_CPP_MIN_LOG_LEVEL": "2"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=variables,
            timeout=patience,
        )
    except subprocess.TimeoutExpired:
        return "", f"no answer within {patience:g} s"
    except OSError as error:
        return "", str(error)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return "", (lines or [f"it ended with exit code {done.returncode}"])[-1][:200]
    return done.stdout, ""
