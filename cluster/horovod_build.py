"""Build Horovod for this environment, once: `python -m cluster.horovod_build`.

Horovod's last release (0.28.1, 2023) does not build against current PyTorch and TensorFlow as it is;
three small changes to its released source make it. The wheel is kept in the user's cache, keyed by
what it was built against. Without a C++ compiler the set-up goes on, and `scaling doctor` says why
Horovod's strategies are missing; with CI=true that is an error.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
from importlib import metadata
from pathlib import Path

VERSION = "0.28.1"
SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
PATCH = 1  # part of the cache's key: raise it when the changes below change


class BuildError(RuntimeError):
    """Horovod cannot be built here; the message is one line: why, and what would mend it."""


def why_not() -> str | None:
    """Why Horovod is not installed in this environment, in one line; None if it is."""
    if importlib.util.find_spec("horovod") is not None:
        return None
    try:
        return str(json.loads(_record().read_text(encoding="utf-8"))["reason"])
    except (OSError, ValueError, KeyError):
        return "Horovod is not installed; `make setup` builds it"


def main() -> int:
    """Install Horovod from the cached wheel, building it first where there is none."""
    try:
        tools = _tools()
        key = _key(tools["c++"])
        if _installed() == key:
            return 0
        folder = _cache() / key
        wheel = next(iter(folder.glob("horovod-*.whl")), None) or _build(folder, tools)
        _pip("install", "--no-deps", "--force-reinstall", str(wheel))
    except BuildError as error:
        _write({"key": None, "reason": str(error)})
        print(f"Horovod's strategies will be missing: {error}", file=sys.stderr)
        return 1 if os.environ.get("CI") == "true" else 0
    _write({"key": key, "reason": ""})
    return 0


def patch(source: Path) -> None:
    """Make the unpacked release in `source` build. Raises BuildError if it is not what was expected."""
    # PyTorch's headers need C++17 since 2.1 (Horovod issues 3996 and 4014; mended there, unreleased).
    for file in ("CMakeLists.txt", "horovod/torch/CMakeLists.txt"):
        _replace(source / file, r"set\(CMAKE_CXX_STANDARD 14\)", "set(CMAKE_CXX_STANDARD 17)")
    # The XLA operations are for GPU builds, and their TensorFlow headers have moved.
    _replace(
        source / "horovod/tensorflow/CMakeLists.txt",
        r'list\(APPEND TF_SOURCES "[^"]*/xla_mpi_ops\.cc"\)\n',
        "",
    )


def _replace(path: Path, pattern: str, by: str) -> None:
    text, count = re.subn(pattern, by, path.read_text(encoding="utf-8"))
    if count != 1:
        raise BuildError(f"{path}: {pattern!r} was found {count} times, not once; is this Horovod {VERSION}?")
    path.write_text(text, encoding="utf-8")


def _build(folder: Path, tools: dict[str, str]) -> Path:
    """Build the wheel into `folder` and return its path; moved there whole, so a kill leaves none."""
    work = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        with tarfile.open(_source(work)) as archive:
            archive.extractall(work, filter="data")
        source = work / f"horovod-{VERSION}"
        patch(source)
        log = folder.with_name(f"{folder.name}.log")
        print(f"building Horovod {VERSION} once, about 6 minutes on two cores (log: {log})", flush=True)
        _wheel(source, work / "out", log, tools)
        folder.mkdir(exist_ok=True)
        built = next((work / "out").glob("horovod-*.whl"))
        return built.rename(folder / built.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _wheel(source: Path, out: Path, log: Path, tools: dict[str, str]) -> None:
    jobs = len(os.sched_getaffinity(0))
    environment = os.environ | {
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",  # its bundled Gloo is older than current CMake allows
        "HOROVOD_CMAKE": tools["cmake"],
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_WITHOUT_MPI": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_TENSORFLOW": "1",
        "HOROVOD_WITH_PYTORCH": "1",
        "MAKEFLAGS": f"-j{jobs}",
    }
    if _cuda():
        environment["HOROVOD_GPU_OPERATIONS"] = "NCCL"
    command = _pip_command("wheel", "-v", "--no-build-isolation", "--no-deps", "-w", str(out), str(source))
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert process.stdout is not None
        shown = -10
        for line in process.stdout:
            file.write(line)
            found = re.search(r"\[ *(\d+)%\]", line)
            percent = int(found[1]) if found else shown
            step = 1 if sys.stdout.isatty() else 10
            if percent >= shown + step:
                shown = percent
                _progress(percent, time.monotonic() - began)
        code = process.wait()
    if sys.stdout.isatty():
        print()
    if code:
        raise BuildError(f"the build failed after {time.monotonic() - began:.0f} s; its last lines are in {log}")


def _progress(percent: int, seconds: float) -> None:
    line = f"Horovod: {percent:3d} %, {seconds:.0f} s"
    print(f"\r{line}" if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)


def _source(work: Path) -> Path:
    """The released source archive, from the package index, its sum checked."""
    _pip(
        "download",
        "--no-deps",
        "--no-binary",
        ":all:",
        "--no-build-isolation",
        "-d",
        str(work),
        f"horovod=={VERSION}",
    )
    archive = work / f"horovod-{VERSION}.tar.gz"
    if not archive.is_file() or hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        raise BuildError(f"the source archive of Horovod {VERSION} is not the released one (its SHA-256 differs)")
    return archive


def _tools() -> dict[str, str]:
    """Where the compiler, make and cmake are. Raises BuildError naming what is missing."""
    beside = str(Path(sys.executable).parent)
    cxx = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++") or shutil.which("clang++")
    found = {"c++": cxx, "make": shutil.which("make"), "cmake": shutil.which("cmake", path=beside)}
    mend = {
        "c++": "no C++ compiler was found; `sudo apt-get install g++ make`, then `make setup`",
        "make": "make was not found; `sudo apt-get install make`, then `make setup`",
        "cmake": "cmake is missing in this environment; `pip install cmake`, then `make setup`",
    }
    for tool, path in found.items():
        if path is None:
            raise BuildError(mend[tool])
    for package in ("torch", "tensorflow"):
        if importlib.util.find_spec(package) is None:
            raise BuildError(f"{package} is not installed; `make setup` installs it")
    return {tool: path for tool, path in found.items() if path is not None}


def _key(compiler: str) -> str:
    """What a built wheel depends on, as a folder's name."""
    said = subprocess.run([compiler, "-dumpfullversion", "-dumpversion"], capture_output=True, text=True, check=False)
    frameworks = "-".join(f"{name}{_version(name)}" for name in ("torch", "tensorflow", "numpy"))
    python = f"cp{sys.version_info.major}{sys.version_info.minor}-{platform.machine()}"
    extra = "cuda" if _cuda() else "cpu"
    return f"{VERSION}-{PATCH}-{frameworks}-{python}-{extra}-cxx{said.stdout.strip() or 'unknown'}"


