"""cluster/slurm/batch.py under the name by which scripts of version 0.1.0 call it, which may wait in a queue."""

import sys

from cluster.slurm.batch import main

if __name__ == "__main__":
    main(sys.argv[1:])
