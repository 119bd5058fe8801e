"""The plain base case on batches of one size, beside a launch: `python -P -m jobs.companion TRIAL_DIR BATCH`.

It lives as a rank of a single process does, on one worker's cores, but trains only when it is told to
(jobs/beside/turns.py), a block at a time. At the end it leaves base-BATCH.jsonl, its step lines, and base-BATCH.json,
what it says of itself.
"""

from __future__ import annotations

import gc
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from jobs.rank.parent import die_with_parent

if TYPE_CHECKING:
    from jobs.contract.trial import Trial
    from jobs.workloads.meter import Meter
    from jobs.workloads.startup import Laps


class Unwatched:
    """A watchdog that never strikes: who changes turns sees to it that this process does not stand still."""

    due = math.inf

    def allow(self, seconds: float) -> None: ...

    def beat(self) -> None: ...


def alone(trial: Trial, batch: int) -> Trial:
    """The trial of the base case that this process is."""
    from jobs.contract.catalog import STRATEGIES

    base = {"strategy": STRATEGIES[trial.strategy].base_case, "workers": 1, "global_batch": batch, "base_batches": ()}
    return trial.model_copy(update=base)


def run(folder: Path, batch: int, orders: IO[str], answers: IO[str]) -> None:
    from jobs import worker
    from jobs.contract.environment import RankEnvironment
    from jobs.contract.files import TRIAL
    from jobs.contract.folder import read_trial

    place = RankEnvironment()
    here = json.loads((folder / TRIAL).read_text(encoding="utf-8"))
    worker.settle(here | {"workers": 1}, place)

    from jobs.contract.catalog import STRATEGIES
    from jobs.data import dataset, load
    from jobs.rank.rendezvous import Rendezvous
    from jobs.strategies.interface import Context
    from jobs.workloads.meter import Meter
    from jobs.workloads.startup import Laps

    laps = Laps()
    told = read_trial(folder)
    trial = alone(told, batch)
    steps, k = trial.steps, trial.recipe.steps_per_call
    assert steps.blocks
    if trial.data.kind == "images":  # which the ranks have decoded
        from jobs.contract.catalog import MODELS
        from jobs.data import folder as images_folder

        images = images_folder.find(trial.data, MODELS[trial.recipe.model], lambda: None).load()
    else:
        images = load.load(trial.data, trial.seed, trial.recipe.model)
    meeting = Rendezvous(place, trial.id, trial.limits.startup)
    strategy = STRATEGIES.constant(trial.strategy, "STRATEGY")(Context(trial, images, meeting))
    strategy.prepare()
    gc.freeze()
    gc.enable()
    strategy.build()
    calls = 1 + told.base_calls(batch)
    count = steps.warmup + steps.blocks * calls * k
    order = dataset.batch_indices(len(images.train_labels), batch, count, trial.seed)
    meter = Meter("base", order, steps.warmup, k, steps.blocks)
    meter.warm_up(strategy.train, Unwatched(), trial.limits.hang)
    laps.lap("start")

    def say(**what: object) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    warm = meter.recording.seconds[1 : meter.done]  # the first call traces and compiles
    say(turn_seconds=float(warm[len(warm) // 2 :].mean()) * calls if len(warm) else 0.0)
    for line in orders:
        asked = json.loads(line)
        if "turns" in asked:
            leave(folder, trial, meter, laps, asked["turns"])
            say(ended=True)
            break
        meter.run_block(strategy.train, Unwatched(), trial.limits.hang)
        say(block=asked["block"])


def leave(folder: Path, trial: Trial, meter: Meter, laps: Laps, turns: Sequence[dict[str, Any]]) -> None:
    """Write the step lines and the report. `turns` is what was seen of each from outside."""
    from jobs.contract.files import base_file, write_atomically
    from jobs.machine import provenance

    times = {block.block: {"begin_unix": block.begin_unix, "end_unix": block.end_unix} for block in meter.blocks}
    lines = [json.dumps(row) + "\n" for row in meter.rows()]
    write_atomically(base_file(folder, trial.global_batch, "jsonl"), "".join(lines))
    said = {
        "strategy": trial.strategy,
        "batch": trial.global_batch,
        "pid": os.getpid(),
        "threads": trial.threads_per_worker,
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "startup_seconds": laps.seconds["start"],
        "first_step_seconds": float(meter.recording.seconds[0]),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "turns": [turn | times[turn["block"]] for turn in turns],
    }
    write_atomically(base_file(folder, trial.global_batch, "json"), json.dumps(said, indent=1) + "\n")


def main(arguments: list[str]) -> None:
    die_with_parent()
    gc.disable()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    code = 0
    try:
        run(Path(arguments[0]), int(arguments[1]), sys.stdin, answers)
    except BaseException as error:
        from jobs.worker import say_why

        code = 1
        say_why(error)
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
