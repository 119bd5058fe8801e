"""What `import NAME` means here: one package's files, the right one's, in a version that the others can use.

    python -c "from cluster.setup.names import wrong; print(*wrong(), sep='\n')"

Two packages that bring the same files overwrite each other, and a folder that happens to be called so stands before
both. Their own lists of files are read, some tenth of a second; nothing is imported. It is asked as for a rank, which
does not look into the working directory.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

from cluster.setup.finding import Finding

PROJECT = Path(__file__).resolve().parents[2]
OWN = ("jobs", "cluster", "analysis", "scaling")
# What is imported ─▶ the packages that may bring it, and their variants: tensorflow-cpu is one of tensorflow.
PACKAGES: dict[str, tuple[str, ...]] = {
    "torch": ("torch",),
    "tensorflow": ("tensorflow", "tf-nightly", "intel-tensorflow"),
    "keras": ("keras",),
    "jax": ("jax",),
    "jaxlib": ("jaxlib",),
    "optax": ("optax",),
    "horovod": ("horovod",),
    "ray": ("ray",),
    "pynvml": ("nvidia-ml-py",),
    "onnxruntime": ("onnxruntime", "ort-nightly"),
    "numpy": ("numpy",),
    "psutil": ("psutil",),
    "PIL": ("pillow",),
    **dict.fromkeys(OWN, ("scaling",)),
}
ALWAYS = ("numpy", "psutil", "pynvml", *OWN)  # of every rank


@dataclass(frozen=True)
class Wrong:
    """A name that means something else than it should, in one line, and what cures it."""

    says: str
    cure: str

    def __str__(self) -> str:
        return f"{self.says}; {self.cure}"


@dataclass(frozen=True)
class Package:
    """An installed package: its name as pip has it, its version, the folder it is in, and what it asks for. The files
    of an `editable` one are elsewhere."""

    name: str
    version: str
    home: Path
    asks: tuple[str, ...]
    editable: bool

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def packages(name: str) -> Finding:
    """For the doctor."""
    found = wrong()
    if not found:
        return Finding(name, True, "what is imported is of one package each, the right one")
    return Finding(name, False, "; ".join(each.says for each in found), "; ".join(each.cure for each in found))


def wrong(names: Iterable[str] = PACKAGES) -> list[Wrong]:
    """What is wrong with `names`, which are looked for as a rank does. Those that are not there at all are not."""
    path = tuple(_path())
    state = tuple(os.stat(entry).st_mtime_ns for entry in path if os.path.isdir(entry))
    found = []
    for name in dict.fromkeys(names):
        owners = _owners(path, state).get(name, ())
        found += [_own(name, owners, path) if name in OWN else _other(name, owners, path)]
        found += _demands(owners, path, state)
    return list(dict.fromkeys(filter(None, found)))


def _other(name: str, owners: Sequence[Package], path: Sequence[str]) -> Wrong | None:
    """What is wrong with a name of other packages."""
    right = [p for p in owners if _is(p, name)]
    others = [p for p in owners if p not in right]
    place = _place(name, path)
    if place is None or name not in PACKAGES:
        return None
    if len(right) > 1:
        both = " ".join(p.name for p in right)
        return Wrong(
            f"`import {name}` is of {' and of '.join(map(str, right))}, which overwrite each other",
            f"`pip uninstall -y {both}`, then install one of them",
        )
    if others:
        said = " and of ".join(map(str, others))
        instead = f"not of {right[0] if right else PACKAGES[name][0]}"
        wanted = f"{right[0].name}=={right[0].version}" if right else PACKAGES[name][0]
        return Wrong(
            f"`import {name}` is of {said}, {instead}",
            f"`pip uninstall -y {' '.join(p.name for p in others)} && "
            f"pip install --force-reinstall --no-deps {wanted}`",
        )
    if right and not right[0].editable and not any(_same(right[0].home / file, place) for file in _files(name)):
        return Wrong(f"`import {name}` finds {place}, before that of {right[0]} in {right[0].home}", _away(place))
    if not owners:
        known = Path(sys.prefix) in place.parents
        cure = f"`pip install --force-reinstall --no-deps {PACKAGES[name][0]}`" if known else _away(place)
        return Wrong(f"`import {name}` finds {place}, which is of no installed package, so of no known version", cure)
    return None


def _own(name: str, owners: Sequence[Package], path: Sequence[str]) -> Wrong | None:
    """What is wrong with a name of this project's."""
    others = [p for p in owners if not _is(p, name)]
    place = _place(name, path)
    found_first = place is not None and not _same(_folder(name, place).parent, PROJECT)
    overwritten = [p for p in others if _same(p.home, PROJECT)]
    if overwritten or (found_first and others):
        other = (overwritten or others)[0]
        return Wrong(
            f"`import {name}` is of {other} too, and this project's ranks may find that",
            f"`pip uninstall -y {other.name}`, or install this project in an environment of its own",
        )
    if found_first and place is not None:
        return Wrong(f"`import {name}` finds {place}, before this project's", _away(place))
    return None


