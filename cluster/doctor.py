"""What this machine can run, what it lacks, and what would mend it: `scaling doctor`.

No framework is imported: versions come from the packages' metadata, Horovod's build from what it said
of itself when it was installed, or from its libraries (`horovodrun --check-build` says the same after
importing both frameworks a dozen times). Programs are asked side by side, each with a time limit.
"""

from __future__ import annotations

import importlib.util
import mmap
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.horovod import installed, nccl
from jobs.contract.catalog import STRATEGIES, missing
from jobs.machine.cores import allowed_cores, cgroup_quota
from jobs.machine.provenance import cpu_model

if TYPE_CHECKING:
    from rich.table import Table

PATIENCE = 3.0  # seconds a program has to answer
SETUP = "make setup"
TPU_SETUP = "python3 -m venv .venv-tpu && .venv-tpu/bin/pip install tensorflow-tpu==2.20.0"
COMPILER = "sudo apt-get install g++ make"
COMPILERS = ("c++", "g++", "clang++")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# What shows in Horovod's libraries that they were built with it: symbols of its own or of its interface.
IN_LIBRARY = {"Gloo": b"_ZN4gloo", "MPI": b"MPI_Allreduce", "NCCL": b"ncclAllReduce"}


@dataclass(frozen=True)
class Finding:
    """One thing examined. `ok`: True, it can be used; False, something will not work; None, it is
    absent and nothing but what it is for needs it. `mend` is a command, "" where there is none."""

    name: str
    ok: bool | None
    says: str
    mend: str = ""


def examine() -> list[Finding]:
    """Everything a study may need, in the order in which it is read. Never raises."""
    with ThreadPoolExecutor(len(EXAMINERS)) as pool:
        return list(pool.map(_safely, EXAMINERS.items()))


