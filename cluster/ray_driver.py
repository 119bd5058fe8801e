"""The process that talks to Ray: `python -P -m cluster.ray_driver`, a child of the one that runs the study.

Ray aborts a process that uses it about a minute after the head node has died, so the study's own
process never does. The two exchange lines of JSON:

    ─▶ {"do": "connect", …}    ◀─ {"is": "connected", "nodes": […]} or {"is": "refused", "faults": […]}
    ─▶ {"do": "start", …}      ◀─ {"is": "state", …}, as often as it changes, then {"is": "over", …}
    ─▶ {"do": "cancel"}        ◀─ {"is": "over", "status": "cancelled", …} of each trial
    end of input: everything is ended

If the cluster is our own it is part of this process's session; `python -P -m cluster.ray_driver --after
PID FOLDER`, outside of it, ends what of that session outlives this process, however that ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from cluster import ray_rank
from jobs.files import RankExit
from jobs.guard import FOREIGN
from jobs.rendezvous import LOOPBACK, RankEnvironment, rank_variables
from jobs.results import Status, now, read_exit, read_trial, verdict

LEASE_SECONDS = 30.0  # after which a rank that nobody asks for is ended by its actor
NEWS_SECONDS = 5.0  # between two questions to an actor; an end is told at once
STEP_SECONDS = 0.5  # at most, until a cancelled trial notices
ACTORS_SECONDS = 60.0  # that the actors have to be there once there is room for them
END_SECONDS = 12.0  # that ranks have to end when asked; those that have not answered then are lost
SPARE_SECONDS = 30.0  # past the trial's own limit, which each rank's keeper holds
TELL_SECONDS = 2.0  # of waiting for room, before anything is said of it: it takes one even if there is room
GONE_SECONDS = 30.0  # that a trial waits for nodes that are no more, before it is given up
REACH_SECONDS = 5.0
STORE_BYTES = 100_000_000  # of shared memory for Ray's objects: nothing large goes through it

# A file that a rank leaves; nothing else is taken from a node.
RANK_FILE = re.compile(r"rank-(\d{5,})\.(?:jsonl|json|log|alive|exit|keeper)")
# What Ray sets in its workers, beside RAY_…, and what our own start of a process passes on.
INJECTED = ("PYTHONBREAKPOINT", "SPT_NOENV", ray_rank.PARENT)


@dataclass(frozen=True)
class Node:
    """A living node of the cluster and all it has, whether it is taken or not."""

    id: str
    address: str
    cpus: float
    gpus: float

    @property
    def name(self) -> str:
        return f"{self.address} ({self.id[:8]})"


@dataclass(frozen=True)
class Need:
    """What a trial takes: `count` processes with so much each; `spread`: each on a node of its own."""

    count: int
    cpus: int
    gpus: int
    spread: bool

    def most(self, nodes: Sequence[Node]) -> int:
        """How many such processes fit on the nodes while nothing else runs there."""
        each = [min([int(n.cpus // self.cpus), *([int(n.gpus // self.gpus)] if self.gpus else [])]) for n in nodes]
        return sum(min(1, fit) if self.spread else fit for fit in each)

    def bundle(self) -> dict[str, float]:
        return {"CPU": float(self.cpus)} | ({"GPU": float(self.gpus)} if self.gpus else {})


def what_there_is(nodes: Sequence[Node]) -> str:
    """`3 nodes with 2 CPUs each`, in words."""
    counts = Counter((n.cpus, n.gpus) for n in nodes)
    kinds = [
        f"{count} node{'s' if count > 1 else ''} with {cpus:g} CPUs"
        + (f" and {gpus:g} GPUs" if gpus else "")
        + (" each" if count > 1 else "")
        for (cpus, gpus), count in counts.items()
    ]
    return ", ".join(kinds) or "no nodes"


class Cancelled(Exception):
    """Somebody wants the trial ended."""


class NoRoom(Exception):
    """The cluster has no room for the trial, and had none for as long as it may wait."""


class Lost(Exception):
    """The trial's actors, or their nodes, are gone."""


