"""ray: trials run on a Ray cluster, one actor and one process for each rank.

`launcher: {kind: ray, …}`, see RayOptions and docs/ray.md. The cluster is the one at
`launcher.address` or RAY_ADDRESS; without either, one is started on this machine and taken down at the
end. What talks to Ray is a child process (cluster/ray/process.py), whose death costs the trials it had
and no more.
"""

from __future__ import annotations

import os
import queue
import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.launcher import Launch, State
from cluster.ray.capacity import Need, Node, what_there_is
from cluster.ray.child import CLOSE_SECONDS, Child
from cluster.ray.options import cores_of, head_address, parse
from cluster.ray.rank import found_here
from cluster.results.folder import LOOK
from cluster.setup import compiler
from cluster.setup.lacking import lacking, why_not
from cluster.study.schema import StudyError
from jobs.contract.exits import Status
from jobs.contract.files import RankExit
from jobs.contract.outcome import conclude, now
from jobs.contract.trial import Trial
from jobs.machine.cores import allowed_cores
from jobs.machine.tpu import TpuError
from jobs.machine.variables import masked

CONNECT_SECONDS = 180.0  # that Ray has to start, or the nodes to be looked at


@dataclass
class _Running:
    launch: Launch
    state: State
    started: str
    beside_another: bool = False


class _Refused(Exception):
    """There is no cluster to be used; the argument is a list of faults, one line each."""


