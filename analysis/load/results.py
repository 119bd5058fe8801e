"""A results folder ─▶ tidy frames, and a list of what in it could not be trusted and why.

    results = load(Path("results/quick"))
    results.trials       one row per launch
    results.steps()      one row per rank and step
    results.set_aside    what was not used, each with its reason

docs/results-format.md is the contract. Nothing is dropped in silence: what is not in `trials` with
the status "ok" is there with another status, or in `set_aside`, or in both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from analysis.load import trial
from analysis.load.lines import LINE, read_steps
from analysis.load.trial import COLUMNS, FORMAT, SetAside
from analysis.load.values import read_json
from analysis.wording import clean


class NotResults(ValueError):
    """The folder is no results folder, or of a newer format; the message is one clear line."""


MOST_LEFT_OUT = 10  # launches, named one by one

# Factors that older trials did not have yet, with the value that these had all the same.
NEWER_FACTORS: dict[str, Any] = {
    "execution": "default",
    "workload": "train",
    "model": "cnn",
    "data_side": None,
    "layout": "default",
    "gpus_per_worker": 0,
    "tpu": "none",
    "learning_rate_rule": "none",
    "learning_rate_warmup": 0,
    "reference_batch": None,
    "until_accuracy": None,
    "steps_at_most": None,
    "steps_evaluate_every": 10,
    "steps_blocks": None,
}


@dataclass(frozen=True)
class Results:
    """A results folder as read.

    `trials` has the columns COLUMNS and one column per factor (`factors` names them: every other
    scalar of trial.json, `data.kind` as `data_kind`). Its `status` is the outcome's, "unfinished"
    without an outcome, or "broken" where the outcome says ok but the files do not bear it out; a
    broken trial is named in `set_aside` too. Measurements are null unless the status is "ok".
    """

    folder: Path
    study: dict[str, Any]
    trials: pl.DataFrame
    set_aside: list[SetAside]
    plan: dict[str, Any]
    factors: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.study.get("name") or self.folder.name)

    def steps(self, trial_ids: Iterable[str] | None = None) -> pl.DataFrame:
        """Every step line of the trials that are ok, or of `trial_ids`; read from the files now.

        Columns trial_id, rank, phase, step, seconds, data_seconds, samples, loss, warmup, block (null without).
        """
        if trial_ids is None:
            trial_ids = self.trials.filter(status="ok")["trial_id"]
        ids = list(trial_ids)
        frames = []
        for trial_id in ids:
            frame = read_steps(self.folder / "trials" / trial_id)
            frames.append(
                frame.with_columns(pl.col("warmup").fill_null(False), pl.col("phase").cast(pl.Categorical))
                .insert_column(0, pl.lit(trial_id, dtype=pl.Enum(ids)).alias("trial_id"))
            )  # fmt: skip
        if not frames:
            schema = {"trial_id": pl.String, "rank": pl.Int32, **LINE}
            return pl.DataFrame(schema=schema)
        return pl.concat(frames)

    def outcome(self, trial_id: str) -> dict[str, Any]:
        """The trial's outcome.json as it is (ranks, exits, versions, hardware …); {} if unreadable."""
        return read_json(self.folder / "trials" / trial_id / "outcome.json")[0] or {}


