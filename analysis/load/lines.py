"""Files of step lines ─▶ one table, or which line of which file is none."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl

from analysis.load import sums
from analysis.load.sums import Sum

LINE = {
    "phase": pl.String,
    "step": pl.Int64,
    "seconds": pl.Float64,
    "data_seconds": pl.Float64,
    "samples": pl.Int64,
    "loss": pl.Float64,
    "warmup": pl.Boolean,
    "block": pl.Int64,
}


class BrokenSteps(ValueError):
    """The step lines of a trial cannot be trusted; the message says which and why."""


def read_steps(home: Path, then: Mapping[str, Sum] | None = None) -> pl.DataFrame:
    """All step lines of the trial in folder `home`: column `rank` and those of LINE, as written.

    Raises BrokenSteps if a file is missing, truncated or damaged, or another than it was `then`.
    """
    return read_lines({int(m[1]): f for f in sorted(home.iterdir()) if (m := sums.STEP_LINES.fullmatch(f.name))}, then)


def read_lines(files: Mapping[int, Path], then: Mapping[str, Sum] | None = None) -> pl.DataFrame:
    """The same of these files of step lines, each of the rank that it is named by."""
    if other := [file.name for file in files.values() if not file.is_file()]:
        raise BrokenSteps(f"{other[0]} is no file")
    try:
        texts = {rank: file.read_bytes() for rank, file in sorted(files.items())}
    except OSError as error:
        raise BrokenSteps(f"{error.filename}: {error.strerror}") from None
    with ThreadPoolExecutor(1) as beside:  # SHA-256 takes a core of its own meanwhile
        changed = beside.submit(_changed, {files[rank].name: text for rank, text in texts.items()}, then or {})
        try:
            frame = _table(files, texts)
        except BrokenSteps as error:
            raise BrokenSteps(": ".join(filter(None, (changed.result(), str(error))))) from None
        if changed.result():
            raise BrokenSteps(changed.result())
    return frame


def _changed(texts: Mapping[str, bytes], then: Mapping[str, Sum]) -> str:
    """Which of the files are as long as they were and have another content, "" if none."""
    alike = [name for name, text in texts.items() if name in then and len(text) == then[name].length]
    return sums.several([sums.changed(name, texts[name], then[name]) for name in alike])


def _table(files: Mapping[int, Path], texts: dict[int, bytes]) -> pl.DataFrame:
    for rank, text in texts.items():
        if not text.strip():
            raise BrokenSteps(f"no steps of rank {rank}: {files[rank].name} is empty")
        if not text.endswith(b"\n"):
            texts[rank] += b"\n"
    if not texts:
        return pl.DataFrame(schema={"rank": pl.Int32, **LINE})
    try:
        frame = _parse(b"".join(texts.values()))
    except pl.exceptions.PolarsError:
        raise BrokenSteps(_first_fault(files)) from None
    counts = [text.count(b"\n") for text in texts.values()]
    if len(frame) != sum(counts):
        raise BrokenSteps(_first_fault(files))
    ranks = np.repeat(np.fromiter(texts, dtype=np.int32), counts)
    return frame.insert_column(0, pl.Series("rank", ranks))


def _parse(text: bytes) -> pl.DataFrame:
    """The lines as a table. Python's JSON writes a diverged loss as NaN, which is no JSON: null here."""
    try:
        return pl.read_ndjson(text, schema=LINE)
    except pl.exceptions.PolarsError:
        if b"NaN" not in text and b"Infinity" not in text:
            raise
        return pl.read_ndjson(re.sub(rb"-?\bInfinity\b|\bNaN\b", b"null", text), schema=LINE)


def _first_fault(files: Mapping[int, Path]) -> str:
    """Which line of which file is not a step line, and why: the slow way, for the person to read."""
    for file in files.values():
        for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
            if not line.strip():
                continue
            where = f"{file.name} line {number}"
            try:
                row = json.loads(line)
            except ValueError:
                return f"{where} is not a complete JSON object"
            if not isinstance(row, dict):
                return f"{where} is not a JSON object"
            for key in ("seconds", "data_seconds", "step", "samples", "loss"):
                value = row.get(key)
                if not isinstance(value, float | int | None) or isinstance(value, bool):
                    return f"{where}: {key} is {str(value)[:30]!r}, not a number"
                if isinstance(value, float) and not math.isfinite(value) and key != "loss":
                    return f"{where}: {key} is {value}"
    return "the step lines cannot be read as one table"
