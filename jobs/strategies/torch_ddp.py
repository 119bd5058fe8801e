"""torch-ddp: PyTorch's DistributedDataParallel over Gloo."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import Any

from jobs.rendezvous import interface_of
from jobs.strategies.torch_loop import TorchLoop


class TorchDDP(TorchLoop):
    """Gradients are averaged over the ranks in buckets, overlapped with the backward pass."""

    def join(self) -> None:
        import torch.distributed as dist

        meeting = self.context.rendezvous
        place, first = meeting.place, meeting.peers[0]
        # c10d and Gloo would otherwise choose by host name, and listen on every interface.
        os.environ["GLOO_SOCKET_IFNAME"] = interface_of(meeting.address)
        listener = None
        if place.rank == 0:
            meeting.held.listen(socket.SOMAXCONN)
            listener = meeting.held.detach()
        timeout = timedelta(seconds=self.trial.limits.trial)
        store = dist.TCPStore(
            first.address,
            first.port,
            place.world_size,
            is_master=place.rank == 0,
            timeout=timeout,
            master_listen_fd=listener,
        )
        dist.init_process_group("gloo", store=store, rank=place.rank, world_size=place.world_size, timeout=timeout)

    def wrap(self, net: Any) -> Any:
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(net)

    def close(self) -> None:
        import torch.distributed as dist

        dist.destroy_process_group()


STRATEGY = TorchDDP
