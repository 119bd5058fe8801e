"""cluster/slurm/rank.py under the name by which a job that version 0.1 began starts the ranks of its next trial."""

import runpy

if __name__ == "__main__":
    runpy.run_module("cluster.slurm.rank", run_name="__main__")
