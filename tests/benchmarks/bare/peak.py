"""The float32 matrix-product rate of one core: PyTorch's and NumPy's products in turn.

peak.py CPU_SECONDS OUT

Writes OUT.0.first after its first product, and at the end OUT.0: seconds and operations of each.
"""

import json
import os
import sys
import time

seconds_to_run, out = float(sys.argv[1]), sys.argv[2]
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for library in ("OMP", "MKL", "OPENBLAS"):
    os.environ[f"{library}_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
products = []
for size in (512, 1024, 1536):
    a, b, c = (torch.rand(size, size) for _ in range(3))
    products.append((size, torch.mm, a, b, c))
    products.append((size, np.matmul, a.numpy(), b.numpy(), c.numpy()))
seconds, flop = [], []
ends = None
while ends is None or time.process_time() < ends:
    for size, multiply, a, b, c in products:
        begin = time.perf_counter()
        multiply(a, b, out=c)
        seconds.append(time.perf_counter() - begin)
        flop.append(2 * size**3)
    if ends is None:
        with open(f"{out}.0.first", "w") as file:
            json.dump({"unix": time.time(), "pid": os.getpid()}, file)
        ends = time.process_time() + seconds_to_run
with open(f"{out}.0", "w") as file:
    json.dump({"seconds": seconds, "flop": flop}, file)
