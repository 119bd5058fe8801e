"""Run by every Python that is started with this folder in PYTHONPATH; does something in ranks only, and in the base
case beside them."""

import os
import sys

if sys.orig_argv[-3:-1] == ["-m", "jobs.worker"]:
    if "SCALING_TEST_FORGES" in os.environ:
        import rank_by_fork

        rank_by_fork.main(sys.orig_argv[-1])
    if "SCALING_TEST_BARE" in os.environ:
        import bare_ranks

        bare_ranks.instead_of_frameworks()

if sys.orig_argv[-4:-2] == ["-m", "jobs.companion"] and "SCALING_TEST_BARE" in os.environ:
    import bare_ranks

    bare_ranks.instead_of_frameworks()
