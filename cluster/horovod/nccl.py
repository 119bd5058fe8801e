"""Where CUDA and NCCL are, if Horovod can be built with them here.

NCCL comes with PyTorch's own packages, or from the system; the CUDA toolkit (nvcc) from the system.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Nccl:
    """A CUDA toolkit and an NCCL to build against: folders."""

    cuda: Path
    cuda_version: str
    include: Path
    library: Path

    def environment(self, work: Path) -> dict[str, str]:
        """The variables from which Horovod's build finds them; `work` is a folder for a link."""
        # NCCL's package lies beside Horovod's; the system's is found without a path.
        path = "$ORIGIN/../../nvidia/nccl/lib"
        links = work / "nccl"
        links.mkdir()
        (links / "libnccl.so").symlink_to(self.library)  # NCCL's package brings libnccl.so.2 alone
        return {
            "CUDA_HOME": str(self.cuda),
            "CUDAToolkit_ROOT": str(self.cuda),
            "HOROVOD_CUDA_HOME": str(self.cuda),
            "HOROVOD_GPU_OPERATIONS": "NCCL",
            "HOROVOD_NCCL_INCLUDE": str(self.include),
            "HOROVOD_NCCL_LIB": str(links),
            "HOROVOD_NCCL_LINK": "SHARED",
            "LDFLAGS": f"{os.environ.get('LDFLAGS', '')} -Wl,-rpath,{path}".strip(),
        }


def find() -> Nccl | None:
    """CUDA and NCCL where both frameworks were made for CUDA; None where anything of it is missing."""
    if not (torch_has_cuda() and _tensorflow_has_cuda()):
        return None
    cuda, nccl = _cuda(), _nccl()
    return Nccl(cuda, _cuda_version(cuda), *nccl) if cuda and nccl else None


def torch_has_cuda() -> bool:
    """Whether the PyTorch that is installed was built for CUDA; without importing it."""
    folder = _folder("torch")
    return folder is not None and (folder / "lib/libtorch_cuda.so").exists()


def _tensorflow_has_cuda() -> bool:
    folder = _folder("tensorflow")
    try:
        return folder is not None and "'is_cuda_build', True" in (folder / "python/platform/build_info.py").read_text()
    except OSError:
        return False


def _folder(module: str) -> Path | None:
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).parent if spec and spec.origin else None


def _cuda() -> Path | None:
    nvcc = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), nvcc and Path(nvcc).resolve().parents[1]]
    for home in [Path(place) for place in [*homes, "/usr/local/cuda"] if place]:
        if (home / "bin/nvcc").exists() and (home / "include/cuda_runtime.h").exists():
            return home
    return None


def _cuda_version(cuda: Path) -> str:
    said = subprocess.run([cuda / "bin/nvcc", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"release ([\d.]+)", said)
    return found[1] if found else "unknown"


def _nccl() -> tuple[Path, Path] | None:
    """NCCL's folder of headers and its library: the one PyTorch brings, else the system's."""
    packaged = Path(sysconfig.get_path("platlib"), "nvidia/nccl")
    multiarch = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    places = [
        (packaged / "include", packaged / "lib/libnccl.so.2"),
        (Path("/usr/include"), Path("/usr/lib", multiarch, "libnccl.so.2")),
        (Path("/usr/include"), Path("/usr/lib64/libnccl.so.2")),
    ]
    return next(((inc, lib) for inc, lib in places if (inc / "nccl.h").exists() and lib.exists()), None)
