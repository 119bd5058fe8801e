"""Ranks without a framework: every strategy's file is replaced by one that only waits for the other ranks.

For tests of launchers and of the driver: what starts, dies, hangs and is told of it is real, and is there in a tenth of
the time. Between its sums a rank waits for all others, as a rank does whose gradients are averaged.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from pathlib import Path

PYTORCH = ("torch", "torch_ddp", "torch_horovod")
TENSORFLOW = ("tf", "tf_mirrored", "tf_multiworker", "tf_horovod")
REPLACED = {f"jobs.strategies.{name}" for name in (*PYTORCH, *TENSORFLOW, "jax", "jax_sharded")}


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name in REPLACED:
            return importlib.util.spec_from_file_location(name, Path(__file__).with_name("bare_strategy.py"))
        return None


def instead_of_frameworks() -> None:
    sys.meta_path.insert(0, Finder())