def load(folder: Path, *, check_steady: bool = True, steps: bool = True) -> Results:
    """Read a results folder. Raises NotResults if `folder` is none.

    `check_steady` may be switched off where only throughput is wanted, and quickly; the telemetry is then
    not looked at either. Without `steps` no step lines are read: what they tell is null, and an outcome is taken at
    its word.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotResults(f"{folder}: {'not a folder' if folder.exists() else 'there is no such folder'}")
    trials_folder = folder / "trials"
    if not trials_folder.is_dir() and not (folder / "study.yaml").is_file():
        raise NotResults(f"{folder}: not a results folder (it holds neither study.yaml nor trials/)")
    set_aside: list[SetAside] = []
    study = _study(folder, set_aside)
    plan = _plan(folder / "plan.json", set_aside)
    rows: list[dict[str, Any]] = []
    for home in trial.entries(trials_folder) if trials_folder.is_dir() else []:
        row = trial.read(home, set_aside, check_steady, steps)
        if row is not None:
            rows.append(row)
    driver_left = folder / "set-aside"
    if driver_left.is_dir():
        kept = "left by a killed or foreign run; kept, not used"
        set_aside += [SetAside(path, kept) for path in trial.entries(driver_left)]
    _mark_scaling(rows, study)
    _fill_frameworks(rows)
    for name, value in NEWER_FACTORS.items():
        if any(name in row for row in rows):
            for row in rows:
                row.setdefault(name, value)
    factors = tuple(dict.fromkeys(name for row in rows for name in row if name not in COLUMNS))
    return Results(folder, study, _frame(rows, factors), set_aside, plan, factors)


def left_out(results: Results) -> list[str]:
    """A line for each launch that cannot be trusted, so that it is not used, for people at a terminal."""
    home = results.folder / "trials"
    lines = [f"left out: {s.path.name}: {s.reason}" for s in results.set_aside if s.path.parent == home]
    more = len(lines) - MOST_LEFT_OUT
    return [clean(line) for line in lines[:MOST_LEFT_OUT]] + (
        [f"left out: {more} more; the report lists them"] if more > 0 else []
    )


def varied(frame: pl.DataFrame, factors: Iterable[str]) -> list[str]:
    """The factors that take several values in `frame`. A reference batch is given with a rule of the learning
    rate and with no other, so one that only says which trials have a rule is none of them."""
    found = [name for name in factors if len(frame) and frame[name].n_unique() > 1]
    implied = "learning_rate_rule" in found and frame["reference_batch"].drop_nulls().n_unique() < 2
    return [name for name in found if name != "reference_batch" or not implied]


def _study(folder: Path, set_aside: list[SetAside]) -> dict[str, Any]:
    path = folder / "study.yaml"
    try:
        content = yaml.safe_load(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        set_aside.append(SetAside(path, "not readable as YAML; the scaling modes are inferred from the trials"))
        return {}
    if not isinstance(content, dict):
        set_aside.append(SetAside(path, "not a mapping; the scaling modes are inferred from the trials"))
        return {}
    _refuse_newer(path, content)
    return content


def _plan(path: Path, set_aside: list[SetAside]) -> dict[str, Any]:
    plan, fault = read_json(path)
    if fault:
        set_aside.append(SetAside(path, fault))
    if plan:
        _refuse_newer(path, plan)
    return plan or {}


def _refuse_newer(path: Path, content: dict[str, Any]) -> None:
    written = content.get("format", FORMAT)
    if not isinstance(written, int) or written > FORMAT:
        raise NotResults(f"{path}: format {written!r}; this version reads up to {FORMAT}")


def _mark_scaling(rows: list[dict[str, Any]], study: dict[str, Any]) -> None:
    """Set `strong` and `weak` of each row: from the study, without one from the trials' batches."""
    batch = study.get("batch")
    if isinstance(batch, dict):
        modes = study.get("scaling")
        modes = modes if isinstance(modes, list) else ["strong", "weak"]
        whole = batch.get("global") if "strong" in modes else None
        each = batch.get("per_worker") if "weak" in modes else None
    else:
        whole = _commonest([(r["global_batch"], r["workers"]) for r in rows])
        each = _commonest([(r["global_batch"] / r["workers"], r["workers"]) for r in rows])
    for row in rows:
        if row.get("workload", "train") != "train":
            row["strong"] = row["weak"] = False  # a call of one process is no point of a scaling curve
            continue
        row["strong"] = row["global_batch"] == whole
        row["weak"] = isinstance(each, int | float) and row["global_batch"] == row["workers"] * each


def _commonest(pairs: list[tuple[Any, int]]) -> Any:
    """The batch seen at the most worker counts; of several, the largest. It must make a curve, i.e.
    be seen at two counts, unless all trials have the same number of workers."""
    seen = Counter(value for value, _ in set(pairs))
    if not seen or (max(seen.values()) < 2 and len({workers for _, workers in pairs}) > 1):
        return None
    return max(seen, key=lambda value: (seen[value], value))


def _fill_frameworks(rows: list[dict[str, Any]]) -> None:
    """A trial that did not finish does not say its framework; another launch of its strategy does."""
    for column in ("framework", "communication", "base_case"):
        known = {row["strategy"]: row[column] for row in rows if row.get(column)}
        for row in rows:
            if not row.get(column):
                row[column] = known.get(row["strategy"])
    for row in rows:
        alone = row.get("communication") == "none" or (row["workers"] == 1 and row["base_case"] == row["strategy"])
        if alone and row.get("exposed_seconds") is not None:
            row["exposed_seconds"] = 0.0  # a base case has nobody to talk to: the difference is drift


def _frame(rows: list[dict[str, Any]], factors: tuple[str, ...]) -> pl.DataFrame:
    columns = {name: [row.get(name) for row in rows] for name in COLUMNS}
    frame = pl.DataFrame(columns, schema=COLUMNS)
    return frame.with_columns(_factor_series(name, [row.get(name) for row in rows]) for name in factors)


def _factor_series(name: str, values: list[Any]) -> pl.Series:
    """One type per column: text wherever the trials do not agree on one."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool} or kinds <= {int} or kinds <= {int, float}:
        try:
            return pl.Series(name, values, dtype=_DTYPES[frozenset(kinds)], strict=False)
        except (pl.exceptions.PolarsError, OverflowError):
            pass  # an integer beyond 64 bits
    return pl.Series(name, [None if v is None else clean(str(v)) for v in values], dtype=pl.String)


_DTYPES = {
    frozenset[type](): pl.String,
    frozenset({bool}): pl.Boolean,
    frozenset({int}): pl.Int64,
    frozenset({float}): pl.Float64,
    frozenset({int, float}): pl.Float64,
}
