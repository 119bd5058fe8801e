"""Packages as pip leaves them, in folders that a test puts on PYTHONPATH."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

REAL = str(metadata.distribution("nvidia-ml-py").locate_file("pynvml.py"))
# pynvml 11.4.1, as far as it differs: text is bytes, and the names of later drivers are not there.
OLD = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("real_pynvml", {REAL!r})
real = importlib.util.module_from_spec(spec)
sys.modules["real_pynvml"] = real
spec.loader.exec_module(real)
LATER = ("NVML_ERROR_ARGUMENT_VERSION_MISMATCH", "NVML_ERROR_GPU_NOT_FOUND", "NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES",
         "NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES", "nvmlDeviceGetCurrentClocksEventReasons")
globals().update((k, v) for k, v in vars(real).items() if k not in LATER and not k.startswith("__"))
def _bytes(function):
    return lambda *arguments: function(*arguments).encode()
for name in ("nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlSystemGetDriverVersion"):
    globals()[name] = _bytes(getattr(real, name))
def nvmlDeviceGetHandleByUUID(uuid):
    assert isinstance(uuid, bytes), "bytes or integer address expected instead of str instance"
    return real.nvmlDeviceGetHandleByUUID(uuid)
"""


def install(site: Path, name: str, version: str, files: dict[str, str], asks: tuple[str, ...] = ()) -> Path:
    """A package as pip leaves it in the folder `site`."""
    for file, content in files.items():
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(content)
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {a}" for a in asks)]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "RECORD").write_text("".join(f"{file},sha256=x,1\n" for file in [*files, f"{info.name}/METADATA"]))
    return site


def old_pynvml(site: Path) -> None:
    install(site, "pynvml", "11.4.1", {"pynvml/__init__.py": OLD, "pynvml/nvml.py": ""})
