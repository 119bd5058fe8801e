"""The sampler of one node: what its cores, GPUs and network do while a trial runs, and who else uses them.

    python -P -m jobs.telemetry.sampler PLAN        (the worker of local rank 0 starts it; see start.py)

A process of its own, on cores that no worker has where the node has such, at the lowest priority. It dies
with that worker and writes `telemetry-<host>.jsonl` into the trial's folder, a line per sample, from memory
every few seconds: the folder may be on a slow file system that all ranks use. What cannot be read is null
and has a note that says why, once. Nothing that goes wrong here is worth a trial.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.rank.parent import die_with_parent
from jobs.telemetry.lines import Lines
from jobs.telemetry.plan import Plan, Sampled

if TYPE_CHECKING:
    from jobs.telemetry.gpu import Gpus

HUNG_SECONDS = 60.0  # in one sample, as in a driver that does not answer: then it ends itself


def run(plan: Plan) -> None:
    """Sample until SIGTERM, which must be blocked."""
    from jobs.telemetry import cpu

    lines = Lines(Path(plan.file))
    cpus, shares = cpu.settle(plan.mask, {core for rank in plan.ranks for core in rank.cpus})
    gpus = _gpus(plan, lines)
    node = cpu.Node(plan, lines.note)
    lines.begin(
        host=plan.host,
        node_rank=plan.node_rank,
        hertz=plan.hertz,
        sampler_cpus=cpus,
        shares_cores=shares,
        ranks=[
            {"rank": r.rank, "pid": r.pid, "cpus": r.cpus, "gpus": gpus.of(r.devices) if gpus else []}
            for r in plan.ranks
        ],
        gpus=gpus.found if gpus else [],
        interfaces=node.interfaces,
        cpus=os.cpu_count(),
    )
    period, due, count, start_up = 1 / plan.hertz, time.monotonic(), 0, time.process_time()
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    asked = False
    while True:
        signal.setitimer(signal.ITIMER_REAL, HUNG_SECONDS + period)  # its default action ends the process
        lines.add("sample", **node.sample(), gpus=gpus.sample() if gpus else [])
        count += 1
        if asked:
            break
        lines.flush(time.monotonic())
        due = max(due + period, time.monotonic())
        told = signal.sigtimedwait({signal.SIGTERM}, max(0.0, due - time.monotonic()))
        # Python answers with an empty record, not with None, after a stop (SIGSTOP) past the time-out.
        asked = told is not None and told.si_signo == signal.SIGTERM
    cost = round(time.process_time() - start_up, 4)
    lines.add("end", samples=count, cpu_seconds=cost, start_cpu_seconds=round(start_up, 4))
    lines.flush()


def _gpus(plan: Plan, lines: Lines) -> Gpus | None:
    """The GPUs that the ranks may use; None if none may use any, and then no driver is asked."""
    if all(rank.devices == "" for rank in plan.ranks):
        return None
    try:
        from jobs.telemetry import gpu

        return gpu.Gpus([rank.devices for rank in plan.ranks], lines.note)
    except (ImportError, AttributeError) as error:
        lines.note("gpus", f"pynvml is not nvidia-ml-py's: {error}")
        return None


def main(arguments: list[str]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    die_with_parent(signal.SIGTERM)  # which lets it write what it holds
    content = json.loads(arguments[0])
    run(Plan(**content | {"ranks": [Sampled(**rank) for rank in content["ranks"]]}))


if __name__ == "__main__":
    main(sys.argv[1:])