@cache
def _demands(owners: Sequence[Package], path: Sequence[str], state: object) -> list[Wrong]:
    """What the packages ask of others, which are there in a version that they cannot use."""
    from packaging.requirements import InvalidRequirement, Requirement

    found = []
    for package in owners:
        for line in package.asks:
            try:
                asked = Requirement(line)
                if asked.marker and not asked.marker.evaluate({"extra": ""}):
                    continue
                version = metadata.version(asked.name)
                fits = asked.specifier.contains(version, prereleases=True)
            except (InvalidRequirement, metadata.PackageNotFoundError, ValueError):
                continue
            if not fits:
                says = f"{package} cannot use {asked.name} {version}, which is installed"
                found.append(Wrong(says, f"`pip install '{asked.name}{asked.specifier}'`"))
    return found


def _path() -> list[str]:
    """Where a rank looks: as here, but for the working directory."""
    kept = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    here = os.getcwd()
    return [entry for entry in sys.path if entry and (entry != here or entry in kept)]


@cache
def _owners(path: Sequence[str], state: object) -> dict[str, tuple[Package, ...]]:
    """The packages that say they bring PACKAGES, the first of each of their own names alone. Read once for a `state`
    of the folders."""
    owners: dict[str, dict[str, Package]] = {name: {} for name in PACKAGES}
    silent = []
    for found in metadata.distributions(path=list(path)):
        try:
            files = f"\n{(found.read_text('RECORD') or '').replace(os.linesep, chr(10))}"
            top = (found.read_text("top_level.txt") or "").split()
        except (OSError, ValueError):
            continue
        editable = "\n__editable__" in files
        listed = files.count("\n") > 1 and not editable
        for name in PACKAGES:
            if any(f"\n{file}," in files for file in _files(name)) if listed else name in top:
                package = _package(found, editable)
                owners[name].setdefault(package.name, package)
        if not listed and not top:
            silent.append(_package(found, editable))
    for package in silent:  # a distributor's, which need not say what it brings (PEP 627)
        for name in (name for name in PACKAGES if _is(package, name) and not owners[name]):
            if package.editable or any((package.home / file).exists() for file in _files(name)):
                owners[name][package.name] = package
    return {name: tuple(each.values()) for name, each in owners.items()}


def _package(found: metadata.Distribution, editable: bool) -> Package:
    name = re.sub(r"[-_.]+", "-", str(found.metadata["Name"])).lower()
    home = Path(str(found.locate_file("")))
    return Package(name, str(found.metadata["Version"]), home, tuple(found.requires or ()), editable)


def _is(package: Package, name: str) -> bool:
    return any(package.name == each or package.name.startswith(f"{each}-") for each in PACKAGES[name])


def _files(name: str) -> tuple[str, str]:
    return f"{name}/__init__.py", f"{name}.py"


def _place(name: str, path: Sequence[str]) -> Path | None:
    """The file that is imported, or the folder where there is none; None if there is no such name."""
    spec = PathFinder.find_spec(name, list(path))
    if spec is None:
        return None
    if spec.origin and spec.has_location:
        return Path(spec.origin)
    return next((Path(place) for place in spec.submodule_search_locations or ()), None)


def _folder(name: str, place: Path) -> Path:
    """The package's folder, or the file of a module that is none."""
    return place.parent if place.name.startswith("__init__.") else place


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _away(place: Path) -> str:
    stands = place.parent if place.name.startswith("__init__.") else place
    return f"rename {stands}, or take {stands.parent} from PYTHONPATH"
