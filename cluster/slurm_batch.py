"""cluster/slurm/batch.py under the name by which scripts of version 0.1 call it, which may wait in a queue."""

import runpy

if __name__ == "__main__":
    runpy.run_module("cluster.slurm.batch", run_name="__main__")