class Cluster:
    """The connection to Ray."""

    def __init__(self, hello: Mapping[str, Any]) -> None:
        self.hello = hello
        self.variables = {k: v for k, v in hello["environment"].items() if not k.startswith(("RAY_", *FOREIGN))}
        self.variables = {k: v for k, v in self.variables.items() if k not in INJECTED}
        self.variables[ray_rank.NICENESS] = str(os.getpriority(os.PRIO_PROCESS, 0))
        self.command = [sys.executable, "-P", "-m", "cluster.ray_rank"]
        self.cwd: str = hello["cwd"]

    def connect(self) -> list[str]:
        """Returns why that is not possible, one line each."""
        address = self.hello["address"]
        if address and (fault := unreachable(address)):
            return [fault]
        import ray
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(ray_rank)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if address:
                ray.init(address=address, **quiet)
                return self._differences()
            ray.init(
                num_cpus=self.hello["cpus"],
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                _temp_dir=self.hello["temporary"],
                **quiet,
            )
        except Exception as error:  # Ray raises all sorts here
            where = f"launcher.address: {address}: " if address else "a local Ray cluster did not start: "
            return [where + in_a_line(error)]
        return []

    def nodes(self) -> list[Node]:
        import ray

        found = []
        for entry in ray.nodes():
            resources = entry["Resources"]
            if entry["Alive"] and resources.get("CPU", 0) >= 1:
                address, cpus, gpus = entry["NodeManagerAddress"], resources["CPU"], resources.get("GPU", 0.0)
                found.append(Node(entry["NodeID"], address, cpus, gpus))
        return found

    def free(self) -> str:
        """`1 of 6 CPUs are free`, in words."""
        import ray

        total, left = ray.cluster_resources(), ray.available_resources()
        parts = [f"{left.get(k, 0):g} of {total[k]:g} {k}s" for k in ("CPU", "GPU") if total.get(k)]
        return " and ".join(parts) + " are free"

    def _differences(self) -> list[str]:
        """What is not on every node as it is here: one runtime for all, or the numbers mean nothing."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        look = ray.remote(num_cpus=0, max_retries=0)(ray_rank.look)
        nodes = self.nodes()
        asked = {
            node: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(
                [*self.command, "--look"], self.variables, self.cwd
            )
            for node in nodes
        }
        faults = []
        for node, ref in asked.items():
            try:
                found = ray.get(ref, timeout=ACTORS_SECONDS)
            except Exception as error:
                faults.append(f"node {node.name}: could not be looked at: {in_a_line(error)}")
                continue
            faults += [f"node {node.name}: {fault}" for fault in self._compare(found)]
        return faults

    def _compare(self, found: Mapping[str, Any]) -> list[str]:
        if "fault" in found:
            return [found["fault"]]
        faults = []
        here, there = self.hello["versions"], found["versions"]
        for package in sorted(here.keys() | there.keys()):
            if here.get(package) != there.get(package):
                has, wants = there.get(package, "absent"), here.get(package, "absent")
                faults.append(f"{package} is {has} there and {wants} here; install the same on all nodes")
        if (niceness := found["niceness"]) != (wanted := int(self.variables[ray_rank.NICENESS])):
            faults.append(
                f"processes run at niceness {niceness} there and {wanted} here; "
                f"start Ray with RAY_worker_niceness={wanted} in its environment"
            )
        return faults


def unreachable(address: str) -> str:
    """Why no cluster can be used at `address`, empty if one can. Ray itself takes 20 s and more to
    say so, and does not name the token."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except OSError as error:
        return f"launcher.address: {address}: nothing answers there ({error.strerror or error})"
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    try:
        GcsClient(address=address).get_all_node_info(timeout=REACH_SECONDS)
    except AuthenticationError:
        token = os.environ.get("RAY_AUTH_TOKEN_PATH") or ("RAY_AUTH_TOKEN" if "RAY_AUTH_TOKEN" in os.environ else "")
        return (
            f"launcher.address: {address}: the cluster does not accept our token ({token or 'there is none'}); "
            "put the cluster's token into a file and its path into RAY_AUTH_TOKEN_PATH"
        )
    except Exception as error:
        return (
            f"launcher.address: {address}: what answers there is not a Ray cluster of our version: {in_a_line(error)}"
        )
    return ""


