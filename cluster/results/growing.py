"""What is done to study.yaml and plan.json of a results folder that takes in another."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cluster.results.folder import FACTORS, ResultsFolder
from cluster.study import file
from cluster.study.schema import Study, StudyError, resolved
from jobs.contract.files import write_atomically

NOT_IMPORTED = "not imported: "  # begins the line of a launch that did not come in, before its name
GROWING = ("strategies", "workers", "scaling", *FACTORS)


def fault_of(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return one_line(f"{place}: {first['msg']}; written by another version?" if place else first["msg"])


def one_line(text: object) -> str:
    return " ".join(str(text).split())[:200]


@dataclass
class Plan:
    """What plan.json says: see docs/results-format.md."""

    points: list[str] = field(default_factory=list)
    repeats: int = 1
    left_out: list[str] = field(default_factory=list)
    not_available: dict[str, str] = field(default_factory=dict)
    data: list[dict[str, Any]] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    base_beside: dict[str, list[int] | str] = field(default_factory=dict)
    format: int = 1

    def joined(self, other: Plan) -> Plan:
        """Both plans; what one machine could not run, the other may have."""
        points = list(dict.fromkeys(self.points + other.points))
        run = {point.rpartition("-n")[0] for point in points}
        lacking = {k: v for k, v in (self.not_available | other.not_available).items() if k not in run}
        left_out = list(dict.fromkeys(self.left_out + other.left_out))
        given_up = list(dict.fromkeys(self.given_up + other.given_up))
        beside, newer = other.base_beside | self.base_beside, max(self.format, other.format)
        return Plan(points, self.repeats, left_out, lacking, self.data or other.data, given_up, beside, newer)

    def content(self) -> dict[str, Any]:
        """As the file has it, which says nothing of data or of what was given up where there is nothing to say."""
        silent = [key for key in ("data", "given_up", "base_beside") if not getattr(self, key)]
        return {"format": self.format} | {key: value for key, value in vars(self).items() if key not in silent}


def read_plan(path: Path) -> Plan | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return TypeAdapter(Plan).validate_python(content)
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        said = fault_of(error) if isinstance(error, ValidationError) else one_line(error)
        raise StudyError([f"{path}: cannot be read ({said})"]) from None


def grow(folder: ResultsFolder, study: Study, plan: Plan, launches: Collection[str]) -> None:
    """Let the folder's study and plan take in what comes; they are made if there are none. Of `launches`, which are
    there then, no line says any more that they did not come in."""
    own = file.stored(folder.path) if (folder.path / "study.yaml").exists() else study
    if (grown := _grown(own, study)) != own or own is study:
        folder.write_study(grown)
    old = read_plan(folder.path / "plan.json")
    joined = old.joined(plan) if old else plan
    joined.left_out = [line for line in joined.left_out if not _came_in(line, launches)]
    if joined != old:
        write_atomically(folder.path / "plan.json", json.dumps(joined.content(), indent=1) + "\n")


def _came_in(line: str, launches: Collection[str]) -> bool:
    name = line.removeprefix(NOT_IMPORTED).partition(" ")[0].removesuffix(":")
    return line.startswith(NOT_IMPORTED) and name in launches


def _grown(own: Study, more: Study) -> Study:
    """`own` with the strategies, worker counts, scaling modes, factors and batches that `more` adds."""
    content, adds = resolved(own), resolved(more)
    for place, adding in ((content, adds), (content["resources"], adds["resources"])):
        for name in GROWING:
            if name in place:
                place[name] = _union(place[name], adding[name])
    content["batch"] |= {k: v for k, v in adds["batch"].items() if content["batch"][k] is None}
    return file.check(content)


def _union(own: Any, more: Any) -> Any:
    if own == more or "auto" in (own, more):
        return own
    listed = [value if isinstance(value, list) else [value] for value in (own, more)]
    joined = list(dict.fromkeys(listed[0] + listed[1]))
    return own if joined == listed[0] else joined
