"""What the doctor says of one thing, and how it asks programs and packages."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from importlib import metadata

PATIENCE = 3.0  # seconds a program has to answer
SETUP = "make setup"


@dataclass(frozen=True)
class Finding:
    """One thing examined. `ok`: True, it can be used; False, something will not work; None, it is
    absent and nothing but what it is for needs it. `mend` is a command, "" where there is none."""

    name: str
    ok: bool | None
    says: str
    mend: str = ""


def program(name: str, candidates: tuple[str, ...], purpose: str, mend: str) -> Finding:
    """The first of `candidates` that runs."""
    there = [program for program in candidates if shutil.which(program)]
    for program in there:
        if version := ask(program, "--version"):
            return Finding(name, True, version.splitlines()[0].strip())
    if there:
        return Finding(name, False, f"{', '.join(there)} cannot be run; {purpose}", mend)
    return Finding(name, None, f"not found; {purpose}", mend)


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def ask(*command: str) -> str | None:
    """What a program printed; None if it failed, or said nothing within PATIENCE seconds."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError:
        return None
    with process:
        try:
            said, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            # Its children too: one of a wrapper script would hold the pipe open.
            os.killpg(process.pid, signal.SIGKILL)
            return None
    return said.strip() if process.returncode == 0 else None
