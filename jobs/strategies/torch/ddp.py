"""torch-ddp: PyTorch's DistributedDataParallel, over Gloo on CPUs and NCCL on GPUs."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from jobs.contract.catalog import StrategyInfo
from jobs.machine.network import interface_of
from jobs.strategies.torch.plain import COMPILED, EXECUTIONS, TorchLoop

INFO = StrategyInfo("PyTorch", "native", base_case="torch", needs=("torch",), executions=EXECUTIONS, compiled=COMPILED)


class TorchDDP(TorchLoop):
    """Gradients are averaged over the ranks in buckets, overlapped with the backward pass."""

    def join(self) -> None:
        import torch.distributed as dist

        meeting = self.context.rendezvous
        place, first = meeting.place, meeting.peers[0]
        on_gpu = self.device.type == "cuda"
        # c10d and Gloo would otherwise choose by host name, and listen on every interface.
        os.environ["GLOO_SOCKET_IFNAME"] = interface_of(meeting.address)
        listener = None
        if place.rank == 0:
            meeting.listen()
            listener = meeting.held.detach()
        meeting.barrier()  # who finds nobody listening waits up to a second before it tries again
        timeout = timedelta(seconds=self.trial.limits.trial)
        store = dist.TCPStore(
            first.address,
            first.port,
            place.world_size,
            is_master=place.rank == 0,
            timeout=timeout,
            master_listen_fd=listener,
        )
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=store,
            rank=place.rank,
            world_size=place.world_size,
            timeout=timeout,
            device_id=self.device if on_gpu else None,
        )

    def wrap(self, net: Any) -> Any:
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(net, device_ids=[self.device] if self.device.type == "cuda" else None)

    def close(self) -> None:
        import torch.distributed as dist

        dist.destroy_process_group()


STRATEGY = TorchDDP
