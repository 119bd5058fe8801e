"""What an outcome says its trial's files were ─▶ which of them are another now.

docs/results-format.md is the contract: length and SHA-256 of trial.json, of the step lines and reports of each rank and
of a base case beside, and of telemetry as it was then, which may have grown since. Results of before 0.3.0 have none.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# A rank's file is called as the rank is counted: rank-1 and rank-000001 are nobody's.
OF_RANK = r"rank-(\d{5}|[1-9]\d{5,})"
STEP_LINES = re.compile(rf"{OF_RANK}\.jsonl")
# The base case that ran beside with so many samples per step: its lines and its report.
OF_BASE = r"base-([1-9]\d*)"
BASE_LINES = re.compile(rf"{OF_BASE}\.jsonl")
# What must have a sum if the launch ended well and there are any. Another name among them is a newer version's, or
# somebody's who wants other files read: not looked for.
MUST = re.compile(rf"trial\.json|({OF_RANK}|{OF_BASE})\.jsonl?")
SUMMED = re.compile(rf"{MUST.pattern}|telemetry-[^/]+\.jsonl")


class Sum(NamedTuple):
    length: int
    sha256: str

    def is_of(self, content: bytes) -> bool:
        return hashlib.sha256(content).hexdigest() == self.sha256


def stated(outcome: dict[str, Any]) -> dict[str, Sum] | None:
    """The sums in an outcome; None in one without. Raises ValueError where they are not what they should be."""
    sums, found = outcome.get("sums"), {}
    if sums is None:
        return None
    if not isinstance(sums, dict):
        raise ValueError("outcome.json: its sums are no mapping")
    for name, entry in sums.items():
        if SUMMED.fullmatch(name):
            length, digest = (entry.get(key) for key in Sum._fields) if isinstance(entry, dict) else (None, None)
            if not isinstance(length, int) or not isinstance(digest, str):
                raise ValueError(f"outcome.json: the sum of {name} cannot be read")
            found[name] = Sum(length, digest)
    return found


def differing(home: Path, sums: Mapping[str, Sum] | None, *, ended_well: bool, steps: bool = True) -> str:
    """Which files in a trial's folder `home` are another than then, in a few words; "" if none is.

    Of a trial that has ended well, and without `steps` of any, the step lines are looked at from outside only:
    `read_steps` reads them. What was still written when one ended badly may have grown, as telemetry may, or come.
    """
    if sums is None:
        return ""
    outside = ended_well or not steps
    said = [_difference(home / name, then, ended_well, outside) for name, then in sorted(sums.items())]
    return several(
        said + ([f"outcome.json has no sum of {name}" for name in _unsummed(home, sums)] if ended_well else [])
    )


def _unsummed(home: Path, sums: Mapping[str, Sum]) -> list[str]:
    there = {path.name for path in home.iterdir()} | {"trial.json"}
    return sorted(name for name in there - sums.keys() if MUST.fullmatch(name))


def _difference(path: Path, then: Sum, ended_well: bool, outside: bool) -> str:
    """What is another at the file than it was `then`; "" if nothing is."""
    try:
        now = path.stat()
        if not stat.S_ISREG(now.st_mode):
            return f"{path.name} is no file"
        grows = not ended_well or path.name.startswith("telemetry-")
        if (
            outside
            and STEP_LINES.fullmatch(path.name)
            and (now.st_size == then.length or (grows and now.st_size > then.length))
        ):
            return ""
        content = path.read_bytes()  # which may be longer by now
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    if len(content) == then.length:
        return changed(path.name, content, then)
    grown = grows and len(content) > then.length
    other = changed(path.name, content[: then.length], then)
    if grown and not other:
        return ""
    if then.is_of(content.replace(b"\r\n", b"\n")):
        return f"{path.name} has other line ends than when its launch ended; copy it byte by byte"
    return other if grown else f"{path.name} has {len(content):,} bytes, {then.length:,} when its launch ended"


def changed(name: str, content: bytes, then: Sum) -> str:
    """What to say of the file `name` if `content`, which is as long as it was `then`, is something else; else ""."""
    return "" if then.is_of(content) else f"{name} is not what it was when its launch ended"


def several(said: Sequence[str]) -> str:
    """The first of the differences that were found, and how many there are; "" if there is none."""
    wrong = [each for each in said if each]
    return f"{wrong[0]} (and {len(wrong) - 1} more files)" if len(wrong) > 1 else "".join(wrong)