def render(findings: list[Finding]) -> Table:
    """The findings as a table: ✓ can be used, ✗ will not work, – absent."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column("mark", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("says", overflow="fold")
    marks = {True: Text("✓", "green"), False: Text("✗", "bold red"), None: Text("–", "dim")}
    for finding in findings:
        says = Text(finding.says)
        if finding.mend:
            says.append(f"\n→ {finding.mend}", "yellow" if finding.ok is False else "dim")
        table.add_row(marks[finding.ok], Text(finding.name, "bold"), says)
    return table


def _safely(examiner: tuple[str, Callable[[str], Finding]]) -> Finding:
    name, look = examiner
    try:
        return look(name)
    except ImportError as error:
        return Finding(name, False, f"could not be examined: {error}", SETUP)
    except Exception as error:  # a doctor who faints is of no help
        return Finding(name, False, f"could not be examined: {type(error).__name__}: {error}")


def _python(name: str) -> Finding:
    says = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info[:2] == (3, 11):
        return Finding(name, True, says)
    return Finding(name, None, f"{says}; the pinned versions are for 3.11", SETUP)


def _strategies(name: str) -> Finding:
    lacking = {strategy: _why_not(strategy) for strategy in STRATEGIES}
    usable = [strategy for strategy, why in lacking.items() if why is None]
    apart = [f"{strategy} ({info.apart})" for strategy, info in STRATEGIES.items() if info.apart and lacking[strategy]]
    elsewhere = f"; in an environment of its own: {', '.join(apart)}" if apart else ""
    absent = [strategy for strategy, why in lacking.items() if why and not STRATEGIES[strategy].apart]
    if not absent:
        return Finding(name, True, f"all {len(usable)}: {', '.join(usable)}{elsewhere}")
    return Finding(name, False, f"{', '.join(usable) or 'none'}; not {', '.join(absent)}{elsewhere}", SETUP)


def _why_not(strategy: str) -> str | None:
    return missing(strategy) or (installed.why_not() if "horovod" in STRATEGIES[strategy].needs else None)


def _pytorch(name: str) -> Finding:
    version = _version("torch")
    if version is None:
        return Finding(name, False, "not installed", SETUP)
    return Finding(name, True, f"{version}, built for {'CUDA' if nccl.torch_has_cuda() else 'CPUs'}")


def _tensorflow(name: str) -> Finding:
    found = [(package, version) for package in ("tensorflow", "tensorflow-cpu") if (version := _version(package))]
    if not found:
        return Finding(name, False, "not installed", SETUP)
    package, version = found[0]
    kind = ", built for CPUs" if package == "tensorflow-cpu" else ""
    return Finding(name, True, f"{version}{kind}, with Keras {_version('keras') or '(missing)'}")


def _jax(name: str) -> Finding:
    version = _version("jax")
    if version is None:
        return Finding(name, False, "not installed", SETUP)
    plugins = [kind for kind in ("cuda12", "cuda13") if _version(f"jax-{kind}-plugin")]
    built = "for CUDA" if plugins else "for TPUs" if _version("libtpu") else "for CPUs"
    return Finding(name, True, f"{version}, {built}, with optax {_version('optax') or '(missing)'}")


def _horovod(name: str) -> Finding:
    why = installed.why_not()
    if why is not None:
        ready = any(map(shutil.which, COMPILERS)) and shutil.which("make")
        return Finding(name, False, why, SETUP if ready else f"{COMPILER} && {SETUP}")
    built = installed.built_with() or built_by_libraries()
    parts = ", ".join(part if has else f"no {part}" for part, has in built.items())
    return Finding(name, True, f"{_version('horovod')}: {parts}")


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


def _ray(name: str) -> Finding:
    version = _version("ray")
    return Finding(name, True, version) if version else Finding(name, None, "not installed", SETUP)


def _seaborn(name: str) -> Finding:
    version = _version("seaborn")
    if version is None:
        return Finding(name, False, "not installed", SETUP)
    return Finding(name, True, version)


def _cores(name: str) -> Finding:
    import psutil

    usable, quota = len(allowed_cores()), cgroup_quota()
    of = f"of {psutil.cpu_count(logical=False) or os.cpu_count()} on this machine"
    limit = f", a quota of {quota:g}" if quota is not None else ""
    return Finding(name, True, f"{usable} physical for this process, {of}{limit} ({cpu_model()})")


def _memory(name: str) -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    return Finding(name, True, f"{memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f} GiB")


def _gpus(name: str) -> Finding:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return Finding(name, None, "none found")
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        names = [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
        driver = pynvml.nvmlSystemGetDriverVersion()
    finally:
        pynvml.nvmlShutdown()
    says = f"{', '.join(names)} (driver {driver})" if names else "none found"
    if names and not nccl.torch_has_cuda():
        return Finding(name, False, f"{says}, but PyTorch here is built for CPUs", f"{SETUP} EXTRA=gpu")
    return Finding(name, True if names else None, says)


def _tpus(name: str) -> Finding:
    """A TPU shows as /dev/accel* (v2 to v4) or as a VFIO group (v5e and later), which others may be too."""
    accel = sorted(path.name for path in Path("/dev").glob("accel*"))
    groups = sorted(path.name for path in Path("/dev/vfio").glob("[0-9]*"))
    if not accel and not groups:
        return Finding(name, None, "none found")
    found = [f"/dev/{file}" for file in accel] + [f"/dev/vfio/{group}" for group in groups]
    if _version("libtpu") is None and _version("libtpu-nightly") is None:
        says = f"{', '.join(found)} may be one, but libtpu is not installed"
        return Finding(name, None, says, TPU_SETUP)
    return Finding(name, True, f"{', '.join(found)}, libtpu {_version('libtpu') or _version('libtpu-nightly')}")


def _slurm(name: str) -> Finding:
    absent = [program for program in ("sinfo", "sbatch", "srun", "scontrol") if shutil.which(program) is None]
    if absent:
        return Finding(name, None, f"{', '.join(absent)} not found", "sudo apt-get install slurm-wlm")
    version = _ask("sinfo", "--version")
    asked = _ask("sinfo", "--noheader", "--format=%P %D×%c cores %a") if version else None
    if asked is None:
        says = f"{version or 'installed'}, but its controller does not answer within {PATIENCE:g} s"
        return Finding(name, False, says, "scontrol ping")
    partitions = "; ".join(" ".join(line.split()) for line in asked.splitlines())
    return Finding(name, True, f"{version}: {partitions or 'no partition'}")


def _compiler(name: str) -> Finding:
    return _program(name, COMPILERS, "Horovod is built with it", COMPILER)


def _browser(name: str) -> Finding:
    return _program(name, BROWSERS, "the tests look at the report in it", "sudo apt-get install chromium")


def _program(name: str, candidates: tuple[str, ...], purpose: str, mend: str) -> Finding:
    """The first of `candidates` that runs."""
    there = [program for program in candidates if shutil.which(program)]
    for program in there:
        if version := _ask(program, "--version"):
            return Finding(name, True, version.splitlines()[0].strip())
    if there:
        return Finding(name, False, f"{', '.join(there)} cannot be run; {purpose}", mend)
    return Finding(name, None, f"not found; {purpose}", mend)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _ask(*command: str) -> str | None:
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


EXAMINERS: dict[str, Callable[[str], Finding]] = {
    "Python": _python,
    "Strategies": _strategies,
    "PyTorch": _pytorch,
    "TensorFlow": _tensorflow,
    "JAX": _jax,
    "Horovod": _horovod,
    "Ray": _ray,
    "seaborn": _seaborn,
    "Cores": _cores,
    "Memory": _memory,
    "NVIDIA GPUs": _gpus,
    "TPUs": _tpus,
    "SLURM": _slurm,
    "C++ compiler": _compiler,
    "Browser": _browser,
}
