"""Reading a study file so that every fault is one line: where, what, what instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cluster.study.schema import LauncherOptions, Study, StudyError, study_of
from jobs.contract.catalog import STRATEGIES
from jobs.contract.outcome import FORMAT
from jobs.contract.registry import RegistryError

LARGEST_FILE = 1 << 20
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
BRANCH = re.compile(r"(list|literal|function-[a-z]+|constrained-[a-z]+)(\[.*\])?")


class _NoDuplicates(yaml.SafeLoader):
    """YAML's safe loader, which forgives a key given twice, made to refuse it."""


def _decimal(pattern: re.Pattern[str]) -> re.Pattern[str]:
    return re.compile(f"(?![^:]*:)(?:{pattern.pattern})", pattern.flags)


def _mapping(loader: _NoDuplicates, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, dict | list):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return dict(loader.construct_mapping(node, deep=True))


# YAML 1.1 reads 1:30:00 as a number to the base of 60; in a study it is a time, as a word.
_NoDuplicates.yaml_implicit_resolvers = {
    first: [(tag, _decimal(pattern) if tag in NUMBERS else pattern) for tag, pattern in resolvers]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_NoDuplicates.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse(path: Path) -> Study:
    """The study in the file `path`. Raises StudyError."""
    return _checked(path, _read(path))


def _checked(path: Path, content: dict[Any, Any]) -> Study:
    try:
        return check(content)
    except StudyError as error:
        raise StudyError([f"{path}: {fault}" for fault in error.faults]) from None


def _read(path: Path) -> dict[Any, Any]:
    """The file's content as plain values. Raises StudyError."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise StudyError([f"{path}: {error.strerror or error}; name a study file"]) from None
    if len(raw) > LARGEST_FILE:
        raise StudyError([f"{path}: {len(raw)} bytes; a study file has at most {LARGEST_FILE}"])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise StudyError([f"{path}:{line}: not UTF-8 text; save it as UTF-8"]) from None
    try:
        aliases = any(isinstance(e, yaml.AliasEvent) for e in yaml.parse(text, Loader=yaml.SafeLoader))
        content = None if aliases else yaml.load(text, Loader=_NoDuplicates)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise StudyError([f"{path}:{line}: {_one_line(error.problem or 'not YAML')}"]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise StudyError([f"{path}: not readable as YAML ({_one_line(error)})"]) from None
    if aliases:
        raise StudyError([f"{path}: YAML aliases (*name) are not taken; write the value out"])
    if content is None:
        raise StudyError([f"{path}: is empty; studies/quick.yaml is one to start from"])
    if not isinstance(content, dict):
        raise StudyError([f"{path}: a study is a mapping of keys to values, not a {type(content).__name__}"])
    return content


def check(content: dict[Any, Any]) -> Study:
    """The study that `content`, the file as plain values, stands for. Raises StudyError."""
    faults: list[str] = []
    study = None
    try:
        study = study_of(content.get("workload")).model_validate(content)
    except ValidationError as error:
        faults += [_fault(e) for e in _without_other_branches(error.errors(include_url=False))]
    names = content.get("strategies")
    for index, name in enumerate(names if isinstance(names, list) else []):
        if isinstance(name, str) and name not in STRATEGIES:
            faults.append(f"strategies.{index}: {name!r} is not a strategy; {_instead(name, STRATEGIES)}")
        elif isinstance(name, str):
            try:
                STRATEGIES[name]
            except RegistryError as error:
                faults.append(f"strategies.{index}: {error}")
    if study is None or faults:
        raise StudyError(list(dict.fromkeys(faults)))
    return study


def _place(error: ErrorDetails) -> list[str]:
    """The keys and indices that lead to the fault, without pydantic's names of a union's branches."""
    parts = [_one_line(part) for part in error["loc"]]
    is_key = error["type"] == "extra_forbidden"
    return [p for i, p in enumerate(parts) if (is_key and i == len(parts) - 1) or not BRANCH.fullmatch(p)]


def _without_other_branches(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Where a value may be one thing or a list of it, keep only the complaints of the branch that
    the value was meant for."""
    kept = []
    for error in errors:
        place, given = _place(error), error.get("input")
        others = [e for e in errors if e is not error and _place(e)[: len(place)] == place]
        meant_as_list = isinstance(given, list) and any(len(_place(e)) > len(place) for e in others)
        not_a_list = error["type"] == "list_type" and any(_place(e) == place for e in others)
        if not (meant_as_list or not_a_list):
            kept.append(error)
    return kept


def _fault(error: ErrorDetails) -> str:
    """One line for one of pydantic's errors."""
    where = _place(error)
    place = ".".join(where)
    message = _one_line(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{place}: is not a key of a study; {_instead(where[-1], _keys(where[:-1]))}"
    if error["type"] == "missing":
        return f"{place}: is missing; a study needs it"
    if error["type"] == "value_error":
        return f"{place}: {message}" if place else message
    given = _one_line(repr(error.get("input")))
    return f"{place}: {given[:60]} is wrong; {message[0].lower()}{message[1:]}"


def _keys(where: list[str]) -> list[str]:
    """The keys that are allowed at the place `where` of a study."""
    model: Any = Study
    for part in where:
        field = next((f for k, f in model.model_fields.items() if part in (k, f.alias)), None)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return [field.alias or key for key, field in model.model_fields.items()]


def _instead(given: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def on_launcher(study: Study, kind: str | None) -> Study:
    """The study on another kind of launcher; the options of its own kind do not carry over."""
    if kind is None or kind == study.launcher.kind:
        return study
    return study.model_copy(update={"launcher": LauncherOptions(kind=kind)})


def stored(results: Path) -> Study:
    """The study whose results are in the folder `results`. Raises StudyError."""
    path = results / "study.yaml"
    if not path.exists():
        raise StudyError([f"{results}: no study.yaml there; name the results folder of a study"])
    content = _read(path)
    written = content.pop("format", None)
    if not isinstance(written, int):
        raise StudyError([f"{path}: is not a study as this program writes it"])
    if written > FORMAT:
        raise StudyError([f"{path}: format {written}; this version reads up to {FORMAT}; update it"])
    return _checked(path, content)
