"""What the Horovod of this environment can do, or why there is none; for launchers and the doctor, who build
nothing."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib import metadata
from pathlib import Path

FRAMEWORKS = {"torch": ("torch",), "tensorflow": ("tensorflow", "tensorflow-cpu")}  # module ─▶ its packages
AGAIN = "`make horovod` tries again"


def why_not() -> str | None:
    """Why Horovod cannot be used in this environment, in one line; None if it can. Imports no framework."""
    spec = importlib.util.find_spec("horovod")
    if spec is None or not spec.submodule_search_locations:
        reason = read_record().get("reason")
        return str(reason) if reason else "Horovod is not installed here; `make setup` builds it"
    try:
        text = Path(spec.submodule_search_locations[0], "metadata.json").read_text(encoding="utf-8")
        built = json.loads(text)
    except (OSError, ValueError):
        return "Horovod was installed without its native libraries; `make setup` builds it"
    for key, module in (("pytorch", "torch"), ("tensorflow", "tensorflow")):
        then, now = str(built.get(key, "none")).split("+")[0], package(module)[1].split("+")[0]
        if now not in ("none", then):
            return f"Horovod was built against {module} {then}, and {now} is installed; `make setup` builds it again"
    return None


def built_with() -> dict[str, bool]:
    """What the installed Horovod said of itself when it was installed here; empty if it was not asked."""
    said = read_record().get("built_with")
    return said if isinstance(said, dict) else {}


def why_not_on_gpus() -> str | None:
    """Why the installed Horovod cannot sum what is on GPUs, in one line; None if it can."""
    if built_with().get("NCCL"):
        return None
    return "Horovod was built here without NCCL; with nvcc and NCCL in the system, `make horovod` adds it"


def package(module: str) -> tuple[str, str]:
    """The package that provides a framework's module, and its version; "none" if none is installed."""
    for package in FRAMEWORKS[module]:
        try:
            return package, metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return module, "none"


def _record() -> Path:
    return Path(sys.prefix, "share", "scaling", "horovod.json")


def read_record() -> dict[str, object]:
    try:
        content = json.loads(_record().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_record(content: dict[str, object]) -> None:
    _record().parent.mkdir(parents=True, exist_ok=True)
    _record().write_text(json.dumps(content) + "\n", encoding="utf-8")
