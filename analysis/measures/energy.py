"""Energy per sample, where a counter tells it; where none does, nothing is said, and never zero.

    frame = energies(load(folder))      one row per training point that has any

What is counted is named in `source`: the boards of the GPUs that the trial used, or the packages of the
CPUs in the nodes, whoever else computed on them. Neither is the power at the wall: memory, fans, network
and losses of the supply are not in it.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from analysis.load import samples
from analysis.load.results import Results
from analysis.measures.efficiency import KEY, MODES, ORDER
from analysis.stats import bootstrap

MEASURED: dict[str, Any] = {
    "source": pl.String,
    "n_launches": pl.Int64,  # that have energy, of `n_ok`
    "n_ok": pl.Int64,
    "joules_per_sample": pl.Float64,  # Σ joules / Σ samples of the measured steps
    "joules_per_sample_low": pl.Float64,
    "joules_per_sample_high": pl.Float64,
    "watts": pl.Float64,  # Σ joules / Σ seconds, of all that is counted
    "over_base": pl.Float64,  # joules per sample over those of the base case, by the same counter
    "over_base_low": pl.Float64,
    "over_base_high": pl.Float64,
    "base_case": pl.String,
}
ABSENT = (
    "No energy is reported: no launch has a GPU energy counter or power reading, or readable CPU package counters "
    "(RAPL), that covers its measured steps."
)


def absent(results: Results) -> str:
    """Why there is no energy: ABSENT, and what the samplers of the first launch with telemetry said."""
    sampled = results.trials.filter(pl.col("status") == "ok", pl.col("telemetry_samples").is_not_null())
    found = samples.notes(results, sampled["trial_id"].head(1))
    found = found.filter(pl.col("what").is_in(["energy_joules", "power_watts", "cpu_energy_joules"]))
    said = [f"{what}: {why}" for what, why in found.select("what", "why").unique(maintain_order=True).iter_rows()]
    short = sampled["telemetry_note"].drop_nulls().head(1).to_list()
    words = " ".join([ABSENT, *(f"Phases took turns: {note}." for note in short)])
    return f"{words} The sampler said: {'; '.join(said)}." if said else words


def energies(results: Results, *, confidence: float = 0.95, resamples: int = bootstrap.RESAMPLES) -> pl.DataFrame:
    """KEY, the factors and MEASURED. Launches of one point that were counted in different ways are rows of
    their own; intervals are over launches, null for a single one."""
    factors = list(results.factors)
    by = ["strategy", "workers", "global_batch", *factors]
    ok = results.trials.filter(pl.col("status") == "ok", pl.any_horizontal(*MODES))
    counted = ok.filter(pl.col("energy_joules").is_not_null())
    rows: list[dict[str, Any]] = []
    means: list[bootstrap.Mean] = []
    for mode in MODES:
        all_of = ok.filter(pl.col(mode)).group_by(by).len()
        sizes = {row[:-1]: row[-1] for row in all_of.iter_rows()}
        some = counted.filter(pl.col(mode))
        for part in some.partition_by(*by, "energy_source", maintain_order=True) if len(some) else []:
            first = part.row(0, named=True)
            (mean,) = bootstrap.resampled(
                (part["energy_joules"] / part["samples"]).to_numpy()[:, None], resamples, 0, first["point"]
            )
            low, high = mean.log_interval(confidence)
            means.append(mean)
            rows.append(
                {name: first[name] for name in (*KEY[1:], *factors)}
                | {"scaling": mode, "source": first["energy_source"], "n_launches": len(part)}
                | {"n_ok": sizes[part.select(by).row(0)], "joules_per_sample": mean.value}
                | {"joules_per_sample_low": low, "joules_per_sample_high": high}
                | {"watts": float(part["energy_joules"].sum()) / float(part["train_seconds"].sum())}
            )
    for row, mean in zip(rows, means, strict=True):
        _compare(row, mean, rows, means, factors, confidence)
    schema: dict[str, Any] = {name: results.trials.schema.get(name, pl.String) for name in KEY}
    schema |= {name: results.trials.schema[name] for name in factors} | MEASURED
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.selectors.float().fill_nan(None))
    return frame.sort(*(pl.col(name) for name in factors), *ORDER, nulls_last=True)


def _compare(
    row: dict[str, Any],
    mean: bootstrap.Mean,
    rows: list[dict[str, Any]],
    means: list[bootstrap.Mean],
    factors: list[str],
    confidence: float,
) -> None:
    """Fill in `over_base` of `row`, if its base case was counted in the same way."""
    same = ("scaling", "framework", "source", *factors)
    for other, base in zip(rows, means, strict=True):
        if other["communication"] == "none" and other["workers"] == 1 and all(other[n] == row[n] for n in same):
            row["base_case"] = other["strategy"]
            row["over_base"] = mean.value / base.value
            low, high = bootstrap.ratio_interval([mean], [base], confidence)
            row["over_base_low"], row["over_base_high"] = low, high
