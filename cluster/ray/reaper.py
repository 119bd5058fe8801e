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
import time
from collections.abc import Callable
from pathlib import Path

LOOK_AGAIN_SECONDS = 0.05  # where a process cannot be waited for


def end_after(pid: int, folder: Path) -> None:
    """When the process `pid`, which leads a session, has ended: kill what is left of the session and
    remove `folder`. Ray's agents outlive their raylet by half a minute otherwise."""
    with contextlib.suppress(ProcessLookupError):
        _end_of(pid)()
    while left := _of_session(pid):
        ends = []
        for each in left:
            with contextlib.suppress(ProcessLookupError):
                ends.append(_end_of(each))
                os.kill(each, signal.SIGKILL)
        for wait in ends:
            wait()
    shutil.rmtree(folder, ignore_errors=True)


def _end_of(pid: int) -> Callable[[], None]:
    """What waits until the process has ended. Raises ProcessLookupError if there is none."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except (AttributeError, OSError):  # a Python built without pidfds, or a kernel before Linux 5.3
        return lambda: _look_until_it_ends(pid)

    def wait() -> None:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        poller.poll()
        os.close(descriptor)

    return wait


def _look_until_it_ends(pid: int) -> None:
    while _stat(Path("/proc", str(pid)))[0] not in ("Z", "X", ""):
        time.sleep(LOOK_AGAIN_SECONDS)


def _stat(entry: Path) -> list[str]:
    """Of a process: its state, parent, group and session (proc(5)); an empty state if it is gone."""
    with contextlib.suppress(OSError):
        return (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
    return ["", "0", "0", "0"]


def _of_session(session: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            state, _, _, its = _stat(entry)
            if int(its) == session and state not in ("Z", "X", ""):
                found.append(int(entry.name))
    return found


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m cluster.ray.reaper PID FOLDER")
    end_after(int(sys.argv[1]), Path(sys.argv[2]))
