"""The phases of a launch by turns: in each round a block of each, in an order that is drawn anew."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.contract.trial import Trial
    from jobs.strategies.interface import Strategy
    from jobs.workloads.meter import Meter
    from jobs.workloads.startup import Rank


def order(trial: Trial) -> list[list[str | int]]:
    """For each round the phases in their order, the same on all ranks; a number is a turn of the base case on batches
    of that size."""
    draw, steps = random.Random(f"{trial.seed}/{trial.repeat}"), trial.steps
    phases: list[str | int] = ["train", *(["compute_only"] if steps.compute_only else []), *trial.base_batches]
    return [draw.sample(phases, len(phases)) for _ in range(steps.blocks or 0)]


def run(rank: Rank[Any], strategy: Strategy, train: Meter, compute_only: Meter, variables: Mapping[str, str]) -> None:
    """Warm up, and do all rounds. `variables` are the environment that the base case starts with."""
    from jobs.beside.handover import beside

    trial, watchdog, meeting, clock = rank.trial, rank.watchdog, rank.rendezvous, strategy.clock
    hang = trial.limits.hang
    train.warm_up(strategy.train, watchdog, hang, clock)
    if trial.steps.compute_only:
        watchdog.allow(trial.limits.startup)
        strategy.copy_state()
        meeting.barrier()
        compute_only.warm_up(strategy.compute_only, watchdog, hang, clock)
    with beside(trial, rank.folder, meeting, watchdog, variables) as give_turn:
        for number, phases in enumerate(order(trial), start=1):
            for phase in phases:
                if isinstance(phase, int):
                    give_turn(phase, number)
                    continue
                meeting.barrier()
                if phase == "train":
                    train.run_block(strategy.train, watchdog, hang, clock)
                else:
                    compute_only.run_block(strategy.compute_only, watchdog, hang, clock)
