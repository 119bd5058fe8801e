"""A Ray cluster of several nodes on this machine, and what the tests do to it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cluster.ray.child import OWN_CLUSTER
from jobs.machine.network import master_port

RAY = Path(sys.executable).with_name("ray")
STARTED = "Ray runtime started."
# The nodes' own, which must not reach a rank; nor must the folder in which they are started.
OF_THE_NODES = {"SET_ON_NODES": "1", "OMP_NUM_THREADS": "7"}


@dataclass
class Cluster:
    """Nodes are started one after the other, as they race for a socket's name, and ended by their
    process ids: `ray stop` would end every Ray of the machine."""

    folder: Path
    address: str = ""
    nodes: list[subprocess.Popen[str]] = field(default_factory=list)
    cpus: int = 2
    gpus: int = 2  # none are there: Ray only counts them

    @property
    def token(self) -> Path:
        return self.folder / "token"

    def environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        return clean | OWN_CLUSTER | {"RAY_AUTH_TOKEN_PATH": str(self.token), "RAY_worker_niceness": "0"}

    def processes(self) -> list[psutil.Process]:
        return [process for node in self.nodes for process in of_session(node.pid)]

    def actors(self) -> list[psutil.Process]:
        """Ray's workers that hold a rank."""
        return [process for process, command in self.commands() if "ray::Rank" in command]

    def commands(self) -> list[tuple[psutil.Process, str]]:
        """The cluster's processes, but for what ends meanwhile, with their command lines."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                found.append((process, " ".join(process.cmdline())))
        return found

    def add(self) -> None:
        """Start one more node; the first is the head."""
        port = master_port()
        where = (
            [f"--address={self.address}"]
            if self.address
            else ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={self.folder / 'ray'}"]
        )
        command = [RAY, "start", "--block", f"--num-cpus={self.cpus}", f"--num-gpus={self.gpus}", *where]
        process = subprocess.Popen(
            [*map(str, command), "--object-store-memory=80000000"],
            env=self.environment() | OF_THE_NODES,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        self.nodes.append(process)
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "Local node IP:" in line and not self.address:
                self.address = f"{line.split()[-1]}:{port}"
            if STARTED in line:
                return
        raise AssertionError("".join(said))

    def raylet(self, index: int) -> psutil.Process:
        (found,) = [p for p in psutil.Process(self.nodes[index].pid).children() if p.name() == "raylet"]
        return found

    def end(self, index: int) -> None:
        """Kill a node with all that belongs to it; its agents would stay for half a minute."""
        node = self.nodes.pop(index)
        while left := of_session(node.pid):
            for process in left:
                process.kill()
            psutil.wait_procs(left, timeout=10)
        node.wait(10)
        assert node.stdout is not None
        node.stdout.close()

    def close(self) -> None:
        while self.nodes:
            self.end(len(self.nodes) - 1)


def started(folder: Path, nodes: int, cpus: int = 2) -> Cluster:
    """A cluster in `folder`, whose path must be short."""
    cluster = Cluster(folder, cpus=cpus)
    descriptor = os.open(cluster.token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    try:
        for _ in range(nodes):
            cluster.add()
    except BaseException:
        cluster.close()
        raise
    return cluster


def short_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)


def of_session(leader: int) -> list[psutil.Process]:
    """The living processes of the session that `leader` leads or led."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getsid(process.pid) == leader and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        except ProcessLookupError:
            continue
    return found


def kill(process: psutil.Process) -> None:
    os.kill(process.pid, signal.SIGKILL)
