"""Strategies in environments of their own: `launcher: {kind: local, python: {torch-xla: .venv-xla/bin/python}}`.

Frameworks that cannot be installed together are still compared in one study, launch by launch in one
random order. Such an environment needs this project installed, and what the strategy needs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from typing import Any

from jobs.contract.catalog import STRATEGIES
from jobs.machine.variables import for_ranks

PATIENCE = 60.0  # seconds for an interpreter to look for a module, on a slow file system
MISSING = "import sys; from jobs.contract.catalog import missing; print(missing(sys.argv[1]) or '')"
ABSENT = "import sys; from jobs.contract.catalog import absent; print(absent(sys.argv[1:], 'install it there') or '')"


def read(given: Any) -> tuple[dict[str, str], list[str]]:
    """Strategy ─▶ its interpreter from the launcher's option `python`, and what is wrong with it."""
    if not isinstance(given, dict):
        return {}, [f"python: {given!r} is wrong; it is a mapping of strategies to interpreters"]
    found, faults = {}, []
    for strategy, path in given.items():
        if strategy not in STRATEGIES:
            faults.append(f"python.{strategy}: is not a strategy; known: {', '.join(STRATEGIES)}")
        elif not isinstance(path, str) or shutil.which(path) is None:
            faults.append(f"python.{strategy}: {path!r} is not a program; name an environment's bin/python")
        else:
            # Not resolved: an environment's python is a link, and means the environment by its place.
            found[strategy] = os.path.abspath(shutil.which(path) or path)
    return found, faults


def missing(python: str, strategy: str) -> str | None:
    """Why `strategy` cannot run with that interpreter, None if it can."""
    return _asked(python, MISSING, strategy)


def absent(python: str, modules: Sequence[str]) -> str | None:
    """Which of `modules` that interpreter lacks; None if it has all."""
    return _asked(python, ABSENT, *modules) if modules else None


@cache
def _asked(python: str, question: str, *about: str) -> str | None:
    try:
        done = subprocess.run(
            [python, "-P", "-c", question, *about],
            env=for_ranks(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{python} cannot be asked: {error}"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return f"{python} does not have this project ({last}); install it there with pip"
    why = done.stdout.strip()
    return f"{why} (asked: {python})" if why else None
