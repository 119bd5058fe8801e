"""Ranks without a framework: the class in every strategy's file is replaced by one that only waits for the others.

For tests of launchers and of the driver: what starts, dies, hangs and is told of it is real, and is there in a tenth of
the time. Between its sums a rank waits for all others, as a rank does whose gradients are averaged.
"""

import importlib.machinery
import sys
from types import ModuleType

ROOM = "jobs.strategies."


class Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        if hasattr(module, "STRATEGY"):
            from bare_strategy import Bare

            module.STRATEGY = Bare  # type: ignore[attr-defined]


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name.startswith(ROOM) else None
        if spec is not None and type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


def instead_of_frameworks() -> None:
    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]
