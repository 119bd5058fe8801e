"""A package of somebody else's, as it lies beside this one once it is installed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def install(folder: Path, modules: Mapping[str, str], entry_points: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Put modules (name ─▶ source) and entry points (group ─▶ name ─▶ module) into `folder`; returns the environment
    of processes that find them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    home = folder / "others-1.0.dist-info"
    home.mkdir()
    (home / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n", encoding="utf-8")
    lines = [
        line
        for group, given in entry_points.items()
        for line in (f"[{group}]", *(f"{n} = {m}" for n, m in given.items()))
    ]
    (home / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    there = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), *there]))}
