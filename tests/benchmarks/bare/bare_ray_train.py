"""The article's CNN under Ray Train's TorchTrainer, as its documentation has it: two workers, DDP over Gloo.

    bare_ray_train.py STEPS OUT         on the cluster at RAY_ADDRESS

OUT.began holds the time at which fit() was called, on a connection that was there; each rank writes
OUT.<rank>.first after its first step, and at the end OUT.<rank>: the seconds between the ends of its steps.
"""

import json
import sys
import time

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

steps, out = int(sys.argv[1]), sys.argv[2]


def work(_):
    import itertools
    import os

    import ray.train
    import torch
    from ray.train.torch import prepare_model
    from torch import nn

    rank = ray.train.get_context().get_world_rank()
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, labels = torch.rand(1437, 1, 28, 28), torch.randint(0, 10, (1437,))
    net = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36864, 10)
    )
    net = prepare_model(net)
    optimizer = torch.optim.Adam(net.parameters())

    def train(count, clock=None):
        for _ in range(count):
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


ray.init(log_to_driver=False)
trainer = TorchTrainer(
    work,
    train_loop_config={},
    scaling_config=ScalingConfig(num_workers=2),
    run_config=RunConfig(storage_path=f"{out}.train"),
)
with open(f"{out}.began", "w") as file:
    json.dump({"unix": time.time()}, file)
trainer.fit()
