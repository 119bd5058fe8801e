"""A process that dies with the one that started it: a rank, a sampler, what talks to Ray.

python -P -m jobs.rank.parent MODULE ARGUMENTS        run a module so
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

# A launcher that lives as long as the trial gives its own pid: the rank then dies with it.
PARENT = "SCALING_PARENT_PID"
PR_SET_PDEATHSIG = 1


def die_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """Be sent `by` when the process that started this one dies, however it dies (prctl(2), PR_SET_PDEATHSIG)."""
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, by)
    if os.getppid() != int(parent):  # it died before the line above
        os._exit(1)


if __name__ == "__main__":
    import runpy

    die_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
