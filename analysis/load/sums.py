"""What an outcome says its trial's files were ─▶ which of them are another now.

docs/results-format.md is the contract: length and SHA-256 of trial.json and of each rank's step lines and report, and
of telemetry as it was then, which may have grown since. Results of before 0.3.0 have none.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Another name among the sums is a newer version's, or somebody's who wants other files read: not looked for.
SUMMED = re.compile(r"trial\.json|rank-\d+\.jsonl?|telemetry-[^/]+\.jsonl")
STEP_LINES = re.compile(r"rank-\d+\.jsonl")


class Sum(NamedTuple):
    length: int
    sha256: str

    def is_of(self, content: bytes) -> bool:
        return hashlib.sha256(content).hexdigest() == self.sha256


def stated(outcome: dict[str, Any]) -> dict[str, Sum]:
    """The sums in an outcome; {} in one without. Raises ValueError where they are not what they should be."""
    sums, found = outcome.get("sums"), {}
    if sums is None:
        return {}
    if not isinstance(sums, dict):
        raise ValueError("outcome.json: its sums are no mapping")
    for name, entry in sums.items():
        if SUMMED.fullmatch(name):
            length, digest = (entry.get(key) for key in Sum._fields) if isinstance(entry, dict) else (None, None)
            if not isinstance(length, int) or not isinstance(digest, str):
                raise ValueError(f"outcome.json: the sum of {name} cannot be read")
            found[name] = Sum(length, digest)
    return found


def differing(home: Path, sums: Mapping[str, Sum], *, ended_well: bool) -> str:
    """Which files in a trial's folder `home` are another than then, in a few words; "" if none is.

    Of a trial that has ended well the step lines are looked at from outside only: `read_steps` reads them. What was
    still written when one ended badly may have grown, as telemetry may.
    """
    return several([_difference(home / name, then, ended_well) for name, then in sorted(sums.items())])


def _difference(path: Path, then: Sum, ended_well: bool) -> str:
    """What is another at the file than it was `then`; "" if nothing is."""
    try:
        now = path.stat()
        if not stat.S_ISREG(now.st_mode):
            return f"{path.name} is no file"
        if now.st_size == then.length and ended_well and STEP_LINES.fullmatch(path.name):
            return ""
        content = path.read_bytes()
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    if now.st_size == then.length:
        return changed(path.name, content, then)
    grown = len(content) > then.length and (not ended_well or path.name.startswith("telemetry-"))
    other = changed(path.name, content[: then.length], then)
    if grown and not other:
        return ""
    if then.is_of(content.replace(b"\r\n", b"\n")):
        return f"{path.name} has other line ends than when its launch ended; copy it byte by byte"
    return other if grown else f"{path.name} has {now.st_size:,} bytes, {then.length:,} when its launch ended"


def changed(name: str, content: bytes, then: Sum) -> str:
    """What to say of the file `name` if `content`, which is as long as it was `then`, is something else; else ""."""
    return "" if then.is_of(content) else f"{name} is not what it was when its launch ended"


def several(said: Sequence[str]) -> str:
    """The first of the differences that were found, and how many there are; "" if there is none."""
    wrong = [each for each in said if each]
    return f"{wrong[0]} (and {len(wrong) - 1} more files)" if len(wrong) > 1 else "".join(wrong)
