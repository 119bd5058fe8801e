"""Build Horovod for this environment, once: `python -m cluster.horovod.build`.

Horovod's last release (0.28.1, 2023) does not build against current PyTorch and TensorFlow as it is;
a few small changes to its released source make it. The wheel is kept in the user's cache, keyed by
what it was built against. Without a C++ compiler the set-up goes on, and `scaling doctor` says why
Horovod's strategies are missing; with CI=true that is an error.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.horovod import nccl
from cluster.horovod.installed import AGAIN, FRAMEWORKS, package, read_record, why_not, write_record
from cluster.horovod.nccl import Nccl
from cluster.horovod.source import RELEASE, VERSION, BuildError, last_line, patch, pip, pip_command, unpack
from jobs.machine.cores import allowed_cores

BYTES_PER_JOB = 2 << 30  # what one compiler takes for TensorFlow's headers

# Said by Horovod itself, in a process of its own: proof that what was built also loads.
ASK = """
import json, horovod.tensorflow as t, horovod.torch as p
both = lambda name: bool(getattr(t, name)()) and bool(getattr(p, name)())
print(json.dumps({"TensorFlow": True, "PyTorch": True, "Gloo": both("gloo_built"), "NCCL": both("nccl_built")}))
"""


@dataclass(frozen=True)
class Tools:
    """What builds: paths of the programs, and where CUDA and NCCL are (None: for CPUs only)."""

    compiler: str
    cmake: str
    nccl: Nccl | None


def main(arguments: list[str]) -> int:
    """Install Horovod from the cached wheel, building it first where there is none.

    A build that failed is tried again only when what it builds against has changed, or with `--again`:
    it takes minutes, and `make study` comes by here each time.
    """
    in_ci = os.environ.get("CI") == "true"
    key = None
    try:
        record = {} if "--again" in arguments else read_record()
        if record.get("release") == RELEASE and why_not() is None:
            return 0
        tools = _tools()
        key = _key(tools)
        if record.get("key") == key and record.get("reason") and not in_ci:
            raise BuildError(str(record["reason"]))
        built_with = _install(tools)
    except (BuildError, OSError, tarfile.TarError) as error:
        write_record({"key": key, "reason": str(error)})
        print(f"Horovod's strategies will be missing: {error}", file=sys.stderr)
        return 1 if in_ci else 0
    write_record({"key": key, "release": RELEASE, "built_with": built_with})
    return 0


def _install(tools: Tools) -> dict[str, bool]:
    """Install a wheel for `tools`, and return what Horovod then says it was built with."""
    try:
        wheel = _wheel(tools)
    except BuildError as error:
        if tools.nccl is None:
            raise
        print(f"Horovod with NCCL: {error}; now for CPUs only", file=sys.stderr)
        wheel = _wheel(Tools(tools.compiler, tools.cmake, nccl=None))
    pip("install", "--no-deps", "--force-reinstall", str(wheel))
    asked = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=False)
    if asked.returncode:
        wheel.unlink(missing_ok=True)
        pip("uninstall", "--yes", "horovod")
        raise BuildError(f"it was built but does not load ({last_line(asked.stderr)}); {AGAIN}")
    said: dict[str, bool] = json.loads(asked.stdout.splitlines()[-1])
    return said


def _wheel(tools: Tools) -> Path:
    """The wheel for this environment: from the cache, else built and moved there whole."""
    folder = _cache() / _key(tools)
    if cached := next(iter(folder.glob("horovod-*.whl")), None):
        return cached
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "build.log"
    work = _workshop()
    try:
        source = unpack(_cache(), work)
        patch(source, cpu_only=tools.nccl is None)
        kind = "for CPUs" if tools.nccl is None else "with NCCL"
        print(f"building Horovod {VERSION} {kind}, once: some 5 minutes on two cores (log: {log})", flush=True)
        _compile(source, work / "out", log, tools)
        built = next((work / "out").glob("horovod-*.whl"))
        shutil.copyfile(built, folder / "part")
        return (folder / "part").rename(folder / built.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _workshop() -> Path:
    """An empty folder to build in, in the cache; what killed builds have left there is removed."""
    # CMake takes the path for a regular expression, so it must be free of the signs of one.
    here = _cache() if re.fullmatch(r"[\w./-]+", str(_cache())) else Path(tempfile.gettempdir())
    prefix = f"build-{re.sub(r'[^a-zA-Z0-9]', '', platform.node())}-"
    for left in here.glob(f"{prefix}*"):
        owner = left.name.removeprefix(prefix)
        if owner.isdigit() and not Path("/proc", owner).exists():
            shutil.rmtree(left, ignore_errors=True)
    work = here / f"{prefix}{os.getpid()}"
    work.mkdir(parents=True)
    return work


def _compile(source: Path, out: Path, log: Path, tools: Tools) -> None:
    """Run the build, its output into `log`, showing how far it has come."""
    environment = os.environ | {
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",  # its bundled Gloo is older than current CMake allows
        "CXX": tools.compiler,
        "HOROVOD_CMAKE": tools.cmake,
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_WITHOUT_MPI": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_TENSORFLOW": "1",
        "HOROVOD_WITH_PYTORCH": "1",
        "MAKEFLAGS": f"-j{_jobs()}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if tools.nccl is not None:
        environment |= tools.nccl.environment(source.parent)
    command = pip_command("wheel", "-v", "--no-build-isolation", "--no-deps", "-w", str(out), str(source))
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            code = _watch(process, log, began)
        except BaseException:
            _end(process.pid)
            process.wait()
            raise
    if code:
        took = f"the build failed after {time.monotonic() - began:.0f} s"
        what = _first_error(log.read_text(errors="replace"))
        raise BuildError(f"{took} ({what}); all it said is in {log}; {AGAIN}")


def _end(pid: int) -> None:
    """Kill a process and all that it has started: make, and its compilers."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [*root.children(recursive=True), root]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _first_error(text: str) -> str:
    """The first line by which CMake, a compiler or make said what is wrong."""
    cmake = re.search(r"CMake Error at .*\n\s*(?:The C\+\+ compiler\s+\S+\s+)?(\S.*)", text)
    compiler = re.search(r"^.*(?::\d+: (?:fatal )?error: |\*\*\* ).*$", text, re.MULTILINE)
    found = [match for match in (cmake, compiler) if match]
    if not found:
        return last_line(text)
    first = min(found, key=lambda match: match.start())
    return (first[1] if first is cmake else first[0]).strip()


