"""One rank of a SLURM step: `srun … python -P -m cluster.slurm.rank TRIAL_DIR`.

SLURM's own variables become the rank environment, and cores that no other rank has become this one's; then
the rank's keeper takes over.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from jobs.contract.environment import RankEnvironment, RendezvousError, rank_variables
from jobs.contract.files import TRIAL
from jobs.machine import cores
from jobs.rank import keeper


def place_of(variables: Mapping[str, str]) -> RankEnvironment:
    """The place of this task of a step, from srun(1)'s output environment variables.

    The STEP variables are read, as the others describe the whole allocation. Raises RendezvousError.
    """
    try:
        node = int(variables["SLURM_NODEID"])
        return RankEnvironment(
            rank=int(variables["SLURM_PROCID"]),
            world_size=int(variables["SLURM_STEP_NUM_TASKS"]),
            local_rank=int(variables["SLURM_LOCALID"]),
            local_world_size=tasks_per_node(variables["SLURM_STEP_TASKS_PER_NODE"])[node],
            node_rank=node,
            master_addr=variables["MASTER_ADDR"],
            master_port=int(variables["MASTER_PORT"]),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise RendezvousError(f"not a task of a SLURM step as this project starts one: {error!r}") from None


def tasks_per_node(text: str) -> list[int]:
    """`2(x3),1` ─▶ [2, 2, 2, 1]. Raises ValueError."""
    counts = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise ValueError(f"SLURM_STEP_TASKS_PER_NODE is {text!r}")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit("usage: srun … python -m cluster.slurm.rank TRIAL_DIR")
    folder, place = Path(arguments[0]), place_of(os.environ)
    trial = json.loads((folder / TRIAL).read_text(encoding="utf-8"))
    held = cores.claim_share(trial, place.world_size, place.local_rank)
    keeper.main(folder, rank_variables(place))
    del held  # not reached: the claims are this process's for as long as it lives


if __name__ == "__main__":
    main(sys.argv[1:])
