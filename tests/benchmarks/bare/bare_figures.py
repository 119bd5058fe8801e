"""Figures as one would draw them without this project: a table, seaborn, and a file of each kind.

bare_figures.py COUNT FOLDER         prints a JSON list: the time (Unix) after each figure
"""

import json
import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import seaborn as sns

count, folder = int(sys.argv[1]), Path(sys.argv[2])
folder.mkdir()
rng = np.random.default_rng(0)
rows = [
    {"strategy": f"strategy {s}", "scaling": scaling, "workers": n, "rate": 1000 * n * rng.lognormal(0, 0.02)}
    for s in range(7)
    for scaling in ("strong", "weak")
    for n in (1, 2)
    for _ in range(3)
]
table = pl.DataFrame(rows)
times = []
sns.set_theme(style="whitegrid", context="paper")
for number in range(count):
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.5))
    for scaling, ax in zip(("strong", "weak"), axes, strict=True):
        panel = table.filter(scaling=scaling).to_pandas()
        sns.lineplot(panel, x="workers", y="rate", hue="strategy", style="strategy", markers=True, ax=ax)
        ax.set_title(f"{scaling} scaling")
    for ending in ("svg", "png"):
        figure.savefig(folder / f"{number}.{ending}", dpi=150)
    plt.close(figure)
    times.append(time.time())
print(json.dumps(times))
