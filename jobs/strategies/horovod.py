"""Starting Horovod without horovodrun: rank 0 serves Horovod's own rendezvous to the others."""

from __future__ import annotations

import os
import threading
from typing import Any

from jobs.contract.trial import Trial
from jobs.machine.gpus import GpuError
from jobs.machine.network import interface_of
from jobs.rank.rendezvous import Rendezvous


def horovod_variables(rendezvous: Rendezvous) -> dict[str, str]:
    """The variables from which Horovod's Gloo controller finds its ranks.

    Nodes are told apart by their node rank, as several may share an address. Rank 0 must be serving
    Horovod's rendezvous on the port it holds.
    """
    place, peers = rendezvous.place, rendezvous.peers
    cross = [peer for peer in peers if peer.local_rank == place.local_rank]
    return {
        "HOROVOD_RANK": str(place.rank),
        "HOROVOD_SIZE": str(place.world_size),
        "HOROVOD_LOCAL_RANK": str(place.local_rank),
        "HOROVOD_LOCAL_SIZE": str(place.local_world_size),
        "HOROVOD_CROSS_RANK": str([peer.rank for peer in cross].index(place.rank)),
        "HOROVOD_CROSS_SIZE": str(len(cross)),
        "HOROVOD_HOSTNAME": f"node{place.node_rank}",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": peers[0].address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(peers[0].port),
        "HOROVOD_GLOO_IFACE": interface_of(rendezvous.address),
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
    }


def needs_nccl(hvd: Any, trial: Trial) -> None:
    """Raises GpuError where the trial wants GPUs of a Horovod that was built without them."""
    if trial.gpus_per_worker and not hvd.nccl_built():
        raise GpuError("Horovod was built here without NCCL; with nvcc and NCCL in the system, `make horovod` adds it")


def start_horovod(hvd: Any, rendezvous: Rendezvous) -> None:
    """Serve (rank 0), set the variables, and call `hvd.init()`. `hvd` is horovod.torch or .tensorflow.

    The server is Horovod's, bound here to this rank's own address: its `RendezvousServer` would
    listen on every interface.
    """
    if rendezvous.place.rank == 0:
        _serve(rendezvous)
    rendezvous.barrier()
    os.environ.update(horovod_variables(rendezvous))
    hvd.init()


def _serve(rendezvous: Rendezvous) -> None:
    from horovod.runner.common.util.hosts import HostInfo, get_host_assignments
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    slots: dict[str, int] = {}
    for peer in rendezvous.peers:
        slots[f"node{peer.node_rank}"] = peer.local_world_size
    plan = get_host_assignments([HostInfo(name, count) for name, count in slots.items()], len(rendezvous.peers))
    try:
        server = RendezvousHTTPServer((rendezvous.address, rendezvous.peers[0].port), RendezvousHandler, 0)
    except OSError as error:
        raise rendezvous.instead_of(error) from None
    server.init(plan)
    threading.Thread(target=server.serve_forever, daemon=True).start()