def _version(package: str) -> str:
    for name in (package, f"{package}-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "none"


def _cuda() -> bool:
    """Whether a CUDA toolkit and NCCL's header are here, and PyTorch was built for CUDA."""
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    nccl = [Path("/usr/include/nccl.h"), home / "include/nccl.h"]
    spec = importlib.util.find_spec("torch")
    with_cuda = bool(spec and spec.origin and Path(spec.origin).parent.joinpath("lib/libtorch_cuda.so").exists())
    return with_cuda and (home / "bin/nvcc").exists() and any(path.exists() for path in nccl)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "scaling", "horovod")


def _record() -> Path:
    return Path(sys.prefix, "share", "scaling", "horovod.json")


def _installed() -> str | None:
    """The key of the Horovod that is installed here, None if none of ours is."""
    if importlib.util.find_spec("horovod") is None:
        return None
    try:
        key = json.loads(_record().read_text(encoding="utf-8"))["key"]
    except (OSError, ValueError, KeyError):
        return None
    return key if isinstance(key, str) else None


def _write(content: dict[str, str | None]) -> None:
    _record().parent.mkdir(parents=True, exist_ok=True)
    _record().write_text(json.dumps(content) + "\n", encoding="utf-8")


def _pip_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]


def _pip(*arguments: str) -> None:
    done = subprocess.run(_pip_command("--quiet", *arguments), capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise BuildError(f"pip {arguments[0]} failed: {lines[-1]}")


if __name__ == "__main__":
    sys.exit(main())