class RayLauncher:
    """Keeps a child that talks to Ray, and writes down what it says."""

    kind = "ray"
    stays = False

    def __init__(self, options: dict[str, Any], results: Path) -> None:
        self._options = parse(options)
        self._address, self._named = self._options.address, "launcher.address"
        given = os.environ.get("RAY_ADDRESS")
        if self._address is None and given not in (None, "", "local"):
            self._named = "RAY_ADDRESS"
            try:
                self._address = head_address(str(given))
            except ValueError as error:
                raise StudyError([f"RAY_ADDRESS: {masked(str(error))}, or unset RAY_ADDRESS"]) from None
        self._results = results.resolve()
        self._child: Child | None = None
        self._known: list[Node] | None = None
        self._faults: list[str] = []
        self._running: dict[str, _Running] = {}
        self._ended: list[str] = []

    # What fits

    def largest(self, threads_per_worker: int, gpus_per_worker: int = 0) -> int:
        need = Need(1, self._options.cpus(threads_per_worker), gpus_per_worker, self._spread)
        return max(1, need.most(self._nodes(gpus_per_worker > 0)))

    @property
    def _spread(self) -> bool:
        return self._options.placement == "spread"

    def tpu_cores(self) -> int:
        raise TpuError("this launcher has no TPUs; take launcher.kind local")

    def unavailable(self, strategy: str) -> str | None:
        return why_not(strategy)

    def elsewhere(self, strategy: str) -> bool:
        return False

    def on_one_host(self, trial: Trial) -> bool:
        return trial.processes == 1 or len(self._nodes(gpus=False)) == 1

    def unfit(self, trial: Trial) -> str | None:
        each, nodes = trial.workers // trial.processes, self._nodes(trial.gpus_per_worker > 0)
        if why := lacking(trial) or (None if self._address else compiler.lacking(trial)):
            return why
        if each == 1 or not nodes:
            return None
        if self._spread:
            return f"its one process holds {each} workers; launcher.placement is spread, one worker on each node"
        if not (need := self._options.need(trial)).most(nodes):
            return f"its one process needs a node with {_words(need)}; the cluster has {what_there_is(nodes)}"
        return None

    def refuse(self, points: Sequence[Trial]) -> list[str]:
        nodes, faults = self._nodes(any(p.gpus_per_worker for p in points)), self._faults
        self._faults = []
        if faults:
            return faults
        given = self._options.cpus_per_worker
        for p in points if given else ():
            if self._options.need(p).cpus < cores_of(p):
                most, what = p.cores
                faults.append(f"launcher.cpus_per_worker: {given} is less than {most} {what}")
        faults = list(dict.fromkeys(faults))
        never = [(p.workers, n) for p in points if (n := self._options.need(p)).most(nodes) < n.count]
        for need in dict.fromkeys(Need(1, n.cpus, n.gpus, n.spread) for _, n in never):
            sizes = sorted({w for w, n in never if (n.cpus, n.gpus) == (need.cpus, need.gpus)})
            where = ", each on a node of its own," if need.spread else ""
            faults.append(
                f"workers: {', '.join(map(str, sizes))} with {_words(need)} each{where} do not fit; "
                f"the cluster has {what_there_is(nodes)}"
            )
        return faults

    def _nodes(self, gpus: bool) -> list[Node]:
        """The cluster as it was when we connected; for a cluster of ours, as it is going to be, unless
        `gpus` matter, which Ray finds itself."""
        if self._known is None:
            if self._address is None and not gpus:
                return [Node("", "this machine", len(allowed_cores()), 0)]
            try:
                self._connected()
            except _Refused as refused:
                self._faults, self._known = refused.args[0], []
        return self._known or []

    # The life of trials

    def resume(self) -> int:
        return -1  # its trials end with the process that started them

    def observe(self) -> dict[str, State]:
        return {}

    def room(self) -> int:
        """One trial at a time; or one more whenever all that were started have found their place."""
        if self._options.concurrent:
            return int(all(r.state.text == "running" for r in self._running.values()))
        return 0 if self._running else 1

    def running(self) -> dict[str, State]:
        return {trial: running.state for trial, running in self._running.items()}

    def start(self, launches: Sequence[Launch]) -> None:
        for launch in launches:
            trial = launch.trial.id
            self._running[trial] = _Running(launch, State("starting"), now())
            try:
                child = self._connected()
            except _Refused as refused:
                self._conclude(trial, "failed", "; ".join(refused.args[0]))
                self._ended.append(trial)
                continue
            child.say(
                do="start",
                trial=trial,
                folder=str(launch.folder.resolve()),
                need=asdict(self._options.need(launch.trial)),
                shared=self._options.shared_results,
                wait=self._options.wait,
            )

    def wait(self, seconds: float) -> list[str]:
        deadline = time.monotonic() + seconds
        while self._child is not None and not self._ended and self._running:
            remaining = deadline - time.monotonic()
            try:
                self._take(self._child.hear(max(0.0, remaining)))
            except queue.Empty:
                break
        ended, self._ended = self._ended, []
        return ended

    def _take(self, message: Mapping[str, Any] | None) -> None:
        """What the child says; None is its death."""
        if message is None:
            why = self._drop_child()
            for trial in list(self._running):
                self._conclude(trial, "lost", f"the process that talks to Ray ended: {why}")
                self._ended.append(trial)
        elif message["is"] == "state" and message["trial"] in self._running:
            running = self._running[message["trial"]]
            running.state = State(message["text"], "", message["reason"], message["nodes"])
            active = [r for r in self._running.values() if r.state.text == "running"]
            for each in active if len(active) > 1 else []:
                each.beside_another = True
        elif message["is"] == "over" and message["trial"] in self._running:
            trial = message["trial"]
            self._running[trial].started = message["started"]
            exits = [RankExit(**e) for e in message["exits"]]
            self._conclude(trial, message["status"], message["error"], exits)
            self._ended.append(trial)
            if message["status"] == "lost" and self._address is None and not self._running:
                self._drop_child()  # and with it a cluster of which a part may be dead

    def _conclude(self, trial: str, status: Status, error: str, exits: Sequence[RankExit] = ()) -> None:
        running = self._running.pop(trial)
        conclude(
            running.launch.folder,
            status=status,
            error=error,
            launcher=self.kind,
            order=running.launch.order,
            started=running.started,
            exits=exits,
            concurrent=running.beside_another,
        )

    def withdraw(self, trials: Collection[str]) -> list[str]:
        return []  # one waits at most, and it may as well fail

    def cancel(self) -> None:
        """The trials' folders stay as of trials that were not finished."""
        if self._child is not None and self._running:
            self._child.say(do="cancel")
            deadline = time.monotonic() + CLOSE_SECONDS
            while self._running:
                try:
                    message = self._child.hear(max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    break
                if message is None:
                    break
                if message["is"] == "over":
                    self._running.pop(message["trial"], None)
        self.close()

    def close(self) -> None:
        self._running.clear()
        self._drop_child()

    # The child

    def _connected(self) -> Child:
        """The child, started and connected if it is not. Raises _Refused."""
        if self._child is not None:
            return self._child
        with _probe(self._results) if self._address and self._options.shared_results else nullcontext() as probe:
            self._child = child = Child(own=self._address is None)
            child.say(
                do="connect",
                address=self._address,
                named=self._named,
                cpus=len(allowed_cores()),
                temporary=str(child.folder) if child.folder else None,
                environment=dict(os.environ),
                cwd=os.getcwd(),
                versions=found_here()["versions"],
                probe=probe,
            )
            try:
                message = child.hear(CONNECT_SECONDS)
            except queue.Empty:
                message = {"is": "refused", "faults": [f"Ray did not come up within {CONNECT_SECONDS:.0f} s"]}
        if message is None or message["is"] != "connected":
            why = self._drop_child()
            raise _Refused(message["faults"] if message else [f"the process that talks to Ray ended: {why}"])
        self._known = [Node(**node) for node in message["nodes"]]
        return child

    def _drop_child(self) -> str:
        """End the child and all that is of it; its last words."""
        child, self._child = self._child, None
        return child.end() if child is not None else ""


@contextmanager
def _probe(results: Path) -> Iterator[str]:
    """A file for nodes to see if they share the results folder, or what is there of its path. Raises _Refused."""
    folder = next(path for path in (results, *results.parents) if path.exists())
    # In the folder itself, which is this driver's alone, by a name that cluster/results/folder.py knows for ours.
    probe = folder / (LOOK if folder == results else f"{LOOK}.{secrets.token_hex(8)}")
    try:
        probe.touch()
    except OSError as error:
        raise _Refused([f"{folder}: cannot be written to ({error.strerror}); use --results"]) from None
    try:
        yield str(probe)
    finally:
        probe.unlink(missing_ok=True)


def _words(need: Need) -> str:
    words = f"{need.cpus} CPU{'s' if need.cpus > 1 else ''}"
    return words + (f" and {need.gpus} GPU{'s' if need.gpus > 1 else ''}" if need.gpus else "")


LAUNCHER = RayLauncher
