"""What trials take of a cluster: nodes, tasks, CPUs, GPUs, minutes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.slurm.options import SlurmOptions, seconds_of
from jobs.contract.trial import Trial

# What a job needs beside its trial: to start, to end its ranks when time is up, to write its files.
SPARE_SECONDS = 120


@dataclass(frozen=True)
class Size:
    """What one trial takes: `tasks` processes over `nodes` nodes; CPUs and GPUs are of one process."""

    nodes: int
    tasks: int
    tasks_per_node: int
    cpus_per_task: int
    gpus_per_task: int

    @property
    def gpus_per_node(self) -> int:
        """Asked for by node, as SLURM would hide from each task the GPUs of the others if asked by task: NCCL
        does not find its peers then, and the node's sampler counts one GPU for all."""
        return self.tasks_per_node * self.gpus_per_task

    def flags(self) -> list[str]:
        """As options of sbatch and srun."""
        gpus = [f"--gpus-per-node={self.gpus_per_node}"] if self.gpus_per_task else []
        return [
            f"--nodes={self.nodes}",
            f"--ntasks={self.tasks}",
            f"--ntasks-per-node={self.tasks_per_node}",
            f"--cpus-per-task={self.cpus_per_task}",
            *gpus,
        ]


def size_of(trial: Trial, options: SlurmOptions) -> Size:
    """The nodes are filled one after the other; a process with several workers takes CPUs for each."""
    workers_each = trial.workers // trial.processes
    per_node = min(trial.processes, max(1, options.tasks_per_node // workers_each))
    return Size(
        nodes=math.ceil(trial.processes / per_node),
        tasks=trial.processes,
        tasks_per_node=per_node,
        cpus_per_task=workers_each * (options.cpus_per_task or trial.threads_per_worker),
        gpus_per_task=trial.gpus_per_process,
    )


def largest(sizes: Sequence[Size], options: SlurmOptions) -> Size:
    """The size of an allocation in which all of `sizes` fit."""
    nodes = max(s.nodes for s in sizes)
    per_node = max(s.tasks_per_node * s.cpus_per_task for s in sizes)
    gpus = max(s.tasks_per_node * s.gpus_per_task for s in sizes)
    each = max(s.tasks_per_node for s in sizes)
    return Size(nodes, nodes * each, each, math.ceil(per_node / each), math.ceil(gpus / each))


def time_limit(options: SlurmOptions, trials: Sequence[Trial]) -> int:
    """Minutes of a job: the study's `time`, or what the longest of its trials may take and some more."""
    longest = max(trial.limits.trial for trial in trials)
    seconds = seconds_of(options.time) if options.time is not None else longest + SPARE_SECONDS
    return math.ceil(seconds / 60)
