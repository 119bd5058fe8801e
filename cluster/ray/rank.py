"""One rank on Ray: the actor that stands for it, and the process that the actor starts.

The actor runs in whatever Python started Ray on its node. It is sent by value and uses the standard
library alone, so nothing of ours need be importable there. The process it starts runs in the driver's
interpreter, folder and environment, like a rank of any other launcher:

    python -P -m cluster.ray.rank TRIAL_DIR         keep one rank (jobs/rank/keeper.py)
    python -P -m cluster.ray.rank --look            print what this node has, as JSON
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

PARENT = "SCALING_PARENT_PID"  # as jobs/rank/parent.py reads it
NICENESS = "SCALING_NICENESS"  # the driver's, which a rank is to have too
# What Ray sets for an actor to say which accelerators are its own; all else is the driver's environment.
DEVICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS")
TRIES = 5  # to have a folder that no other process removes as it is made
FORCE_SECONDS = 6.0  # that a keeper has to end its rank when asked; it takes 2 s at most


def _machine() -> str:
    """As jobs/rank/scratch.py: how the names begin of the folders whose locks can be seen here."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read(64).replace("-", "")[:12]
    return os.uname().nodename[:20]


class Rank:
    """The actor of one rank. It ends the rank when asked, and when nobody has asked for `lease` s.

    Of an actor on a node that was cut off nobody can ask anything any more; its rank must not stay.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._heard = time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        self._over = threading.Event()
        self._asked = False
        self._own: str | None = None
        self._lock = -1
        self._folder = self._prefix = ""

    def begin(
        self, node: str, command: list[str], variables: dict[str, str], cwd: str, folder: str, trial: str | None
    ) -> str:
        """Start the rank in the trial's folder. Returns what is wrong with this node, empty if nothing is.

        Raises RuntimeError where another try may do better: if Ray has put the actor on another node than the one
        with the id `node`, for which the rank has its number, or if the port where rank 0 is to be met is taken.
        With `trial`, the text of trial.json, the folder is one of this node alone, which then has the
        same name; without it, the folder is the driver's.
        """
        import ray

        self._heard = time.monotonic()
        if (here := ray.get_runtime_context().get_node_id()) != node:
            raise RuntimeError(f"node {node[:8]} has died, and Ray has put this actor on {here[:8]}")
        if trial is not None:
            self._own = self._folder_here()
            folder = os.path.join(self._own, os.path.basename(folder))
            os.mkdir(folder)
            Path(folder, "trial.json").write_text(trial, encoding="utf-8")
        elif not os.path.exists(os.path.join(folder, "trial.json")):
            return not_seen(folder)
        if variables["RANK"] == "0" and (port := int(variables["MASTER_PORT"])):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((variables["MASTER_ADDR"], port))
                except OSError as error:
                    where = f"port {port} of {variables['MASTER_ADDR']}: {error.strerror}"
                    if error.errno == errno.EADDRINUSE:
                        raise RuntimeError(where) from None
                    return f"cannot listen at {where}; `ray start --node-ip-address` tells Ray an IPv4 address of it"
        self._folder, self._prefix = folder, f"rank-{int(variables['RANK']):05d}."
        devices = {name: os.environ[name] for name in DEVICES if name in os.environ}
        environment = variables | devices | {PARENT: str(os.getpid())}
        begun: list[str] = []
        ready = threading.Event()
        # The thread that starts the rank stays until it has ended: a rank dies with it (prctl(2)).
        threading.Thread(target=self._tend, args=([*command, folder], environment, cwd, begun, ready)).start()
        ready.wait()
        return begun[0] if begun else ""

    def _folder_here(self) -> str:
        """A folder of this node's, and a lock on it: without one it goes as those of jobs/rank/scratch.py do."""
        home = os.path.join(tempfile.gettempdir(), f"scaling-{os.getuid()}")
        for _ in range(TRIES):
            with contextlib.suppress(FileNotFoundError):  # removed by another process: it was empty, or not locked yet
                with contextlib.suppress(FileExistsError):
                    os.mkdir(home, 0o700)
                found = os.lstat(home)
                safe = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
                return self._locked(tempfile.mkdtemp(prefix=f"{_machine()}-rank-", dir=home if safe else None))
        return self._locked(tempfile.mkdtemp(prefix="rank-"))

    def _locked(self, folder: str) -> str:
        """The folder, once it is locked. Raises FileNotFoundError if it went before."""
        self._lock = os.open(folder, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a network file system
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            os.stat(folder)
        except FileNotFoundError:
            os.close(self._lock)
            raise
        return folder

    def _tend(
        self, command: list[str], environment: dict[str, str], cwd: str, trouble: list[str], ready: threading.Event
    ) -> None:
        said = Path(self._folder, f"{self._prefix}keeper")
        try:
            with said.open("wb") as log:
                process = subprocess.Popen(
                    command,
                    env=environment,
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            trouble.append(f"cannot start {command[0]} in {cwd}: {error}")
            ready.set()
            return
        self._process = process
        ready.set()
        forced = None
        while True:
            try:
                process.wait(1.0)
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() - self._heard > self._lease:
                    self.end()
                if self._asked:
                    forced = forced or time.monotonic() + FORCE_SECONDS
                    if time.monotonic() > forced:
                        os.killpg(process.pid, signal.SIGKILL)
        if not said.stat().st_size:
            said.unlink()
        self._over.set()

    def news(self, seconds: float) -> dict[str, Any] | None:
        """How the rank has ended; None if it has not within `seconds`."""
        self._heard = time.monotonic()
        if not self._over.wait(seconds):
            return None
        assert self._process is not None
        return {"code": self._process.returncode, "asked": self._asked, "files": self._files()}

    def _files(self) -> dict[str, int]:
        """Name and size of what this rank, which has ended, left: others still write in a shared folder.

        What its node's sampler left is its own where the folder is, and so is what the base case beside did."""
        prefixes = (self._prefix, "telemetry-", "base-") if self._own else (self._prefix,)
        with os.scandir(self._folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.name.startswith(prefixes)}

    def read(self, name: str) -> bytes:
        return Path(self._folder, os.path.basename(name)).read_bytes()

    def end(self) -> None:
        """Ask the keeper to end its rank and to write down how it ended."""
        self._heard = time.monotonic()
        if self._process is not None and not self._asked:
            self._asked = True
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)

    def clear(self) -> None:
        """Remove what is on this node alone."""
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(self._own))  # where no other rank has one; another folder is not empty


