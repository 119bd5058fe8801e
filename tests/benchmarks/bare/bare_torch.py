"""The article's CNN in PyTorch as one would write it without this project: a loop and a clock.

    [torchrun --nproc_per_node 2] bare_torch.py none|ddp|horovod STEPS OUT

Each rank writes OUT.<rank>.first after its first step, and at the end OUT.<rank>: the seconds between
the ends of its steps, so that nothing in the loop goes uncounted.
"""

import itertools
import json
import os
import sys
import time

how, steps, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
rank = int(os.environ.get("RANK", os.environ.get("HOROVOD_RANK", "0")))
os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
os.environ["OMP_NUM_THREADS"] = "1"

import torch  # noqa: E402
from torch import nn  # noqa: E402

torch.set_num_threads(1)
torch.manual_seed(0)
images, labels = torch.rand(1437, 1, 28, 28), torch.randint(0, 10, (1437,))
net = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36864, 10))
optimizer = torch.optim.Adam(net.parameters())
if how == "ddp":
    torch.distributed.init_process_group("gloo")
    net = nn.parallel.DistributedDataParallel(net)
elif how == "horovod":
    import horovod.torch as hvd

    hvd.init()
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=net.named_parameters())
    hvd.broadcast_parameters(net.state_dict(), root_rank=0)


def train(steps, clock=None):
    for _ in range(steps):
        batch = torch.randint(0, len(images), (64,))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()
        if clock:
            clock.append(time.perf_counter())


train(1)
with open(f"{out}.{rank}.first", "w") as file:
    json.dump({"unix": time.time(), "pid": os.getpid()}, file)
clock = [time.perf_counter()]
train(steps, clock)
with open(f"{out}.{rank}", "w") as file:
    json.dump({"seconds": [end - begin for begin, end in itertools.pairwise(clock)]}, file)
if how == "ddp":
    torch.distributed.barrier()
    os._exit(0)  # Gloo aborts a process now and then whose peer is gone before it
