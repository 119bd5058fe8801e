"""Does what is installed also import? Asked by `scaling run --dry-run`, as it takes seconds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from jobs.contract import reason
from jobs.contract.catalog import STRATEGIES
from jobs.contract.exits import in_words
from jobs.machine.variables import for_ranks
from jobs.rank.raised import in_a_line

PATIENCE = 120.0  # seconds, on a slow file system
ASK = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
# Its own module imports without any framework; what ranks import is that of theirs.
OF_HOROVOD = {"torch": "horovod.torch", "tensorflow": "horovod.tensorflow"}


def broken(interpreters: Mapping[str, str]) -> list[str]:
    """Strategies (name ─▶ the Python that its ranks have) which do not import, one line each."""
    wanted = {name: (python, _modules(name)) for name, python in interpreters.items()}
    distinct = list(dict.fromkeys(wanted.values()))
    with ThreadPoolExecutor(len(distinct) or 1) as pool:
        said = dict(zip(distinct, pool.map(_why_not, distinct), strict=True))
    return [f"{name}: {' and '.join(asked[1])} {said[asked]}" for name, asked in wanted.items() if said[asked]]


def _modules(strategy: str) -> tuple[str, ...]:
    needs = STRATEGIES[strategy].needs
    return tuple(OF_HOROVOD.get(needs[0], name) if name == "horovod" else name for name in needs)


def _why_not(asked: tuple[str, tuple[str, ...]]) -> str:
    python, modules = asked
    variables = for_ranks(os.environ) | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(
            [python, "-P", "-c", ASK, *modules],
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"cannot be imported by {python} ({in_a_line(error)})"
    if done.returncode == 0:
        return ""
    why = reason.telling(reason.readable(done.stderr), cut_off=done.returncode < 0) or f"it {in_words(done.returncode)}"
    return f"cannot be imported, though installed ({why}); `make setup` in a fresh environment mends it"
