"""What need not be launched any more: a strategy, or its way to execute, of which all that was tried fails alike.

Two launches of different points that ended with the same exception, and none that was ok: the rest of it is left out
of this run. A limit, want of memory, a signal and a lost node never count, since other points may fare better.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from jobs.contract.outcome import Outcome
from jobs.contract.trial import Trial

# Who says it, on which node: not why.
WHO = re.compile(
    r"^rank \d+ ended with exit code \d+: |^job \S+ ended as \w+(?: on \S+)?(?: with exit code \S+:|(?= and could)) "
)
KILLED = re.compile(r" was killed by | exit code 1(?:37|43):")  # the latter by a shell in between
MEMORY = re.compile(
    r"memory|bad_alloc|resource_?exhausted|oom[-_ ]?kill|Errno 12\b|cannot allocate|can't allocate", re.I
)
# What differs between launches though the reason is the same: numbers, addresses, job and nodes, and the folders of
# trials and jobs, of ranks (jobs/rank/scratch.py) and temporary ones.
PART = r"[^\s'\":,()]*"
OWN = re.compile(
    rf"/{PART}/trials/{PART}|/{PART}/slurm/{PART}-[0-9a-f]{{8}}/{PART}|/{PART}/scaling-\d+/{PART}|/tmp/{PART}"
    r"|^job \S+ ended as \w+ on \S+|0x[0-9a-f]+|\d+"
)

Kind = tuple[str, str]  # a strategy and one of its ways to execute, "" for all of them


def kinds(trial: Trial) -> tuple[Kind, Kind]:
    return (trial.strategy, ""), (trial.strategy, trial.recipe.execution)


def line(outcome: Outcome) -> str:
    """The reason why a launch failed, if another one may have the same; empty if its end does not count."""
    if outcome.status != "failed" or KILLED.search(outcome.error) or MEMORY.search(outcome.error):
        return ""
    return WHO.sub("", outcome.error)


@dataclass
class Hopeless:
    """What has come of the launches so far. `lines` says of each kind that is hopeless why."""

    lines: dict[Kind, str] = field(default_factory=dict)
    _ok: set[Kind] = field(default_factory=set)
    _failed: dict[tuple[Kind, str], set[str]] = field(default_factory=dict)

    def note(self, trial: Trial, outcome: Outcome) -> Kind | None:
        """Take in how a launch has ended; a kind that is hopeless from now on."""
        if outcome.status == "ok":
            self._ok.update(kinds(trial))
        said = line(outcome)
        if not said:
            return None
        for kind in kinds(trial):
            points = self._failed.setdefault((kind, OWN.sub("#", said)), set())
            points.add(trial.point)
            if len(points) > 1 and kind not in self._ok and not self.covers(trial):
                self.lines[kind] = said
                return kind
        return None

    def covers(self, trial: Trial) -> Kind | None:
        """The hopeless kind that the trial is of; None if it is of none."""
        return next((kind for kind in kinds(trial) if kind in self.lines), None)

    def words(self, kind: Kind, left_out: int) -> str:
        """What is left out and why, in a line."""
        what = kind[0] + (f" with execution {kind[1]}" if kind[1] else "")
        return (
            f"{what}: {left_out} launches, as two of different points ended alike and none was ok: "
            f"{self.lines[kind]}; running the study again tries once more"
        )
