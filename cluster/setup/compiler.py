"""Is there a C++ compiler as torch.compile wants one? It is asked before the first launch, and by the doctor."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.contract import reason
from jobs.contract.catalog import STRATEGIES
from jobs.rank.raised import in_a_line

if TYPE_CHECKING:  # the doctor does without what a trial needs
    from jobs.contract.trial import Trial

PATIENCE = 60.0  # seconds
# A library of what a compiled model is made of: Python's header, OpenMP, C++'s own library.
PROGRAM = (
    "#include <Python.h>\n#include <omp.h>\n#include <vector>\nint main_() { return std::vector<int>(1).size(); }\n"
)
CURE = "`sudo apt-get install g++` installs one, or name yours in CXX"
HEADER = "its header comes with `sudo apt-get install python3-dev`"


def lacking(trial: Trial, python: str = sys.executable) -> str | None:
    """Why this machine cannot execute the trial for want of a compiler; None if it can, or needs none. `python` is
    the interpreter of its ranks."""
    if trial.recipe.execution not in STRATEGIES[trial.strategy].compiled or trial.gpus_per_worker:
        return None  # on a GPU another compiler is wanted, which comes with Triton or is found by it
    why = why_not(python)
    return f"execution {trial.recipe.execution} needs a C++ compiler: {why}" if why else None


def why_not(python: str = sys.executable) -> str | None:
    """Why torch.compile could not compile here, in one line with a cure; None if it could."""
    if os.environ.get("TORCH_INDUCTOR_INSTALL_GXX"):
        return None  # it gets one of its own from conda
    # As torch/_inductor/config.py has it in cpp.cxx.
    return _tried(os.environ.get("CXX", "g++"), _include(python))


@cache
def _include(python: str) -> str:
    """Where the interpreter's header is, or would be."""
    ask = "import sysconfig; print(sysconfig.get_paths()['include'])"
    if python != sys.executable:
        with suppress(OSError, subprocess.SubprocessError):
            command = [python, "-I", "-c", ask]
            said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout
            return said.strip()
    return sysconfig.get_paths()["include"]


@cache
def _tried(compiler: str, include: str) -> str | None:
    if not compiler:
        return f"CXX is empty; {CURE}"
    called = f"CXX is {compiler}" if "CXX" in os.environ else compiler
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "tried.so")
        source = ["-x", "c++", "-", "-o", str(library), f"-I{include}"]
        try:
            subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=PATIENCE)
            done = subprocess.run(
                [compiler, "-shared", "-fPIC", "-fopenmp", *source],
                input=PROGRAM.encode(),
                capture_output=True,
                timeout=PATIENCE,
            )
        except FileNotFoundError:
            words = ", which is one name and no command line" if " " in compiler else ""
            return (
                f"{called}, and there is no such program{words}; {CURE}"
                if called != compiler
                else (f"there is no {compiler}; {CURE}")
            )
        except (OSError, subprocess.SubprocessError) as error:
            return f"{called}, which cannot be run ({in_a_line(error)}); {CURE}"
        if done.returncode == 0 and library.exists():
            return None
        said = reason.message(reason.readable(done.stderr)) or "it wrote nothing"
        return f"{called}, which does not compile ({said}); {HEADER if 'Python.h' in said else CURE}"
