"""Where the base case stands under the machine's roof: is it computing or moving bytes that bounds it?

    found = roofline(load(folder), estimates)      one row per base case and batch size

Williams, Waterman & Patterson 2009, "Roofline: An Insightful Visual Performance Model for Multicore
Architectures", CACM 52(4), 65-76: attainable FLOP/s = min(peak, intensity × bandwidth), with intensity
in FLOP per byte of memory traffic. Both peaks were measured on the machine (machine.json, jobs/machine/peaks.py);
nothing is taken from data sheets. Where they were not measured there is no roofline.

The traffic of a training step with batch b is counted, not measured, as if nothing stayed in a cache from
one layer to the next:

    bytes = 4 · (10 · P + b · (5 · A + 2 · I))

    P  parameters     read forward and backward; gradient written and read; Adam reads and writes the
                      parameter and both moments (Kingma & Ba 2015)                            = 10 × 4 bytes
    A  activations    outputs of all layers, ReLU in place: written and read forward, read backward; their
                      gradients written and read                                                = 5 × 4 bytes
    I  image          read forward and backward                                                 = 2 × 4 bytes

Caches make the true traffic less and the true intensity higher, temporary copies the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.load.results import Results, varied
from analysis.load.values import read_json
from analysis.measures.work import Work, counted, reported

NOT_MEASURED = (
    "Peak not measured: there is no machine.json with the peaks of this machine in the results folder. A local study "
    "writes it before its first trial; elsewhere run `python -m jobs.machine.peaks THREADS` on a node."
)
OTHER_MACHINE = "Peak not measured for these trials: machine.json is of {there}, the base cases ran on {here}."
NO_COUNT = "No base case in float32 on CPU cores, whose operations and bytes could be counted."


@dataclass(frozen=True)
class Machine:
    """What the cores of one worker can do at most: FLOP/s in float32 and bytes/s."""

    cpu: str
    threads: int
    flop_per_second: float
    bytes_per_second: float
    kernels: str

    @property
    def ridge(self) -> float:
        """The intensity in FLOP per byte from which on computing is the bound."""
        return self.flop_per_second / self.bytes_per_second


@dataclass(frozen=True)
class Roofline:
    """`points` has the columns POINTS; it is empty, and `note` says why, where there is no roofline."""

    machine: Machine | None
    points: pl.DataFrame
    note: str = ""


POINTS: dict[str, Any] = {
    "strategy": pl.String,
    "framework": pl.String,
    "global_batch": pl.Int64,
    "setting": pl.String,  # the factors that vary, "" if none does
    "n_launches": pl.Int64,
    "intensity": pl.Float64,  # FLOP per byte
    "flop_per_second": pl.Float64,
    "flop_per_second_low": pl.Float64,
    "flop_per_second_high": pl.Float64,
    "peak": pl.Float64,  # FLOP/s
    "bandwidth": pl.Float64,  # bytes/s
    "roof": pl.Float64,  # FLOP/s attainable at that intensity
    "of_peak": pl.Float64,
    "of_roof": pl.Float64,
    "bound": pl.String,  # by which of the two the roof is set
    "warning": pl.String,  # as of the estimates
}


def machine(results: Results) -> Machine | None:
    """The measured machine, None if it was not measured."""
    content, _ = read_json(results.folder / "machine.json")
    try:
        compute, bandwidth = content["compute"], content["bandwidth"]  # type: ignore[index]
        return Machine(
            str(content["cpu"]),  # type: ignore[index]
            int(content["threads"]),  # type: ignore[index]
            _positive(compute["flop_per_second"]),
            _positive(bandwidth["bytes_per_second"]),
            f"{compute['kernel']} ({compute['library']}); {bandwidth['kernel']}",
        )
    except (TypeError, KeyError, ValueError):
        return None


def _positive(value: Any) -> float:
    if not 0.0 < float(value) < 1e300:
        raise ValueError(value)
    return float(value)


def work(results: Results, row: dict[str, Any]) -> Work | None:
    """What a training step of the point in `row` does: as its launches say, else as it was counted of its model."""
    same = (pl.col(name).eq_missing(row[name]) for name in ("strategy", "workers", "global_batch", *results.factors))
    for trial_id in results.trials.filter(*same, status="ok")["trial_id"]:
        if said := reported(results.outcome(trial_id)):
            return said
    data = results.study.get("data")
    return counted(row.get("model") or "cnn", data.get("side") if isinstance(data, dict) else None)


def roofline(results: Results, estimates: pl.DataFrame) -> Roofline:
    """The base cases of `estimates`, whatever scaling mode they begin, under the roof of the machine."""
    nothing = pl.DataFrame(schema=POINTS)
    there = machine(results)
    if there is None:
        return Roofline(None, nothing, NOT_MEASURED)
    bases = estimates.filter(pl.col("strategy") == pl.col("base_case"), pl.col("workers") == 1)
    bases = bases.unique(["strategy", "global_batch", *results.factors], maintain_order=True)
    apart = varied(bases, results.factors)
    rows, elsewhere = [], set()
    for row in bases.iter_rows(named=True):
        on_cores_in_float32 = row.get("precision") == "float32" and not row.get("gpus_per_worker")
        done = work(results, row) if on_cores_in_float32 else None
        if done is None:
            continue
        if row["device"] != there.cpu or row.get("threads_per_worker") != there.threads:
            elsewhere.add(f"{row['device']} with {row.get('threads_per_worker')} threads")
            continue
        rows.append(_point(row, done, there, ", ".join(f"{name} {row[name]}" for name in apart)))
    if rows:
        return Roofline(there, pl.DataFrame(rows, schema=POINTS, orient="row"))
    of = f"{there.cpu} with {there.threads} threads"
    note = OTHER_MACHINE.format(there=of, here=", ".join(sorted(elsewhere))) if elsewhere else NO_COUNT
    return Roofline(there, nothing, note)


def _point(row: dict[str, Any], done: Work, there: Machine, setting: str) -> dict[str, Any]:
    intensity = done.intensity(row["global_batch"])
    roof = min(there.flop_per_second, intensity * there.bytes_per_second)
    rates = {
        "flop_per_second" + end: None if row["throughput" + end] is None else row["throughput" + end] * done.flop
        for end in ("", "_low", "_high")
    }
    achieved = row["throughput"] * done.flop
    return {
        **{name: row[name] for name in ("strategy", "framework", "global_batch", "n_launches")},
        "setting": setting,
        "intensity": intensity,
        **rates,
        "peak": there.flop_per_second,
        "bandwidth": there.bytes_per_second,
        "roof": roof,
        "of_peak": achieved / there.flop_per_second,
        "of_roof": achieved / roof,
        "bound": "computing" if intensity >= there.ridge else "memory bandwidth",
        "warning": row["warning"],
    }