def in_a_line(error: BaseException) -> str:
    """The first line of an error's text that says anything."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


class Voice:
    """Says lines of JSON to the parent; for all threads."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._lock = file, threading.Lock()

    def say(self, **message: Any) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._file.write(json.dumps(message) + "\n")
            self._file.flush()


class TrialOnRay(threading.Thread):
    """One trial, from its placement group to its last file."""

    def __init__(
        self, cluster: Cluster, voice: Voice, order: Mapping[str, Any], others: Sequence[TrialOnRay] = ()
    ) -> None:
        super().__init__(name=order["trial"])
        self._cluster, self._voice, self._others = cluster, voice, others
        self.placed = False  # it has room, and others of ours may wait for that
        self._folder = Path(order["folder"])
        self._need = Need(**order["need"])
        self._trial = read_trial(self._folder)
        self._shared: bool = order["shared"]
        self._patience: float = order["wait"]
        self._cancelled = threading.Event()
        self._since = now()
        self._actors: list[Any] = []  # by rank, from where the ranks are known
        self._exits: dict[int, RankExit] = {}
        self._lost: dict[int, str] = {}
        self._names: dict[int, str] = {}

    def cancel(self) -> None:
        self._cancelled.set()

    def run(self) -> None:
        status: Status = "lost"
        group = None
        try:
            group = self._room()
            self._begin(group)
            status, error = self._watch()
        except Cancelled:
            status, error = "cancelled", "ended by the user"
        except NoRoom as reason:
            status, error = "timeout", str(reason)
        except Lost as reason:
            error = str(reason)
        except Exception as trouble:  # of Ray: whatever it is, this trial is over and the next may do
            error = in_a_line(trouble)
        self._release(group)
        exits = [asdict(e) for e in self._exits.values()]
        self._voice.say(
            **{"is": "over", "trial": self.name, "status": status, "error": error, "exits": exits},
            started=self._since,
        )

    # Placing

    def _room(self) -> Any:
        """The placement group, once there is room for it. Raises NoRoom, Cancelled."""
        from ray.util.placement_group import placement_group, remove_placement_group

        strategy = "STRICT_SPREAD" if self._need.spread else "PACK"
        group = placement_group([self._need.bundle()] * self._need.count, strategy=strategy)
        asked = began = gone_since = time.monotonic()
        try:
            while not group.wait(STEP_SECONDS):
                if self._cancelled.is_set():
                    raise Cancelled
                nodes, waited = self._cluster.nodes(), time.monotonic() - began
                if self._need.most(nodes) >= self._need.count:
                    gone_since, reason = time.monotonic(), f"the cluster is busy: {self._cluster.free()}"
                    if any(other.placed for other in self._others):
                        began = time.monotonic()  # with trials of this study, which end in time
                else:
                    reason = f"the cluster has only {what_there_is(nodes)} left"
                if waited > self._patience or time.monotonic() - gone_since > GONE_SECONDS:
                    raise NoRoom(f"no room for {self._need.count} processes after {waited:.0f} s: {reason}")
                if time.monotonic() - asked > TELL_SECONDS:
                    self._tell("waiting", f"{reason}, for at most {self._patience:.0f} s")
        except BaseException:
            remove_placement_group(group)
            raise
        self._since, self.placed = now(), True
        return group

    def _tell(self, text: str, reason: str = "", nodes: str = "") -> None:
        self._voice.say(**{"is": "state", "trial": self.name, "text": text, "reason": reason, "nodes": nodes})

    def _begin(self, group: Any) -> None:
        """Start an actor in each bundle, number the ranks node by node, and start them."""
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        actor = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=4)(ray_rank.Rank)
        self._actors = [
            actor.options(
                num_cpus=self._need.cpus,
                num_gpus=self._need.gpus,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, index),
            ).remote(LEASE_SECONDS)
            for index in range(self._need.count)
        ]
        wheres = self._values([a.where.remote() for a in self._actors])
        nodes = list(dict.fromkeys(where["node"] for where in wheres))
        order = sorted(range(len(wheres)), key=lambda index: nodes.index(wheres[index]["node"]))
        self._actors = [self._actors[index] for index in order]
        wheres = [wheres[index] for index in order]
        self._names = {r: f"{where['address']} ({where['node'][:8]})" for r, where in enumerate(wheres)}
        # On one node the ranks meet as they do without Ray, and nothing of theirs listens beyond it.
        master = wheres[0]["address"] if len(nodes) > 1 else LOOPBACK
        port = self._values([self._actors[0].free_port.remote(master)])[0] if len(wheres) > 1 else 0
        trial = None if self._shared else (self._folder / "trial.json").read_text(encoding="utf-8")
        begun = []
        for place in places([where["node"] for where in wheres], master, port):
            variables = self._cluster.variables | rank_variables(place)
            begin = self._actors[place.rank].begin
            begun.append(begin.remote(self._cluster.command, variables, self._cluster.cwd, str(self._folder), trial))
        for rank, fault in enumerate(self._values(begun)):
            if fault:
                raise Lost(f"node {self._names[rank]} {fault}")
        self._tell("running", nodes=", ".join(dict.fromkeys(self._names.values())))

    def _values(self, refs: list[Any]) -> list[Any]:
        """What actors answer, in order. Raises Lost, Cancelled."""
        import ray
        from ray.exceptions import RayError

        left, deadline = list(refs), time.monotonic() + ACTORS_SECONDS
        while left:
            if self._cancelled.is_set():
                raise Cancelled
            if time.monotonic() > deadline:
                raise Lost(f"an actor did not answer within {ACTORS_SECONDS:.0f} s")
            _, left = ray.wait(left, num_returns=len(left), timeout=STEP_SECONDS, fetch_local=False)
        try:
            values: list[Any] = ray.get(refs)
        except RayError as error:
            raise Lost(f"an actor died while the trial was being started: {in_a_line(error)}") from None
        return values

    # Watching

    def _watch(self) -> tuple[Status, str]:
        """Wait for the end of all ranks; when one has ended badly, end the others."""
        import ray

        pending = {actor.news.remote(NEWS_SECONDS): rank for rank, actor in enumerate(self._actors)}
        deadline = time.monotonic() + self._trial.limits.trial + SPARE_SECONDS
        ending: float | None = None
        overdue = False
        while pending:
            done, _ = ray.wait(list(pending), num_returns=1, timeout=STEP_SECONDS)
            for ref in done:
                rank = pending.pop(ref)
                if not self._hear(rank, ref):
                    pending[self._actors[rank].news.remote(NEWS_SECONDS)] = rank
            overdue = overdue or time.monotonic() > deadline
            bad = bool(self._lost) or any(e.exit_code or e.limit for e in self._exits.values())
            if ending is None and (bad or overdue or self._cancelled.is_set()):
                ending = time.monotonic()
                for rank in pending.values():
                    self._actors[rank].end.remote()
            if ending is not None and time.monotonic() > ending + END_SECONDS:
                self._lost |= dict.fromkeys(pending.values(), "does not answer")
                break
        return self._fate(overdue)

    def _hear(self, rank: int, ref: Any) -> bool:
        """Take what the actor of `rank` says; whether that was its last word."""
        import ray
        from ray.exceptions import RayError

        try:
            news = ray.get(ref)
            if news is None:
                return False
            self._fetch(rank, news["files"])
        except RayError as error:
            self._lost[rank] = in_a_line(error)
            return True
        self._exits[rank] = read_exit(self._folder, rank) or RankExit(  # the keeper itself was killed
            rank=rank, exit_code=news["code"], asked=news["asked"], ended_unix=time.time()
        )
        return True

    def _fetch(self, rank: int, files: Mapping[str, int]) -> None:
        """Bring the rank's files here that are not, or not whole: all of them where no folder is shared."""
        import ray

        for name, size in files.items():
            match = RANK_FILE.fullmatch(name)
            target = self._folder / name
            if match is None or int(match[1]) != rank or (target.exists() and target.stat().st_size == size):
                continue
            content: bytes = ray.get(self._actors[rank].read.remote(name))
            temporary = target.with_name(f".{name}.{os.getpid()}")
            temporary.write_bytes(content)
            temporary.replace(target)

    def _fate(self, overdue: bool) -> tuple[Status, str]:
        if self._cancelled.is_set():
            raise Cancelled
        if self._lost:
            rank, why = min(self._lost.items())
            return "lost", f"rank {rank} on node {self._names[rank]}: {why}"
        ended = verdict(self._folder, list(self._exits.values()), self._need.count)
        if overdue and (ended is None or ended[0] != "ok"):
            return "timeout", f"not done {SPARE_SECONDS:.0f} s after limits.trial = {self._trial.limits.trial:g} s"
        return ended or ("failed", "the ranks ended and left no word of why")

    def _release(self, group: Any) -> None:
        """Give back what the trial had. Actors that are still there take their ranks with them."""
        import ray
        from ray.util.placement_group import remove_placement_group

        with contextlib.suppress(Exception):  # of actors and nodes that are gone
            living = [a for rank, a in enumerate(self._actors) if rank not in self._lost]
            if not self._shared:
                ray.wait([a.clear.remote() for a in living], num_returns=len(living), timeout=5.0)
        for actor in self._actors:
            with contextlib.suppress(Exception):
                ray.kill(actor)
        if group is not None:
            with contextlib.suppress(Exception):
                remove_placement_group(group)
        self.placed = False


