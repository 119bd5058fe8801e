"""A user's own lines in a job's script (`module_load`, `setup`), and what a job's output says of them.

Before each step, and when one has failed, the script writes a line to the job's output (slurm/setup.j2); the driver
reads there which step it was and what that said.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jobs.contract import reason
from jobs.machine.variables import masked

BEGINS, FAILED, DONE = "set-up begins: ", "set-up failed: ", "set-up is done"
AGAIN = re.compile(r"^slurmstepd: .* DUE TO (?:JOB REQUEUE|PREEMPTION|NODE FAILURE)")
MORE = " …"  # of a label that is not all of its step
# What the shell puts before its own messages: the script, by the name that SLURM's daemon gave it, and a line of it.
WHERE = re.compile(r"^\S*: line \d+: ")
# The first such line tells why: `module` gives much advice after it. What configure looks for may only be called so.
TELLING = re.compile(
    r"^(?!checking ).*\b(?:errors?|fail\w*|fatal|no such|not found|unknown|cannot|can't|could not|denied|invalid|unable"
    r"|unbound|refused)\b",
    re.I,
)


@dataclass(frozen=True)
class Step:
    """Lines of shell that are run as they are. `label` says where they are from, and holds no secret."""

    label: str
    text: str

    @property
    def pipe_counts(self) -> bool:
        """Whether each command of its last pipe must succeed: not one that "||" or "!" says may fail."""
        return "||" not in self.text and not self.text.lstrip().startswith("! ")


def steps(module_load: Sequence[str], setup: Sequence[str]) -> list[Step]:
    """What a script runs before the trials, command by command as far as they are on lines of their own."""
    found = [
        Step(f"launcher.module_load[{index}]: module load {name}", f"module load {shlex.quote(name)}")
        for index, name in enumerate(module_load)
    ]
    for index, text, _ in _commands(setup):
        lines = [line.strip() for line in text.splitlines()]
        first, *more = [line for line in lines if line and not line.startswith("#")]
        found.append(Step(f"launcher.setup[{index}]: {masked(first)[:200]}{MORE if more else ''}", text))
    return found


def checked(setup: list[str]) -> list[str]:
    """`setup`, if bash can read it. Raises ValueError."""
    for index, text, fault in _commands(setup):
        if fault:
            raise ValueError(f"bash cannot run entry {index}, {masked(text)!r}: {fault}")
    return setup


def _commands(setup: Sequence[str]) -> list[tuple[int, str, str]]:
    """The entry where it begins, the text, and what bash has against it, of each command of `setup`.

    Lines that are a whole only together stay together, over several entries too.
    """
    found = []
    lines = [(index, line) for index, entry in enumerate(setup) for line in entry.split("\n")]
    first = 0
    for last, (_, line) in enumerate(lines, 1):
        telling = [index for index, line in lines[first:last] if line.strip() and not line.lstrip().startswith("#")]
        text = "\n".join(line for _, line in lines[first:last])
        if telling and (not (fault := _against(text)) or last == len(lines)):
            found.append((telling[0], text, fault))
            first = last
    return found


@lru_cache(None)
def _against(text: str) -> str:
    """What bash has against `text` as some whole commands; empty if nothing, or if there is no bash to be asked."""
    if re.search(r"(?<!\\)(\\\\)*\\$", text):
        return "ends with a backslash, which takes in the next line"
    command = ["bash", "-O", "extglob", "-n"]
    # What bash says at its start of a locale or of a shell's functions is not about the text.
    variables = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    try:
        given = f"{text}\n".encode(errors="replace")
        done = subprocess.run(command, input=given, env=variables, capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    said = done.stderr.decode(errors="replace").splitlines()
    # A here-document that does not end is a warning only.
    return next((WHERE.sub("", line) for line in said if WHERE.match(line)), "")


def unfinished(output: Path) -> str:
    """What a job's output says of a set-up that failed or has not ended; empty if it has, or if there was none."""
    try:
        lines = reason.readable(output.read_bytes())
    except OSError:
        return ""
    begun = [number for number, line in enumerate(lines) if line.startswith((BEGINS, DONE))]
    if not begun or lines[begun[-1]] == DONE:
        return ""
    label = lines[begun[-1]].removeprefix(BEGINS)
    said = [WHERE.sub("", line) for line in lines[begun[-1] + 1 :]]
    ended = next((line.removeprefix(FAILED) for line in said if line.startswith(FAILED)), "had not ended")
    said = [line for line in said if not line.startswith((FAILED, "slurmstepd: "))]
    first = next((line for telling in (reason.IN_C, TELLING) for line in said if telling.search(line)), "")
    why = reason.within(said) or first.strip()[:500] or reason.telling(said)
    if not label.endswith(MORE):  # the label has all of the step; what the shell was at may be deep in a function
        ended = re.sub(r"^'.*' (?=ended with exit code \d+$)", "", ended)
    return masked(f"{label}: {ended}" + (f": {why}" if why else ""))


def after(output: Path) -> list[str]:
    """The lines of a job's output that are not its set-up's, nor of before SLURM has started it again."""
    lines = reason.readable(output.read_bytes())
    ends = [number for number, line in enumerate(lines, 1) if line == DONE or AGAIN.search(line)]
    return lines[max(ends, default=0) :]
