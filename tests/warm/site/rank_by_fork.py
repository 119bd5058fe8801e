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
    """A rank without a forge fails: it is not to start as ever, unnoticed."""
    with open(os.path.join(folder, "trial.json"), encoding="utf-8") as file:
        framework = json.load(file)["strategy"].partition("-")[0]
    address = os.path.join(os.environ["SCALING_TEST_FORGES"], framework)
    forge = socket.socket(socket.AF_UNIX)
    try:
        forge.connect(address)
    except OSError as error:
        print(f"no forge listens at {address}: {error}", flush=True)
        os._exit(1)
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
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.stdout.flush()
    os._exit(code)
