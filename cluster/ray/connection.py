"""The driver's connection to a Ray cluster: made safely, and only to nodes that are alike."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.ray import rank
from cluster.ray.capacity import Node
from jobs.machine.variables import for_ranks
from jobs.rank.raised import in_a_line

LOOK_SECONDS = 60.0  # that a node has to answer when it is looked at
REACH_SECONDS = 5.0
STORE_BYTES = 100_000_000  # of shared memory for Ray's objects: nothing large goes through it

# What Ray sets in its workers, beside RAY_…, and what our own start of a process passes on.
INJECTED = ("SPT_NOENV", rank.PARENT)


class Cluster:
    """The connection to Ray."""

    def __init__(self, hello: Mapping[str, Any]) -> None:
        self.hello = hello
        self.variables = {k: v for k, v in for_ranks(hello["environment"]).items() if k not in INJECTED}
        self.variables[rank.NICENESS] = str(os.getpriority(os.PRIO_PROCESS, 0))
        self.command = [sys.executable, "-P", "-m", "cluster.ray.rank"]
        self.cwd: str = hello["cwd"]
        self._alike: set[str] = set()  # ids of the nodes that were looked at and are as it is here

    def connect(self) -> list[str]:
        """Returns why that is not possible, one line each."""
        address = self.hello["address"]
        if address and (fault := unusable_token(os.environ) or unreachable(address)):
            return [f"{self.hello['named']}: {address}: {fault}{self._cure()}"]
        import ray
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(rank)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if address:
                ray.init(address=address, **quiet)
                unlike, silent = self.differences(self.nodes(), self.hello["probe"])
                return unlike + silent
            ray.init(
                num_cpus=self.hello["cpus"],
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                _temp_dir=self.hello["temporary"],
                **quiet,
            )
        except Exception as error:  # Ray raises all sorts here
            where = f"{self.hello['named']}: {address}: " if address else "a local Ray cluster did not start: "
            return [where + in_a_line(error)]
        return []

    def _cure(self) -> str:
        return ", or unset RAY_ADDRESS for a cluster of this machine" if self.hello["named"] == "RAY_ADDRESS" else ""

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

    def differences(self, nodes: Sequence[Node], probe: str | None) -> tuple[list[str], list[str]]:
        """What is not on every node as it is here: one runtime for all, or the numbers mean nothing. Also,
        apart from that, which nodes could not be looked at.

        A node is looked at once; one that has joined since is looked at before a trial uses it. `probe` is a
        file that every node must see, None where the results folder need not be shared.
        """
        if self.hello["address"] is None:
            return [], []  # a cluster of our own has one node, which is this machine
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        look = ray.remote(num_cpus=0, max_retries=0)(rank.look)
        asked = {
            node: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(
                [*self.command, "--look"], self.variables, self.cwd, probe
            )
            for node in nodes
            if node.id not in self._alike
        }
        unlike: list[str] = []
        silent: list[str] = []
        for node, ref in asked.items():
            try:
                found = ray.get(ref, timeout=LOOK_SECONDS)
            except Exception as error:
                silent.append(f"node {node.name}: could not be looked at: {in_a_line(error)}")
                continue
            if faults := self._compare(found):
                unlike += [f"node {node.name}: {fault}" for fault in faults]
            else:
                self._alike.add(node.id)
        return unlike, silent

    def _compare(self, found: Mapping[str, Any]) -> list[str]:
        if "fault" in found:
            return [found["fault"]]
        faults = []
        here, there = self.hello["versions"], found["versions"]
        for package in sorted(here.keys() | there.keys()):
            if here.get(package) != there.get(package):
                has, wants = there.get(package, "absent"), here.get(package, "absent")
                faults.append(f"{package} is {has} there and {wants} here; install the same on all nodes")
        if (niceness := found["niceness"]) != (wanted := int(self.variables[rank.NICENESS])):
            faults.append(
                f"processes run at niceness {niceness} there and {wanted} here; "
                f"start Ray with RAY_worker_niceness={wanted} in its environment"
            )
        return faults


def unusable_token(environment: Mapping[str, str]) -> str:
    """Why Ray, which is to use a token, would abort for want of one; empty if it has one."""
    if environment.get("RAY_AUTH_MODE") != "token" or environment.get("RAY_AUTH_TOKEN"):
        return ""
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    try:
        why = "" if path.read_bytes().strip() else "is empty"
    except OSError as error:
        why = f"cannot be read ({error.strerror})"
    return (
        why and f"the token file {path} {why}; put the cluster's token into it, or name another in RAY_AUTH_TOKEN_PATH"
    )


def unreachable(address: str) -> str:
    """Why no cluster can be used at `address`, empty if one can. Ray itself takes 20 s and more to
    say so, and does not name the token."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except OSError as error:
        return f"nothing answers there ({error.strerror or error}); start Ray there, or name another cluster"
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    try:
        GcsClient(address=address).get_all_node_info(timeout=REACH_SECONDS)
    except AuthenticationError:
        token = os.environ.get("RAY_AUTH_TOKEN_PATH") or ("RAY_AUTH_TOKEN" if "RAY_AUTH_TOKEN" in os.environ else "")
        return (
            f"the cluster does not accept our token ({token or 'there is none'}); "
            "put the cluster's token into a file and its path into RAY_AUTH_TOKEN_PATH"
        )
    except Exception as error:
        return f"what answers there is not a Ray cluster of our version: {in_a_line(error)}"
    return ""
