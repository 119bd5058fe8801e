"""One trial on Ray: a placement group, an actor for each rank, and whatever becomes of them."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.ray.capacity import Need, places, what_there_is
from cluster.ray.connection import Cluster
from cluster.ray.rank import Rank
from jobs.contract.environment import LOOPBACK, rank_variables
from jobs.contract.exits import Status, read_exit, verdict
from jobs.contract.files import TRIAL, RankExit
from jobs.contract.folder import read_trial
from jobs.contract.outcome import now
from jobs.rank.raised import in_a_line

LEASE_SECONDS = 30.0  # after which a rank that nobody asks for is ended by its actor
NEWS_SECONDS = 5.0  # between two questions to an actor; an end is told at once
STEP_SECONDS = 0.5  # at most, until a cancelled trial notices
ACTORS_SECONDS = 60.0  # that the actors have to be there once there is room for them
END_SECONDS = 12.0  # that ranks have to end when asked; those that have not answered then are lost
SPARE_SECONDS = 30.0  # past the trial's own limit, which each rank's keeper holds
TELL_SECONDS = 2.0  # of waiting for room, before anything is said of it: it takes one even if there is room
GONE_SECONDS = 30.0  # that a trial waits for nodes that are no more, before it is given up

# One of them is where ranks meet: below those that a kernel gives out by itself, above those of Ray's workers.
PORTS = range(20000, 30000)

# A file that a rank leaves; nothing else is taken from a node.
RANK_FILE = re.compile(r"rank-(\d{5,})\.(?:jsonl|json|log|alive|exit|keeper)")
NODE_FILE = re.compile(r"telemetry-[A-Za-z0-9._-]+\.jsonl|base-[1-9]\d*\.(?:jsonl|json|log)")


class Cancelled(Exception):
    """Somebody wants the trial ended."""


class NoRoom(Exception):
    """The cluster has no room for the trial, and had none for as long as it may wait."""


class Unfit(Exception):
    """A node is not as it must be: no further try would mend that."""


class Lost(Exception):
    """The trial's actors, or their nodes, are gone."""


class TrialOnRay(threading.Thread):
    """One trial, from its placement group to its last file."""

    def __init__(
        self, cluster: Cluster, say: Callable[..., None], order: Mapping[str, Any], others: Sequence[TrialOnRay] = ()
    ) -> None:
        super().__init__(name=order["trial"])
        self._cluster, self._say, self._others = cluster, say, others
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
        except Unfit as reason:
            status, error = "failed", str(reason)
        except Lost as reason:
            error = str(reason)
        except Exception as trouble:  # of Ray: whatever it is, this trial is over and the next may do
            error = in_a_line(trouble)
        self._release(group)
        exits = [asdict(e) for e in self._exits.values()]
        self._say(
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
        self._say(**{"is": "state", "trial": self.name, "text": text, "reason": reason, "nodes": nodes})

    def _begin(self, group: Any) -> None:
        """Number the ranks node by node, and start each in an actor of its own. Raises Unfit, Lost.

        Nothing is asked of the actors: an actor's first answer costs it 0.3 s of imports in Ray.
        """
        import ray
        from ray.util.placement_group import placement_group_table
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        living = {node.id: node for node in self._cluster.nodes()}
        bundles = dict(sorted(placement_group_table(group)["bundles_to_node_id"].items()))
        nodes = [living[n] for n in dict.fromkeys(bundles.values()) if n in living]
        ranks = [(index, node) for node in nodes for index, place in bundles.items() if place == node.id]
        if len(ranks) < self._need.count:
            raise Lost("a node was gone as soon as it had been given to the trial")
        self._names = {rank: node.name for rank, (_, node) in enumerate(ranks)}
        unlike, silent = self._cluster.differences(nodes, str(self._folder / TRIAL) if self._shared else None)
        if unlike:
            raise Unfit("; ".join(unlike))
        if silent:
            raise Lost("; ".join(silent))
        # On one node the ranks meet as they do without Ray, and nothing of theirs listens beyond it.
        master = nodes[0].address if len(nodes) > 1 else LOOPBACK
        if master.startswith("127.") and any(not node.address.startswith("127.") for node in nodes[1:]):
            raise Unfit(
                f"Ray knows node {nodes[0].name} by an address of its loopback, where no other host is; "
                "start it with --node-ip-address"
            )
        port = secrets.choice(PORTS) if len(ranks) > 1 else 0
        trial = None if self._shared else (self._folder / TRIAL).read_text(encoding="utf-8")
        remote = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=4)(Rank)
        begun = []
        for place, (index, node) in zip(places([n.id for _, n in ranks], master, port), ranks, strict=True):
            actor = remote.options(
                num_cpus=self._need.cpus,
                num_gpus=self._need.gpus,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, index),
            ).remote(LEASE_SECONDS)
            self._actors.append(actor)
            variables = self._cluster.variables | rank_variables(place)
            begun.append(
                actor.begin.remote(
                    node.id, self._cluster.command, variables, self._cluster.cwd, str(self._folder), trial
                )
            )
        for rank, fault in enumerate(self._values(begun)):
            if fault:
                raise Unfit(f"node {self._names[rank]} {fault}")
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
            raise Lost(f"an actor failed while the trial was being started: {in_a_line(error)}") from None
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
            known = int(match[1]) == rank if match else NODE_FILE.fullmatch(name)
            if not known or (target.exists() and target.stat().st_size == size):
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
