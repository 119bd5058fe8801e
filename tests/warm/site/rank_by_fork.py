"""What a rank's process does where ranks are forked: asks its forge for a rank, and ends as that one ends.

Imports little, since every rank waits for it.
"""

import json
import os
import signal
import socket
import sys
from typing import NoReturn


def main(folder: str) -> NoReturn:
    """Does not return, but where the trial's framework has no forge: then the rank starts as ever."""
    with open(os.path.join(folder, "trial.json"), encoding="utf-8") as file:
        framework = json.load(file)["strategy"].partition("-")[0]
    address = os.path.join(os.environ["SCALING_TEST_FORGES"], framework)
    forge = socket.socket(socket.AF_UNIX)
    try:
        forge.connect(address)
    except OSError:
        return  # type: ignore[misc]
    request = {
        "folder": folder,
        "cwd": os.getcwd(),
        "environment": dict(os.environ),
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "cores": sorted(os.sched_getaffinity(0)),
    }
    socket.send_fds(forge, [len(text := json.dumps(request).encode()).to_bytes(4, "big")], [0, 1, 2])
    forge.sendall(text)
    code = int(forge.makefile().readline() or "1")
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    sys.stdout.flush()
    os._exit(code)
