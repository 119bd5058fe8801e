"""A process that has imported a framework and forks a rank whenever it is asked to.

    python -m tests.warm.forge FOLDER FRAMEWORK      listens at FOLDER/FRAMEWORK (torch, tf or jax)

Single-threaded, as a process must be that forks: its frameworks are imported and not used.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from jobs.rank.parent import PARENT, die_with_parent

# Beside what the strategies' own files import. The order is a rank's.
IMPORTS = {
    "torch": ("torch", "torch._dynamo", "torch.distributed", "torch.nn.parallel", "horovod.torch"),
    "tf": ("keras", "horovod.tensorflow"),
    "jax": ("jax", "optax"),
}
OURS = (
    "jobs.data.load",
    "jobs.data.reading",
    "jobs.machine.provenance",
    "jobs.rank.rendezvous",
    "jobs.rank.watchdog",
    "jobs.telemetry.sampler",
    "jobs.workloads.accuracy",
    "jobs.workloads.infer",
    "jobs.workloads.ingest",
    "jobs.workloads.meter",
    "jobs.workloads.reporting",
    "jobs.workloads.startup",
    "jobs.workloads.train",
)


def load(framework: str) -> dict[str, str]:
    """Import all that a rank of the framework will want, as it would: no garbage is looked for meanwhile.

    Returns the variables that the imports have set.
    """
    before = dict(os.environ)
    gc.disable()
    for name in OURS:
        importlib.import_module(name)
    if framework == "tf":
        from jobs.strategies.tf import device

        device.tensorflow()
    for name in IMPORTS[framework]:
        if name.partition(".")[0] != "horovod" or importlib.util.find_spec("horovod"):
            importlib.import_module(name)
    for file in Path(importlib.import_module(f"jobs.strategies.{framework}").__path__[0]).glob("*.py"):
        if file.stem != "xla":
            importlib.import_module(f"jobs.strategies.{framework}.{file.stem}")
    gc.freeze()
    return {name: value for name, value in os.environ.items() if before.get(name) != value}


def become_the_rank(request: dict[str, Any], files: list[int], imported: dict[str, str]) -> NoReturn:
    """In the child: take on all that the process which asked would have given a rank, and be one."""
    from jobs import worker

    os.setsid()
    for target, source in enumerate(files):
        os.dup2(source, target)
    os.closerange(3, 1024)
    os.environ.clear()
    os.environ.update(request["environment"] | imported)
    os.environ[PARENT] = str(os.getppid())
    os.chdir(request["cwd"])
    os.setpriority(os.PRIO_PROCESS, 0, request["niceness"])
    os.sched_setaffinity(0, request["cores"])
    sys.argv = ["jobs.worker", request["folder"]]
    worker.main(sys.argv[1:])
    os._exit(1)  # not reached


def receive(asking: socket.socket) -> tuple[dict[str, Any], list[int]]:
    length, files, _, _ = socket.recv_fds(asking, 4, 3)
    left = int.from_bytes(length, "big")
    text = b""
    while len(text) < left:
        text += asking.recv(left - len(text))
    return json.loads(text), files


def serve(listener: socket.socket, imported: dict[str, str]) -> None:
    """Forever: fork for who asks, tell how the rank ended, and end the rank of who is gone."""
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    children: dict[int, tuple[int, socket.socket]] = {}  # by the pidfd
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                asking, _ = listener.accept()
                request, files = receive(asking)
                if (pid := os.fork()) == 0:
                    become_the_rank(request, files, imported)
                for file in files:
                    os.close(file)
                ending = os.pidfd_open(pid)
                children[ending] = (pid, asking)
                selector.register(ending, selectors.EVENT_READ)
                selector.register(asking, selectors.EVENT_READ, pid)
            elif isinstance(key.fileobj, socket.socket):  # nothing more is said by it: it is gone
                selector.unregister(key.fileobj)
                try:
                    os.killpg(key.data, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            elif key.fileobj in children:
                pid, asking = children.pop(key.fd)
                selector.unregister(key.fileobj)
                if asking in selector.get_map():
                    selector.unregister(asking)
                os.close(key.fd)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                try:
                    asking.sendall(f"{code}\n".encode())
                except OSError:
                    pass
                asking.close()


def main(folder: str, framework: str) -> None:
    die_with_parent()
    imported = load(framework)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.join(folder, framework))
    listener.listen(64)
    print("ready", flush=True)
    serve(listener, imported)


if __name__ == "__main__":
    main(*sys.argv[1:])
