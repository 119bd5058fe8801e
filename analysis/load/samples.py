"""A results folder's telemetry as tidy frames: why a curve bends, and who else was on the machine.

    samples(results)     one row per sample, subject and quantity
    summary(results)     one row per trial that has telemetry
    notes(results)       what could not be read on which machine, and why

The columns of the summary are in `results.trials` too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

from analysis.load import telemetry
from analysis.load.results import Results
from analysis.load.summary import NOISY_CORES, SUMMARY
from analysis.load.telemetry import Window

__all__ = ["NOISY_CORES", "PHASES", "SAMPLES", "SUMMARY", "notes", "samples", "summary"]

# Of a trial that ran: before the first training step, before the first measured one, until the last one, and
# what comes after it (the compute-only steps of a training).
PHASES = ("startup", "warmup", "measured", "after")
SAMPLES: dict[str, Any] = {
    "trial_id": pl.String,
    "host": pl.String,
    "node_rank": pl.Int64,
    "seconds": pl.Float64,  # since the node's training began, below zero before; null if that is not known
    "phase": pl.Enum(PHASES),  # null if not known
    "of": pl.Enum(["rank", "gpu", "node"]),
    "subject": pl.String,  # the rank's number, the GPU's UUID, "" for the node
    "quantity": pl.String,  # as docs/results-format.md names it: cpu_percent, sm_percent, power_watts, …
    "value": pl.Float64,
}
_OF = {"ranks": "rank", "gpus": "gpu", "node": "node"}


def samples(results: Results, trial_ids: Iterable[str] | None = None) -> pl.DataFrame:
    """Every sample of the trials that are ok, or of `trial_ids`, read from the files now: columns SAMPLES.

    What a counter did not tell has no row. Beside the quantities as written there is `throttled` of a
    GPU, 1 where it is slowed down, and `cpu_energy_joules` is that of all the node's packages.
    """
    columns: dict[str, list[Any]] = {name: [] for name in SAMPLES}
    seconds_of = dict(results.trials.select("trial_id", "train_seconds").iter_rows())
    for trial_id in _ids(results, trial_ids):
        nodes, _ = telemetry.read(results.folder / "trials" / trial_id)
        reports = results.outcome(trial_id).get("ranks") if nodes else None
        for node in nodes:
            at = telemetry.window(node, reports, seconds_of.get(trial_id))
            for sample in node.samples:
                seconds, phase = _when(float(sample["unix"]), at)
                for (kind, subject, quantity), value in telemetry.flat(sample).items():
                    row = (trial_id, node.host, node.node_rank, seconds, phase, _OF[kind], subject, quantity, value)
                    for name, cell in zip(SAMPLES, row, strict=True):
                        columns[name].append(cell)
    return pl.DataFrame(columns, schema=SAMPLES)


def summary(results: Results) -> pl.DataFrame:
    """`trial_id` and the columns SUMMARY of each trial whose telemetry covers its measured steps."""
    return results.trials.filter(pl.col("telemetry_samples").is_not_null()).select("trial_id", *SUMMARY)


def notes(results: Results, trial_ids: Iterable[str] | None = None) -> pl.DataFrame:
    """What the samplers could not read: columns trial_id, host, what, why."""
    rows = []
    for trial_id in _ids(results, trial_ids):
        for node in telemetry.read(results.folder / "trials" / trial_id)[0]:
            rows += [(trial_id, node.host, what, why) for what, why in node.notes]
    return pl.DataFrame(rows, schema=dict.fromkeys(("trial_id", "host", "what", "why"), pl.String), orient="row")


def _ids(results: Results, trial_ids: Iterable[str] | None) -> list[str]:
    return list(results.trials.filter(status="ok")["trial_id"] if trial_ids is None else trial_ids)


def _when(unix: float, at: Window | None) -> tuple[float | None, str | None]:
    if at is None:
        return None, None
    phase = PHASES[(unix >= at.started) + (unix >= at.measured) + (unix > at.ended)]
    return unix - at.started, phase
