"""A trial's folder: made, filled, set aside; and whether the files in it are what they were when its launch ended.

An outcome carries sums of trial.json, and of each rank's step lines and report; of telemetry as it was then, which may
have grown since. None of logs and signs of life, which nothing stands on. analysis/load/sums.py compares the same by
itself.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jobs.contract.files import TRIAL, rank_file, write_atomically
from jobs.contract.trial import Trial

# What must have a sum if the launch ended well and there are any: a rank's file is called as the rank is counted.
# Another name among the sums, by a newer version or somebody's hand, is not looked for.
MUST = re.compile(r"trial\.json|(rank-(\d{5}|[1-9]\d{5,})|base-[1-9]\d*)\.jsonl?")
SUMMED = re.compile(rf"{MUST.pattern}|telemetry-[^/]+\.jsonl")


def write_trial(folder: Path, trial: Trial) -> None:
    folder.mkdir(parents=True)
    write_atomically(folder / TRIAL, json.dumps(trial.content, indent=1) + "\n")


def read_trial(folder: Path) -> Trial:
    return Trial.model_validate_json((folder / TRIAL).read_text(encoding="utf-8"))


def set_aside(folder: Path, why: str) -> str:
    """Move a trial's folder to `set-aside/`, so that the trial can be done anew; one line about it."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    results = folder.parent.parent
    target = results / "set-aside" / f"{folder.name}-{stamp}"
    target.parent.mkdir(exist_ok=True)
    folder.rename(target)
    return f"{folder.name} {why}; kept in {target.relative_to(results)}"


def append_steps(folder: Path, rank: int, rows: Sequence[Mapping[str, object]]) -> None:
    """Append step lines of `rank`: phase, step, seconds, data_seconds, samples, loss, warmup."""
    with rank_file(folder, rank, "jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@dataclass(frozen=True)
class Sum:
    """What a file was: its `length` in bytes, and the hexadecimal `sha256` over them."""

    length: int
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> Sum:
        return cls(length=len(content), sha256=hashlib.sha256(content).hexdigest())


def sum_of(path: Path) -> Sum:
    """The sum of the file at `path`, which need not fit into memory. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Sum(length=file.tell(), sha256=digest)


def differing(folder: Path, sums: Mapping[str, Sum], *, ended_well: bool) -> str:
    """Which files in a launch's `folder` are not what their `sums` say, in a few words; "" if there is none.

    What was still written when a launch ended badly may have grown, as telemetry may, or come.
    """
    wrong = [
        said
        for name, then in sorted(sums.items())
        if SUMMED.fullmatch(name)
        and (said := _difference(folder / name, then, grows=not ended_well or name.startswith("telemetry-")))
    ]
    if ended_well:
        there = {path.name for path in folder.iterdir()} | {TRIAL}
        unsummed = sorted(name for name in there - sums.keys() if MUST.fullmatch(name))
        wrong += [f"outcome.json has no sum of {name}" for name in unsummed]
    return f"{wrong[0]} (and {len(wrong) - 1} more files)" if len(wrong) > 1 else "".join(wrong)


def _difference(path: Path, then: Sum, grows: bool) -> str:
    """What is another at the file than it was `then`; "" if nothing is."""
    other = f"{path.name} is not what it was when its launch ended"
    try:
        now = path.stat()
        if not stat.S_ISREG(now.st_mode):
            return f"{path.name} is no file"
        if now.st_size == then.length and (found := sum_of(path)).length == then.length:
            return "" if found == then else other
        content = path.read_bytes()  # which may be longer by now
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    if len(content) == then.length:
        return "" if Sum.of(content).sha256 == then.sha256 else other
    grown = grows and len(content) > then.length
    if grown and Sum.of(content[: then.length]).sha256 == then.sha256:
        return ""
    if Sum.of(content.replace(b"\r\n", b"\n")).sha256 == then.sha256:
        return f"{path.name} has other line ends than when its launch ended; copy it byte by byte"
    return other if grown else f"{path.name} has {len(content):,} bytes, {then.length:,} when its launch ended"
