"""cluster/slurm/rank.py under the name by which a job that version 0.1.0 began starts the ranks of its next trial."""

import sys

from cluster.slurm.rank import main

if __name__ == "__main__":
    main(sys.argv[1:])
