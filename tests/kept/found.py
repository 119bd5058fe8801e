"""What today's code makes of a kept results folder: its numbers, and its words and pictures."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from rich.console import Console
from typer.testing import CliRunner

import scaling
from analysis.load.results import Results, load
from analysis.measures.efficiency import precision
from analysis.report.terminal import show_results
from analysis.verdicts.compare import compare
from tests.kept import files, modelled
from tests.kept.pages import drawn, visible

COLUMNS = 140
# Columns that name a row, where it has them: before any other that happens to differ.
NAMING = ("scaling", "strategy", "workers", "global_batch", "trial_id", "rank", "host", "claim", "comparison", "path")
AGAINST = "train"  # the folder that the others are compared with
MADE = re.compile(r"(?<=Written )\d{4}-\d\d-\d\d \d\d:\d\d UTC")


@dataclass(frozen=True)
class Found:
    """A folder with the report that has been written of it. `numbers` are by table, row and column."""

    name: str
    home: Path
    terminal: str

    def numbers(self, keys: dict[str, list[str]]) -> dict[str, Any]:
        """Of each table, its rows by the columns that `keys` names; of a table that is not in it, by those that tell
        its rows apart."""
        found: dict[str, Any] = {}
        for path in sorted((self.home / "report" / "tables").glob("*.csv")):
            rows = _rows(path)
            key = keys.get(path.stem) or _telling_apart(rows)
            found[path.stem] = {"key": key, "rows": _by_key(rows, key)}
        judged = json.loads(_said("claims", self.home, "--json"))
        published = self.name == AGAINST  # is the same whatever was measured
        found["claims --json"] = {c["id"]: c if published else c | {"published": None} for c in judged["claims"]}
        found["half-widths"] = precision(self.home)
        if self.name != AGAINST:
            comparison = compare(_loaded(AGAINST), load(self.home))
            found[f"compare with {AGAINST}"] = {
                change.point: asdict(change) | {"launches": list(change.launches)} for change in comparison.changes
            }
        return found

    def words(self) -> dict[str, str]:
        """File name ─▶ text."""
        found = {"terminal.txt": self.terminal, "status.txt": _said("status", self.home)}
        if self.name != AGAINST:
            found["compare.txt"] = _said("compare", files.RESULTS / AGAINST, self.home)
        page = (self.home / "report" / "index.html").read_text(encoding="utf-8")
        found["report.txt"] = MADE.sub("TODAY", visible(page))
        for path in sorted((self.home / "report" / "figures").glob("*.svg")):
            found[f"{path.stem}.svg.txt"] = drawn(path)
        return {name: self._plain(text) for name, text in found.items()}

    def _plain(self, text: str) -> str:
        """Without where it was made, and without blanks at the ends of lines."""
        text = text.replace(str(self.home), f"results/{self.name}").replace(str(files.RESULTS), "results")
        return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def analyse(name: str, scratch: Path) -> Found:
    """All that `scaling run` shows and writes when a study is done, of the kept folder `name`."""
    home = scratch / name
    if name == modelled.NAME:
        modelled.write(home)
    else:
        shutil.copytree(files.RESULTS / name, home)
    console = Console(file=io.StringIO(), width=COLUMNS)
    with _only(home / "report"):
        show_results(console, home)
    assert isinstance(console.file, io.StringIO)
    return Found(name, home, console.file.getvalue())


@contextmanager
def _only(folder: Path) -> Iterator[None]:
    """Save figures as SVG into `folder` only: `scaling run` draws the same figures elsewhere, and as PNG."""
    save = Figure.savefig

    def selected(self: Figure, path: Path, **options: Any) -> None:
        if path.suffix == ".svg" and path.is_relative_to(folder):
            save(self, path, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", selected)
        yield


def folders() -> list[str]:
    """The names of the kept results folders, and of the one that is written anew."""
    return sorted([*(path.name for path in files.RESULTS.iterdir() if path.is_dir()), modelled.NAME])


@cache
def _loaded(name: str) -> Results:
    return load(files.RESULTS / name)


def _said(*command: object) -> str:
    """What a command prints."""
    done = CliRunner().invoke(scaling.app, [*map(str, command)], env={"COLUMNS": str(COLUMNS)})
    assert done.exit_code == 0, done.output
    return done.stdout


def _rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [{column: _value(text) for column, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> Any:
    """A number where the text is one, None where there is none."""
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _telling_apart(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The first columns without fractions by which as many rows as possible differ."""
    chosen: list[str] = []
    for column in sorted(rows[0] if rows else [], key=lambda name: name not in NAMING):
        if not any(isinstance(row[column], float) for row in rows):
            more = [*chosen, column]
            if len({_key(row, more) for row in rows}) > len({_key(row, chosen) for row in rows}):
                chosen = more
    return chosen


def _key(row: dict[str, Any], columns: Sequence[str]) -> str:
    return ", ".join(str(row.get(column)) for column in columns)


def _by_key(rows: Sequence[dict[str, Any]], key: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rows of one key, such as the samples of a launch, are numbered."""
    seen: Counter[str] = Counter()
    found = {}
    for row in rows:
        name = _key(row, key)
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name} #{seen[name]}"] = row
    return found


# On disk a table has its columns once, and the values that all its rows share.


def folded(numbers: dict[str, Any]) -> dict[str, Any]:
    """`numbers` with one entry for each row, a list of what differs from row to row."""
    content: dict[str, Any] = {}
    for table, held in numbers.items():
        if "rows" not in held:
            content[table] = held
            continue
        rows = held["rows"]
        first = next(iter(rows.values()), {})
        same = {c: v for c, v in first.items() if len(rows) > 1 and all(row[c] == v for row in rows.values())}
        columns = [column for column in first if column not in same]
        content[table] = {"key": held["key"], "same": same, "columns": columns}
        content |= {f"{table} / {name}": [row[column] for column in columns] for name, row in rows.items()}
    return content


def unfolded(content: dict[str, Any]) -> dict[str, Any]:
    """The opposite."""
    numbers: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, list):
            table, row = name.split(" / ", 1)
            head = content[table]
            values = head["same"] | dict(zip(head["columns"], value, strict=True))
            numbers[table]["rows"][row] = values
        elif "columns" in value and "key" in value:
            numbers[name] = {"key": value["key"], "rows": {}}
        else:
            numbers[name] = value
    return numbers


def keys(numbers: dict[str, Any]) -> dict[str, list[str]]:
    """Of each kept table, the columns that its rows are named by."""
    return {table: held["key"] for table, held in numbers.items() if "rows" in held}
