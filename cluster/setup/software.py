"""What the doctor finds of the environment: Python, frameworks and libraries, SLURM, compiler, browser."""

from __future__ import annotations

import importlib.util
import mmap
import platform
import shutil
import sys
from pathlib import Path

from cluster.horovod import installed, nccl
from cluster.setup import compiler as for_torch
from cluster.setup.finding import PATIENCE, SETUP, Finding, ask, program, version_of
from cluster.setup.lacking import why_not
from jobs.contract.catalog import STRATEGIES
from jobs.contract.registry import RegistryError

COMPILER = "sudo apt-get install g++ make"
COMPILERS = ("c++", "g++", "clang++")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# What shows in Horovod's libraries that they were built with it: symbols of its own or of its interface.
IN_LIBRARY = {"Gloo": b"_ZN4gloo", "MPI": b"MPI_Allreduce", "NCCL": b"ncclAllReduce"}


def python(name: str) -> Finding:
    says = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info[:2] == (3, 11):
        return Finding(name, True, says)
    return Finding(name, None, f"{says}; the pinned versions are for 3.11", SETUP)


def strategies(name: str) -> Finding:
    usable, apart, absent = [], [], []
    for strategy in STRATEGIES:
        try:
            why, elsewhere = why_not(strategy), STRATEGIES[strategy].apart
        except RegistryError as error:  # another package's
            absent.append(str(error))
            continue
        if why is None:
            usable.append(strategy)
        elif elsewhere:
            apart.append(f"{strategy} ({elsewhere})")
        else:
            absent.append(strategy)
    others = f"; in an environment of its own: {', '.join(apart)}" if apart else ""
    if not absent:
        return Finding(name, True, f"all {len(usable)}: {', '.join(usable)}{others}")
    return Finding(name, False, f"{', '.join(usable) or 'none'}; not {', '.join(absent)}{others}", SETUP)


def pytorch(name: str) -> Finding:
    version = version_of("torch")
    if version is None:
        return Finding(name, False, "not installed", SETUP)
    return Finding(name, True, f"{version}, built for {'CUDA' if nccl.torch_has_cuda() else 'CPUs'}")


def tensorflow(name: str) -> Finding:
    found = [(package, version) for package in ("tensorflow", "tensorflow-cpu") if (version := version_of(package))]
    if not found:
        return Finding(name, False, "not installed", SETUP)
    package, version = found[0]
    kind = ", built for CPUs" if package == "tensorflow-cpu" else ""
    return Finding(name, True, f"{version}{kind}, with Keras {version_of('keras') or '(missing)'}")


def jax(name: str) -> Finding:
    version = version_of("jax")
    if version is None:
        return Finding(name, False, "not installed", SETUP)
    plugins = [kind for kind in ("cuda12", "cuda13") if version_of(f"jax-{kind}-plugin")]
    built = "for CUDA" if plugins else "for TPUs" if version_of("libtpu") else "for CPUs"
    return Finding(name, True, f"{version}, {built}, with optax {version_of('optax') or '(missing)'}")


def horovod(name: str) -> Finding:
    why = installed.why_not()
    if why is not None:
        ready = any(map(shutil.which, COMPILERS)) and shutil.which("make")
        return Finding(name, False, why, SETUP if ready else f"{COMPILER} && {SETUP}")
    built = installed.built_with() or built_by_libraries()
    parts = ", ".join(part if has else f"no {part}" for part, has in built.items())
    return Finding(name, True, f"{version_of('horovod')}: {parts}")


def built_by_libraries() -> dict[str, bool]:
    """Frameworks and ways to communicate that Horovod's native libraries show; both must have the latter."""
    spec = importlib.util.find_spec("horovod")
    folder = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else Path()
    parts = {"TensorFlow": "tensorflow", "PyTorch": "torch"}
    libraries = {part: next((folder / module).glob("mpi_lib*.so"), None) for part, module in parts.items()}
    facts = {part: library is not None for part, library in libraries.items()}
    present = [library for library in libraries.values() if library]
    for part, symbol in IN_LIBRARY.items():
        facts[part] = bool(present) and all(_contains(library, symbol) for library in present)
    return facts


def _contains(path: Path, content: bytes) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return view.find(content) >= 0


def ray(name: str) -> Finding:
    version = version_of("ray")
    return Finding(name, True, version) if version else Finding(name, None, "not installed", SETUP)


def seaborn(name: str) -> Finding:
    version = version_of("seaborn")
    if version is None:
        return Finding(name, False, "not installed", SETUP)
    return Finding(name, True, version)


def slurm(name: str) -> Finding:
    absent = [program for program in ("sinfo", "sbatch", "srun", "scontrol") if shutil.which(program) is None]
    if absent:
        return Finding(name, None, f"{', '.join(absent)} not found", "sudo apt-get install slurm-wlm")
    version = ask("sinfo", "--version")
    asked = ask("sinfo", "--noheader", "--format=%P %D×%c cores %a") if version else None
    if asked is None:
        says = f"{version or 'installed'}, but its controller does not answer within {PATIENCE:g} s"
        return Finding(name, False, says, "scontrol ping")
    partitions = "; ".join(" ".join(line.split()) for line in asked.splitlines())
    return Finding(name, True, f"{version}: {partitions or 'no partition'}")


def compiler(name: str) -> Finding:
    found = program(name, COMPILERS, "Horovod is built with it, and torch.compile (execution: graph) uses it", COMPILER)
    if found.ok and (why := for_torch.why_not()):
        return Finding(name, False, f"{found.says}; for torch.compile (execution: graph): {why}")
    return found


def browser(name: str) -> Finding:
    return program(name, BROWSERS, "the tests look at the report in it", "sudo apt-get install chromium")