def not_seen(folder: str) -> str:
    return f"does not see {folder}; set launcher.shared_results: false, or use a folder that all nodes share"


def look(command: list[str], variables: dict[str, str], cwd: str, probe: str | None) -> dict[str, Any]:
    """A task: what the driver's interpreter finds on this node; {"fault": …} if it cannot be run here.

    `probe` is a file of the driver's that must be seen; None where no folder need be shared.
    """
    if probe is not None and not os.path.exists(probe):
        return {"fault": not_seen(os.path.dirname(probe))}
    try:
        done = subprocess.run(
            command, env=variables, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
    except FileNotFoundError as error:
        return {"fault": f"there is no {error.filename}"}
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"fault": f"{command[0]} does not run: {error}"}
    lines = done.stdout.decode(errors="replace").strip().splitlines()
    try:
        found: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return {"fault": f"{command[0]} cannot run this project: {said[-1] if said else 'it said nothing'}"}
    return found


def found_here() -> dict[str, Any]:
    """What must be equal on all nodes: the versions of what is measured, this project's files among them."""
    from jobs.machine.provenance import versions

    project, digest = Path(__file__).resolve().parents[2], hashlib.sha256()
    for path in sorted([*project.glob("jobs/**/*.py"), *project.glob("cluster/ray/rank.py")]):
        digest.update(f"{path.relative_to(project)}\n".encode() + path.read_bytes())
    return {"versions": versions() | {"scaling's files": digest.hexdigest()[:12]}, "niceness": _settle()}


def _settle() -> int:
    """Take the driver's niceness if that is allowed: Ray's own is 15. Returns what it is then."""
    wanted = int(os.environ.pop(NICENESS, "0"))
    try:
        os.setpriority(os.PRIO_PROCESS, 0, wanted)
    except PermissionError:
        pass  # found by the look that every node is given before the first trial
    return os.getpriority(os.PRIO_PROCESS, 0)


def main(arguments: list[str]) -> None:
    if arguments == ["--look"]:
        print(json.dumps(found_here()))
        return
    if len(arguments) != 1:
        sys.exit("usage: python -m cluster.ray.rank TRIAL_DIR")
    from jobs.rank.parent import die_with_parent

    die_with_parent()
    _settle()
    from jobs.contract.environment import RankEnvironment, rank_variables
    from jobs.contract.files import TRIAL
    from jobs.machine import cores
    from jobs.rank import keeper

    folder, place = Path(arguments[0]), RankEnvironment.from_variables(os.environ)
    trial = json.loads((folder / TRIAL).read_text(encoding="utf-8"))
    held = cores.claim_share(trial, place.world_size, place.local_rank)
    keeper.main(folder, rank_variables(place))
    del held  # not reached: the claims are this process's for as long as it lives


if __name__ == "__main__":
    main(sys.argv[1:])
