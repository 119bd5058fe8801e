"""Building Horovod: what is changed in its release, what is kept, and what is said when it fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
from importlib import metadata
from pathlib import Path

import psutil
import pytest

from cluster.horovod import build as horovod_build
from cluster.horovod import installed, nccl, source
from cluster.setup import software
from tests.running import until

ROOT = Path(__file__).parents[3]
BUILD = ["-m", "cluster.horovod.build"]
CHANGED = (
    "CMakeLists.txt",
    "horovod/torch/CMakeLists.txt",
    "horovod/tensorflow/CMakeLists.txt",
    "cmake/Modules/FindPytorch.cmake",
    "horovod/tensorflow/mpi_ops.cc",
)


@pytest.fixture(scope="module")
def archive() -> Path:
    try:
        return source.archive(horovod_build._cache())
    except source.BuildError as error:
        pytest.skip(f"Horovod's release cannot be had: {error}")


@pytest.fixture
def release(archive: Path, tmp_path: Path) -> Path:
    """The files of the real release that are changed."""
    with tarfile.open(archive) as packed:
        for name in CHANGED:
            packed.extract(f"horovod-{source.VERSION}/{name}", tmp_path, filter="data")
    return tmp_path / f"horovod-{source.VERSION}"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The Python of another environment that sees this one's packages, so that only its records are its own."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "v"], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    borrowed = tmp_path / "v/lib" / version / "site-packages/borrowed.pth"
    borrowed.write_text(sysconfig.get_path("purelib") + "\n")
    return tmp_path / "v/bin/python"


def build(python: Path, cache: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache), "CI": ""} | variables
    command = [python, *BUILD, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def compiler(folder: Path, script: str) -> str:
    path = folder / "g++-of-a-test"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def keep(archive: Path, cache: Path) -> Path:
    folder = cache / "scaling/horovod"
    folder.mkdir(parents=True)
    shutil.copy(archive, folder)
    return folder


@pytest.mark.parametrize("cpu_only", [True, False])
def test_the_changes_to_the_release_are_those_that_are_meant(cpu_only: bool, release: Path) -> None:
    before = {name: (release / name).read_text().splitlines() for name in CHANGED}
    source.patch(release, cpu_only=cpu_only)
    gone, new = {}, {}
    for name in CHANGED:
        after = (release / name).read_text().splitlines()
        gone[name] = [line.strip() for line in before[name] if line not in after]
        new[name] = [line.strip() for line in after if line not in before[name]]
    top, torch, tensorflow, finder, operations = CHANGED
    assert (gone[top][0], new[top][0]) == ("set(CMAKE_CXX_STANDARD 14)", "set(CMAKE_CXX_STANDARD 17)")
    assert '"-O2 -g" "-O3" CMAKE_CXX_FLAGS_RELWITHDEBINFO' in new[top][1]
    assert (gone[torch], new[torch]) == (["set(CMAKE_CXX_STANDARD 14)"], ["set(CMAKE_CXX_STANDARD 17)"])
    assert re.fullmatch(r"list\(APPEND TF_SOURCES .*/xla_mpi_ops.cc\"\)", "".join(gone[tensorflow]))
    assert gone[operations] == []
    if cpu_only:
        assert "True if (False and (CUDA_HOME" in new[finder][0]
    else:
        assert "GpuStreamHandle AsGpuStreamValue(Stream* stream) {" in new[operations]
    counts = {name: len(lines) for name, lines in new.items()}
    assert counts == {top: 2, torch: 1, tensorflow: 0, finder: int(cpu_only), operations: 0 if cpu_only else 4}


def test_a_release_that_is_not_the_known_one_is_refused(release: Path) -> None:
    source.patch(release, cpu_only=False)
    with pytest.raises(source.BuildError, match=r"CMakeLists.txt: .* was found 0 times, not once"):
        source.patch(release, cpu_only=False)


def test_an_archive_that_is_not_the_released_one_is_not_used(archive: Path, tmp_path: Path) -> None:
    """As a download that was cut off leaves it; what is fetched instead is checked too."""
    cut = tmp_path / archive.name
    cut.write_bytes(archive.read_bytes()[:1000])
    try:
        assert source.archive(tmp_path).read_bytes() == archive.read_bytes()
    except source.BuildError as error:  # no package index can be reached
        assert "pip download failed" in str(error)
        assert not cut.exists()


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_without_a_compiler_set_up_goes_on_and_says_why_but_ci_fails(ci: str, code: int, tmp_path: Path) -> None:
    """In an environment of its own without any package, so that Horovod is not there."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "v"], check=True)
    python = tmp_path / "v/bin/python"
    done = build(python, tmp_path, PATH=str(tmp_path), CI=ci)
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert "no C++ compiler was found; `sudo apt-get install g++ make`" in done.stderr
    ask = "from cluster.horovod.installed import why_not; print(why_not())"
    environment = {"PYTHONPATH": str(ROOT)}
    said = subprocess.run([python, "-c", ask], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.startswith("no C++ compiler was found")


def test_a_build_that_fails_says_why_and_is_not_tried_again_until_asked(
    archive: Path, other: Path, tmp_path: Path
) -> None:
    cache = keep(archive, tmp_path / "c")
    broken = compiler(tmp_path, 'echo "$0: internal error: out of order" >&2; exit 1')

    first = build(other, tmp_path / "c", CXX=broken)
    assert first.returncode == 0, first.stderr
    assert "is not able to compile a simple test program" in first.stderr
    assert first.stderr.count("\n") == 1
    log = Path(re.search(r"all it said is in (\S+);", first.stderr)[1])  # type: ignore[index]
    assert "internal error: out of order" in log.read_text()
    assert not list(cache.glob("**/*.whl"))
    assert not list(cache.glob("build-*"))

    log.unlink()
    assert build(other, tmp_path / "c", CXX=broken).stderr == first.stderr
    assert not log.exists()
    assert "is not able to compile" in build(other, tmp_path / "c", "--again", CXX=broken).stderr
    assert log.exists()


def test_a_build_that_is_stopped_leaves_no_compiler_running(archive: Path, other: Path, tmp_path: Path) -> None:
    cache = keep(archive, tmp_path / "c")
    slow = compiler(tmp_path, 'case "$*" in *-dump*) echo 1.0;; *) sleep 100;; esac')
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "c"), "CXX": slow}
    process = subprocess.Popen([other, *BUILD], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def compiling() -> list[psutil.Process]:
        return [p for p in psutil.process_iter(["cmdline"]) if slow in (p.info["cmdline"] or [])]

    until(compiling)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[1].decode().strip() == "stopped; Horovod is not built"
    assert process.returncode == 130
    until(lambda: not compiling(), 5.0)
    assert not list(cache.glob("build-*"))


def test_what_killed_builds_left_is_removed_and_a_living_one_is_let_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    mine = horovod_build._workshop()
    dead = mine.with_name(mine.name.replace(str(os.getpid()), str(ended.pid)))
    alive = mine.with_name(mine.name.replace(str(os.getpid()), str(os.getppid())))
    dead.mkdir()
    alive.mkdir()
    mine.rmdir()
    assert horovod_build._workshop() == mine
    assert alive.exists()
    assert not dead.exists()


def test_a_path_that_cmake_would_misread_is_not_built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c++"))
    work = horovod_build._workshop()
    work.rmdir()
    assert "+" not in str(work)


def test_the_first_error_is_found_in_what_a_build_prints() -> None:
    cmake = (
        "  CMake Error at x.cmake:290 (message):\n    Could NOT find CUDAToolkit\n  -- Incomplete, errors occurred!\n"
    )
    gcc = "  x/y.cc:12:9: warning: old\n  x/y.h:3:10: fatal error: a.h: No such file\n  make: *** [x] Error 1\n"
    assert horovod_build._first_error(cmake) == "Could NOT find CUDAToolkit"
    assert horovod_build._first_error(gcc) == "x/y.h:3:10: fatal error: a.h: No such file"
    assert horovod_build._first_error("no space left\n\n") == "no space left"


def test_cuda_is_taken_from_where_its_headers_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program called nvcc alone, as some machines have on their PATH, is no toolkit."""
    for name in ("wrapper", "toolkit"):
        (tmp_path / name / "bin").mkdir(parents=True)
        nvcc = tmp_path / name / "bin/nvcc"
        nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.88'\n")
        nvcc.chmod(0o755)
    (tmp_path / "toolkit/include").mkdir()
    (tmp_path / "toolkit/include/cuda_runtime.h").touch()
    monkeypatch.setenv("PATH", str(tmp_path / "wrapper/bin"), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_PATH", str(tmp_path / "toolkit"))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert nccl._cuda() == tmp_path / "toolkit"
    assert nccl._cuda_version(tmp_path / "toolkit") == "13.0"


@pytest.mark.horovod
def test_the_installed_horovod_is_ours_and_its_record_is_true() -> None:
    """What `horovodrun --check-build` says of the libraries is held in test_doctor.py."""
    assert metadata.version("horovod") == source.VERSION
    libraries = software.built_by_libraries()
    recorded = installed.built_with()
    assert recorded == {part: libraries[part] for part in ("TensorFlow", "PyTorch", "Gloo", "NCCL")}
    assert recorded["TensorFlow"]
    assert recorded["PyTorch"]
    assert recorded["Gloo"]


@pytest.mark.horovod
def test_another_environment_takes_the_wheel_from_the_cache(other: Path, tmp_path: Path) -> None:
    kept = horovod_build._cache() / horovod_build._key(horovod_build._tools())
    if not list(kept.glob("*.whl")):
        pytest.skip("no wheel is cached for this environment")
    began = time.monotonic()
    done = build(other, horovod_build._cache().parents[1])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - began < 60
    record = json.loads((tmp_path / "v/share/scaling/horovod.json").read_text())
    assert record["built_with"]["Gloo"]
    assert list((tmp_path / "v/lib").glob("python*/site-packages/horovod/torch/mpi_lib_v2*.so"))


@pytest.mark.horovod
def test_a_horovod_built_against_another_torch_is_not_used(tmp_path: Path) -> None:
    """It would fail when it is loaded, or worse, later."""
    (tmp_path / "torch-2.99.0.dist-info").mkdir()
    (tmp_path / "torch-2.99.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.99.0\n")
    ask = "from cluster.horovod.installed import why_not; print(why_not())"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    said = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True)
    assert re.match(r"Horovod was built against torch [\d.]+, and 2\.99\.0 is installed; `make setup`", said.stdout)