def places(nodes: Sequence[str], master: str, port: int) -> list[RankEnvironment]:
    """The rank environments of ranks on these nodes, those of a node one after the other."""
    distinct = list(dict.fromkeys(nodes))
    return [
        RankEnvironment(
            rank=rank,
            world_size=len(nodes),
            local_rank=list(nodes[:rank]).count(node),
            local_world_size=list(nodes).count(node),
            node_rank=distinct.index(node),
            master_addr=master,
            master_port=port,
        )
        for rank, node in enumerate(nodes)
    ]


def serve(lines: IO[str], voice: Voice) -> None:
    """Do what the parent says until it says no more."""
    cluster: Cluster | None = None
    trials: list[TrialOnRay] = []
    for line in lines:
        order = json.loads(line)
        if order["do"] == "connect":
            cluster = Cluster(order)
            if faults := cluster.connect():
                voice.say(**{"is": "refused", "faults": faults})
                break
            voice.say(**{"is": "connected", "nodes": [asdict(node) for node in cluster.nodes()]})
        elif order["do"] == "start" and cluster is not None:
            trials = [trial for trial in trials if trial.is_alive()]
            trials.append(TrialOnRay(cluster, voice, order, tuple(trials)))
            trials[-1].start()
        elif order["do"] == "cancel":
            for trial in trials:
                trial.cancel()
    for trial in trials:
        trial.cancel()
    for trial in trials:
        trial.join(END_SECONDS + STEP_SECONDS)
    if cluster is not None:
        import ray

        ray.shutdown()


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


def main(arguments: list[str]) -> None:
    if len(arguments) == 3 and arguments[0] == "--after":
        end_after(int(arguments[1]), Path(arguments[2]))
        return
    if arguments:
        sys.exit("usage: python -m cluster.ray_driver")
    from jobs.worker import die_with_parent

    die_with_parent()
    # What Ray prints goes to the log, not among the lines for the parent.
    voice = Voice(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    try:
        serve(sys.stdin, voice)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