def _watch(process: subprocess.Popen[bytes], log: Path, began: float) -> int:
    """Wait for the build: on a terminal one line that changes each second, else a line each 10 percent."""
    terminal = sys.stdout.isatty()
    shown = -10
    while True:
        try:
            code = process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            code = None
        percents = re.findall(r"^ *\[ *(\d+)%\]", log.read_text(errors="replace"), re.MULTILINE)
        percent = 100 if code == 0 else int(percents[-1]) if percents else 0
        line = f"Horovod: {percent:3d} %, {time.monotonic() - began:.0f} s"
        if terminal:
            print(f"\r{line}", end="" if code is None else "\n", flush=True)
        elif percent >= shown + 10 or code == 0:
            shown = percent
            print(line, flush=True)
        if code is not None:
            return code


def _tools() -> Tools:
    """The programs that build. Raises BuildError naming what is missing."""
    beside = str(Path(sys.executable).parent)
    wanted = (os.environ.get("CXX", "c++"), "g++", "clang++")
    compiler = next((path for name in wanted if (path := shutil.which(name))), None)
    if compiler is None:
        raise BuildError("no C++ compiler was found; `sudo apt-get install g++ make`, then `make setup`")
    if shutil.which("make") is None:
        raise BuildError("make was not found; `sudo apt-get install make`, then `make setup`")
    cmake = shutil.which("cmake", path=beside) or shutil.which("cmake")
    if cmake is None:
        raise BuildError("cmake is missing in this environment; `pip install cmake`, then `make setup`")
    for module in FRAMEWORKS:
        if importlib.util.find_spec(module) is None:
            raise BuildError(f"{module} is not installed; `make setup` installs it")
    return Tools(compiler, cmake, nccl.find())


def _jobs() -> int:
    """As many compilers at once as there are cores, and memory for."""
    import psutil

    return max(1, min(len(allowed_cores()), psutil.virtual_memory().available // BYTES_PER_JOB))


def _key(tools: Tools) -> str:
    """What a built wheel depends on, as a folder's name."""
    command = [tools.compiler, "-dumpfullversion", "-dumpversion"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    frameworks = "-".join("".join(package(module)) for module in FRAMEWORKS)
    python = f"cp{sys.version_info.major}{sys.version_info.minor}-{platform.system().lower()}-{platform.machine()}"
    kind = "cpu" if tools.nccl is None else f"nccl-cuda{tools.nccl.cuda_version}"
    compiler = f"{Path(tools.compiler).resolve().name}-{said or 'unknown'}"
    return f"{RELEASE}-{frameworks}-{python}-{kind}-{compiler}"


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "scaling", "horovod")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the compilers are ended with it
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nstopped; Horovod is not built", file=sys.stderr)
        sys.exit(130)
