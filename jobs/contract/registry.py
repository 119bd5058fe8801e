"""What is found by a name: a strategy, a workload, a launcher. Each is one module, imported when it is asked for.

A package that is installed beside this one adds its own by an entry point, without a change here:

    [project.entry-points."scaling.strategies"]
    mine = "my_package.my_strategy"          # the module that has INFO and STRATEGY
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from types import ModuleType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class RegistryError(ValueError):
    """What another package gives under a name cannot be used; the message is one line."""


class Registry(Mapping[str, T], Generic[T]):
    """Name ─▶ what its module says of itself, in the constant of that name at its top.

    Names of this project come first and cannot be taken by others; only for other names are the installed
    packages looked through, which takes a while.
    """

    def __init__(self, group: str, constant: str, ours: Mapping[str, str]) -> None:
        self._group, self._constant, self._ours = group, constant, ours

    @property
    def ours(self) -> dict[str, T]:
        """Those of this project: what is asked of all of them must not wait for, nor fail with, another package."""
        return {name: self[name] for name in self._ours}

    @cached_property
    def _others(self) -> dict[str, str]:
        from importlib import metadata  # which ranks of this project's own need not wait for

        found = metadata.entry_points(group=self._group)
        return {entry.name: entry.value for entry in found if entry.name not in self._ours}

    def module(self, name: str) -> ModuleType:
        """The module of that name. Raises KeyError, and RegistryError for another package's that is broken."""
        if name in self._ours:
            return importlib.import_module(self._ours[name])
        try:
            return importlib.import_module(self._others[name])
        except Exception as error:  # whatever is wrong in it is not ours
            raise RegistryError(f"{name}: its module of {self._group} cannot be imported: {error}") from None

    def constant(self, name: str, constant: str) -> Any:
        """Another constant of that module than the one which stands for it. Raises as `module` does."""
        module = self.module(name)
        try:
            return getattr(module, constant)
        except AttributeError:
            raise RegistryError(
                f"{name}: {module.__name__} has no {constant}, as a module of {self._group} must"
            ) from None

    def __getitem__(self, name: str) -> T:
        found: T = self.constant(name, self._constant)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._ours or name in self._others

    def __iter__(self) -> Iterator[str]:
        yield from self._ours
        yield from self._others

    def __len__(self) -> int:
        return len(self._ours) + len(self._others)
