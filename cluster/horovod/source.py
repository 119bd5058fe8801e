"""Horovod's release: fetched once, its sum checked, and changed so that it builds today.

Its last release (0.28.1, 2023) does not build against current PyTorch and TensorFlow as it is.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tarfile
from pathlib import Path

VERSION = "0.28.1"
SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
RELEASE = f"{VERSION}.2"  # with the number of our changes to it: raise that when they change
STREAM = """
namespace stream_executor {
namespace gpu {
GpuStreamHandle AsGpuStreamValue(Stream* stream) {
  return static_cast<GpuStreamHandle>(stream->platform_specific_handle().stream);
}
}  // namespace gpu
}  // namespace stream_executor
#endif // HAVE_GPU

// Undef LOG macro from TensorFlow"""


class BuildError(RuntimeError):
    """Horovod cannot be built here; the message is one line: why, and what would mend it."""


def patch(source: Path, *, cpu_only: bool) -> None:
    """Make the unpacked release in `source` build. Raises BuildError if it is not what was expected."""
    # PyTorch's headers need C++17 since 2.1 (Horovod issues 3996 and 4014; mended there, unreleased).
    for file in ("CMakeLists.txt", "horovod/torch/CMakeLists.txt"):
        _replace(source / file, r"set\(CMAKE_CXX_STANDARD 14\)", "set(CMAKE_CXX_STANDARD 17)")
    # XLA runs Horovod's operations on GPUs only, and the TensorFlow headers they include have moved.
    tensorflow = source / "horovod/tensorflow/CMakeLists.txt"
    _replace(tensorflow, r'list\(APPEND TF_SOURCES "[^"]*/xla_mpi_ops\.cc"\)\n', "")
    # No debug symbols: they are nine tenths of the wheel, and take compiling time.
    _replace(
        source / "CMakeLists.txt",
        r'REPLACE "-O2" "-O3" CMAKE_CXX_FLAGS_RELWITHDEBINFO',
        'REPLACE "-O2 -g" "-O3" CMAKE_CXX_FLAGS_RELWITHDEBINFO',
    )
    if cpu_only:
        # A PyTorch made for CUDA beside a CUDA toolkit would otherwise turn its GPU code on.
        finder = source / "cmake/Modules/FindPytorch.cmake"
        _replace(finder, r"\(torch\.version\.cuda is not None\)", "False")
    else:
        # TensorFlow does not give away this function any more; the stream knows what it returned.
        operations = source / "horovod/tensorflow/mpi_ops.cc"
        _replace(operations, r"#endif // HAVE_GPU\n\n// Undef LOG macro from TensorFlow", STREAM)


def _replace(path: Path, pattern: str, by: str) -> None:
    text, count = re.subn(pattern, lambda _: by, path.read_text(encoding="utf-8"))
    if count != 1:
        raise BuildError(f"{path}: {pattern!r} was found {count} times, not once; is this Horovod {VERSION}?")
    path.write_text(text, encoding="utf-8")


def unpack(cache: Path, folder: Path) -> Path:
    """Unpack the release into `folder`; its archive comes from `cache` or the package index."""
    with tarfile.open(archive(cache)) as packed:
        packed.extractall(folder, filter="data")
    return folder / f"horovod-{VERSION}"


def archive(cache: Path) -> Path:
    """The released source archive, from the cache or the package index, its sum checked."""
    path = cache / f"horovod-{VERSION}.tar.gz"
    if not _is_released(path):
        path.unlink(missing_ok=True)
        pip(
            *("download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"),
            *("-d", str(cache), f"horovod=={VERSION}"),
        )
    if not _is_released(path):
        raise BuildError(f"{path} is not the released Horovod {VERSION}: its SHA-256 differs")
    return path


def _is_released(archive: Path) -> bool:
    return archive.is_file() and hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256


def pip_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]


def pip(*arguments: str) -> None:
    done = subprocess.run(pip_command("--quiet", *arguments), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"pip {arguments[0]} failed: {last_line(done.stderr or done.stdout)}")


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1].strip()
