"""What ends a cluster of our own for good: `python -P -m cluster.ray.reaper PID FOLDER`.

The cluster is part of the session that the process PID (cluster/ray/process.py) leads. This process
stands outside of it, and so sees to it that nothing is left, however that one ended.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
from pathlib import Path


def end_after(pid: int, folder: Path) -> None:
    """When the process `pid`, which leads a session, has ended: kill what is left of the session and
    remove `folder`. Ray's agents outlive their raylet by half a minute otherwise."""
    with contextlib.suppress(ProcessLookupError):
        _await_ends([os.pidfd_open(pid)])
    while left := _of_session(pid):
        descriptors = []
        for each in left:
            with contextlib.suppress(ProcessLookupError):
                descriptors.append(os.pidfd_open(each))
                os.kill(each, signal.SIGKILL)
        _await_ends(descriptors)
    shutil.rmtree(folder, ignore_errors=True)


def _await_ends(descriptors: list[int]) -> None:
    """Return when all the processes have ended."""
    for descriptor in descriptors:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        poller.poll()
        os.close(descriptor)


def _of_session(session: int) -> list[int]:
    """The living processes of a session (proc(5), stat: state, ppid, pgrp, session)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, _, _, its, *_ = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(its) == session and state not in ("Z", "X"):
                    found.append(int(entry.name))
    return found


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m cluster.ray.reaper PID FOLDER")
    end_after(int(sys.argv[1]), Path(sys.argv[2]))
