"""What a launch in blocks has beside its steps: the base case as a companion that took turns with the ranks.

Its lines are held against its report, and both against trial and outcome, as those of a rank are. A round in which a
side used a CPU while it was stopped is left out, of the ranks and of the companion alike: neither was alone then.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from analysis.load import rounds, sums
from analysis.load.lines import BrokenSteps, read_lines
from analysis.load.steps import Floats, Steps, blocks_of, longest_still, phases
from analysis.load.values import listed, mapping, number, read_json, whole

BESIDE: dict[str, Any] = {
    "in_blocks": pl.Boolean,  # its phases took turns
    "base_beside": pl.String,  # the batches of its companions, as a JSON list
    # Of a companion with the global batch, and with that of one worker: seconds per sample, over the used rounds.
    "base_whole_cost": pl.Float64,
    "base_each_cost": pl.Float64,
    "base_still_seconds": pl.Float64,  # of the companion that stood still longest, as `alone_still_seconds`
    "rounds": pl.Int64,
    "rounds_unused": pl.Int64,
    "blocks_off": pl.Int64,  # of all phases; they are counted
}
ASLEEP_SECONDS = 0.02  # of CPU time, which comes in ticks of 0.01 s: more was used by a side that was not asleep


@dataclass(frozen=True)
class Companion:
    """`steps` are its counted ones, as those of one rank; `awake` the rounds in which a side was not asleep."""

    batch: int
    steps: Steps
    awake: frozenset[int]

    def cost(self, unused: Collection[int]) -> float:
        """Seconds per sample over all counted steps but those of the rounds `unused`."""
        used = self.steps.without(unused)
        return float(used.seconds.sum() / used.samples.sum())


def planned(trial: Mapping[str, Any]) -> dict[str, Any]:
    """The columns BESIDE that are known of any launch."""
    batches = sorted(batch for each in listed(trial.get("base_batches")) if (batch := whole(each, 1)))
    return {"in_blocks": rounds_of(trial) is not None, "base_beside": json.dumps(batches)}


def rounds_of(trial: Mapping[str, Any]) -> int | None:
    """In how many rounds the launch is measured; None if its phases come one after the other."""
    return whole(mapping(trial.get("steps")).get("blocks"), 1)


def read(
    home: Path, trial: Mapping[str, Any], outcome: Mapping[str, Any], then: Mapping[str, sums.Sum] | None = None
) -> list[Companion]:
    """The companions of the launch in folder `home`. Raises BrokenSteps where its files do not agree."""
    count = rounds_of(trial)
    if count is None:
        return []
    asked = json.loads(planned(trial)["base_beside"])
    said = [whole(each, 1) or 0 for each in listed(outcome.get("base_beside"))]
    there = [int(m[1]) for path in home.iterdir() if (m := sums.BASE_LINES.fullmatch(path.name))]
    if not asked == sorted(there) == sorted(said):
        beside = " and of ".join(map(str, sorted(there))) or "none"
        raise BrokenSteps(f"the base case beside it has lines of batch {beside}, planned were {asked}")
    return [_read(home, batch, outcome.get("base_case"), count, then) for batch in asked]


def _read(home: Path, batch: int, strategy: Any, count: int, then: Mapping[str, sums.Sum] | None) -> Companion:
    report, fault = read_json(home / f"base-{batch}.json")
    if report is None:
        raise BrokenSteps(fault or f"base-{batch}.json is missing")
    if report.get("batch") != batch or report.get("strategy") != strategy:
        raise BrokenSteps(f"base-{batch}.json is the report of another base case than the outcome says")
    name = f"base-{batch}.jsonl"
    try:
        found = phases(read_lines({0: home / name}, then), None)
    except BrokenSteps as error:
        raise BrokenSteps(str(error) if name in str(error) else f"{name}: {error}") from None
    steps = found.get("base")
    if steps is None or len(found) != 1 or steps.block is None:
        raise BrokenSteps(f"{name} holds other steps than a base case's in blocks")
    if steps.rounds != count:
        raise BrokenSteps(f"{name} is of {steps.rounds} rounds, but {count} were planned")
    if (steps.samples != batch).any():
        raise BrokenSteps(f"{name}: a step has other samples than {batch}")
    return Companion(batch, steps, _awake(report, batch, count))


def _awake(report: Mapping[str, Any], batch: int, count: int) -> frozenset[int]:
    turns = [mapping(turn) for turn in listed(report.get("turns")) if mapping(turn).get("block") != 0]
    if sorted(whole(turn.get("block")) or 0 for turn in turns) != list(range(1, count + 1)):
        raise BrokenSteps(f"base-{batch}.json does not have one turn in each of its {count} rounds")
    found = set()
    for turn in turns:
        here = turn["block"]
        if (number(turn.get("ranks_cpu_seconds")) or 0.0) > ASLEEP_SECONDS:
            found.add(here)
        # Since its turn before, so while the ranks were at work in either round.
        if (number(turn.get("own_cpu_seconds_asleep")) or 0.0) > ASLEEP_SECONDS:
            found |= {here, max(1, here - 1)}
    return frozenset(found)


def unused(companions: Sequence[Companion]) -> frozenset[int]:
    """The rounds that are left out, of all that the launch measured."""
    return frozenset().union(*(companion.awake for companion in companions))


def used(home: Path, found: Mapping[str, Steps]) -> dict[str, Steps]:
    """The phases of a launch in blocks without its rounds that are not used."""
    trial, outcome = (read_json(home / name)[0] or {} for name in ("trial.json", "outcome.json"))
    out = unused(read(home, trial, outcome))
    return {phase: steps.without(out) for phase, steps in found.items()}


def measure(
    found: Mapping[str, Steps], companions: Sequence[Companion], global_batch: int, workers: int
) -> dict[str, Any]:
    """The columns BESIDE of a launch in blocks, beside those of `planned`; `found` are its phases."""
    out = unused(companions)
    costs = {companion.batch: companion.cost(out) for companion in companions}
    alike = {phase: steps.without(out) for phase, steps in found.items()}
    bases = [companion.steps.without(out) for companion in companions]
    alone = alike.pop("compute_only", None)
    of_blocks: list[Floats] = [blocks_of(steps) for steps in (*alike.values(), *bases)]
    if alone is not None and alone.block is not None:
        of_blocks.append(rounds.means(alone.seconds.mean(axis=0), alone.block))
    return {
        "base_whole_cost": costs.get(global_batch),
        "base_each_cost": costs.get(global_batch // workers),
        "base_still_seconds": max((longest_still(base.seconds) for base in bases), default=None),
        "rounds": next(iter(found.values())).rounds,
        "rounds_unused": len(out),
        "blocks_off": sum(map(rounds.off, of_blocks)),
    }
