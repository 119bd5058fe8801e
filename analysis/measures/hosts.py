"""Hosts whose ranks compute slower than their peers, over all launches of a study.

    frame = hosts(load(folder))      one row per host that had peers in a launch

In synchronous training every rank waits for the slowest, so the time of whole steps tells no host from another: taken
is the compute-only step, in which nobody waits. Within each launch a host's mean over its ranks, of each one's median
step, is set against the median of the means of its peers: the other hosts with as many ranks, which had the same work
at the same time. Where more ranks share memory and caches, each is slower. The mean of the logarithms of these ratios
over launches has Student's interval (analysis/stats/ratios.py), at the level that Bonferroni's correction for the
number of hosts leaves. Without compute-only steps it cannot be told.
"""

from __future__ import annotations

import json
import math
from statistics import median

import numpy as np
import polars as pl

from analysis.load.results import Results
from analysis.stats.ratios import LogRatio

ALPHA = 0.05  # of all hosts together, two-sided
SLOWER = 0.02  # a host is named if the whole interval lies above this
FEWEST_LAUNCHES = 3
SCHEMA = {
    "host": pl.String,
    "n_launches": pl.Int64,
    "relative": pl.Float64,  # compute-only time over its peers'
    "relative_low": pl.Float64,
    "relative_high": pl.Float64,
    "slower": pl.Boolean,  # shown to be; null where there are too few launches to tell
}


def hosts(results: Results) -> pl.DataFrame:
    """Columns SCHEMA, the slowest first; intervals are null for a single launch."""
    logs: dict[str, list[float]] = {}
    for seconds, ranks in results.trials.filter(status="ok").select("host_seconds", "host_ranks").iter_rows():
        for host, (its, others) in peers(seconds, ranks).items():
            logs.setdefault(host, []).append(math.log(its / median(others)))
    tail = ALPHA / 2 / max(1, len(logs))
    rows = []
    for host, values in logs.items():
        n = len(values)
        error = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
        over = LogRatio(float(np.mean(values)), error, n - 1)
        bounds = [over.low(tail), over.high(tail)] if n > 1 else [None, None]
        slower = over.low(tail) > 1 + SLOWER if n >= FEWEST_LAUNCHES else None
        rows.append([host, n, over.ratio, *bounds, slower])
    return pl.DataFrame(rows, schema=SCHEMA, orient="row").sort("relative", descending=True)


def slow(results: Results) -> dict[str, str]:
    """The hosts that are shown to be slower, each with a warning that names it."""
    return {
        row["host"]: f"{row['host']} computes {row['relative']:.2f} [{row['relative_low']:.2f}, "
        f"{row['relative_high']:.2f}] times as long as its peers, over {row['n_launches']} launches"
        for row in hosts(results).filter(pl.col("slower").fill_null(False)).iter_rows(named=True)
    }


def peers(host_seconds: str | None, host_ranks: str | None) -> dict[str, tuple[float, list[float]]]:
    """Of a launch, its columns ─▶ each host that had peers in it, with its seconds and theirs."""
    seconds: dict[str, float] = json.loads(host_seconds or "{}")
    ranks: dict[str, int] = json.loads(host_ranks or "{}")
    others = {
        host: [s for name, s in seconds.items() if name != host and ranks.get(name) == ranks.get(host)]
        for host in seconds
    }
    return {host: (seconds[host], theirs) for host, theirs in others.items() if theirs}
