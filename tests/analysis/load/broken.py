"""Ways in which a trial's files may be spoilt, and what the reader must say of each.

for spoilt in broken.BROKEN: spoilt.spoil(trial_folder)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Broken:
    """`spoil` gets the folder of a trial with two ranks; `said` is a piece of the reason that the
    reader must give."""

    name: str
    spoil: Callable[[Path], None]
    said: str


def _edit_outcome(**fields: Any) -> Callable[[Path], None]:
    def edit(home: Path) -> None:
        path = home / "outcome.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return edit


def _edit_lines(change: Callable[[list[str]], list[str]], rank: int = 0) -> Callable[[Path], None]:
    def edit(home: Path) -> None:
        path = home / f"rank-{rank:05d}.jsonl"
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))

    return edit


def _replace_value(key: str, value: str, line: int = 10) -> Callable[[list[str]], list[str]]:
    def change(lines: list[str]) -> list[str]:
        row = json.loads(lines[line])
        row[key] = "@"
        lines[line] = json.dumps(row).replace('"@"', value) + "\n"
        return lines

    return change


def _all_cut(home: Path) -> None:
    """As a quota or a copy that broke off leaves them: whole lines, and as many of each rank."""
    for rank in (0, 1):
        _edit_lines(lambda lines: lines[:-2], rank)(home)


def _no_compute_only(home: Path) -> None:
    for rank in (0, 1):
        _edit_lines(lambda lines: [line for line in lines if "compute_only" not in line], rank)(home)


BROKEN = (
    Broken("truncated-line", _edit_lines(lambda lines: [*lines[:-1], lines[-1][:20]]), "rank-00000.jsonl"),
    Broken("missing-rank", lambda home: (home / "rank-00001.jsonl").unlink(), "rank 1"),
    Broken("nan-time", _edit_lines(_replace_value("seconds", "NaN")), "seconds"),
    Broken("null-time", _edit_lines(_replace_value("seconds", "null")), "seconds"),
    Broken("infinite-time", _edit_lines(_replace_value("seconds", "1e999")), "seconds"),
    Broken("negative-time", _edit_lines(_replace_value("seconds", "-0.01")), "seconds"),
    Broken("zero-time", _edit_lines(_replace_value("seconds", "0")), "seconds"),
    Broken("negative-input-time", _edit_lines(_replace_value("data_seconds", "-0.01")), "data_seconds"),
    Broken("text-for-a-time", _edit_lines(_replace_value("seconds", '"fast"')), "seconds"),
    Broken("unequal-steps", _edit_lines(lambda lines: lines[:10] + lines[11:]), "step"),
    Broken("repeated-steps", _edit_lines(lambda lines: lines + lines), "step"),
    Broken("wrong-samples", _edit_lines(_replace_value("samples", "7")), "samples"),
    Broken("empty-rank-file", _edit_lines(lambda lines: []), "rank 0"),
    Broken("binary-rank-file", lambda home: _binary(home / "rank-00000.jsonl"), "rank-00000.jsonl"),
    Broken("ended-before-started", _edit_outcome(ended="2020-01-01T00:00:00+00:00"), "before"),
    Broken("newer-format", _edit_outcome(format=3), "format 3"),
    Broken("outcome-of-another-trial", _edit_outcome(trial_id="torch-n1-b1-00000000-r00"), "another trial"),
    Broken("outcome-not-json", lambda home: _text(home / "outcome.json", '{"status": "ok"'), "JSON"),
    Broken("unknown-status", _edit_outcome(status="splendid"), "splendid"),
    Broken("trial-not-json", lambda home: _text(home / "trial.json", "{"), "trial.json"),
    Broken("trial-missing", lambda home: (home / "trial.json").unlink(), "trial.json"),
    Broken("cut-in-the-compute-only-phase", _all_cut, "3 measured compute-only steps, but 5 were planned"),
    Broken("without-the-compute-only-phase", _no_compute_only, "0 measured compute-only steps, but 5 were planned"),
)


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)
