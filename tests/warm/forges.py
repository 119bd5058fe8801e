"""The forges of a test run, and the environment that leads ranks to them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.rank.parent import PARENT

SITE = Path(__file__).with_name("site")
ROOT = Path(__file__).parents[2]
BARE, FORGES = "SCALING_TEST_BARE", "SCALING_TEST_FORGES"  # as site/sitecustomize.py reads them
FRAMEWORKS = ("torch", "tf", "jax")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def bare() -> dict[str, str]:
    """The environment of ranks that have no framework (site/bare_ranks.py)."""
    return _leading({BARE: "1"})


def warm(folder: Path) -> dict[str, str]:
    """The environment of ranks that are forked by the forges in `folder`."""
    return _leading({FORGES: str(folder)})


def lead(patch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    """Let ranks that are started from here be of that kind and no other."""
    for marker in (BARE, FORGES):
        patch.delenv(marker, raising=False)
    for name, value in variables.items():
        patch.setenv(name, value)


def _leading(variables: dict[str, str]) -> dict[str, str]:
    """With these a rank's Python finds site/sitecustomize.py."""
    there = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return variables | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, [str(SITE), *there])))}


@contextmanager
def forges() -> Iterator[Path]:
    """The folder in which each framework's forge listens, once all of them are ready.

    What libraries read when they are imported is what a rank with one thread on a CPU has.
    """
    variables = os.environ | dict.fromkeys(THREADS, "1") | {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "1"}
    variables[PARENT] = str(os.getpid())
    with tempfile.TemporaryDirectory(prefix="forges-") as folder:
        started = []
        try:
            for framework in FRAMEWORKS:
                command = [sys.executable, "-m", "tests.warm.forge", folder, framework]
                with Path(folder, f"{framework}.log").open("wb") as log:
                    process = subprocess.Popen(
                        command, cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
                    )
                started.append(process)
            for framework, process in zip(FRAMEWORKS, started, strict=True):
                assert process.stdout is not None
                said = process.stdout.readline()
                assert said == b"ready\n", Path(folder, f"{framework}.log").read_text()[-2000:]
            yield Path(folder)
        finally:
            for process in started:
                process.kill()
                process.communicate()
