"""One trial's folder ─▶ one row, or why not.

Every file of the folder is checked against the others: a row says "ok" only if the outcome, the trial
and the step lines of all ranks agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from analysis.load import bent, beside, summary, sums, telemetry
from analysis.load.lines import BrokenSteps, read_steps
from analysis.load.steps import MEASURED, measure, phases
from analysis.load.values import listed, mapping, number, read_json, text, time, whole
from analysis.wording import clean

FORMAT = 2  # the newest results format that is understood
STATUSES = ("ok", "failed", "timeout", "cancelled", "lost", "unfinished", "broken")
# What identifies a trial and is no factor of the experiment beside those that make the curve.
NOT_FACTORS = ("strategy", "workers", "global_batch", "repeat", "limits", "telemetry")
COLUMNS: dict[str, Any] = {
    "trial_id": pl.String,
    "point": pl.String,  # the id without its repeat: equal for all launches of one configuration
    "strategy": pl.String,
    "framework": pl.String,
    "communication": pl.String,
    "base_case": pl.String,  # the strategy whose run with one worker it is; null in results that do not say
    "workers": pl.Int64,
    "global_batch": pl.Int64,
    "repeat": pl.Int64,
    "strong": pl.Boolean,
    "weak": pl.Boolean,
    "status": pl.String,
    "error": pl.String,
    "launcher": pl.String,
    "order": pl.Int64,
    "started": pl.Datetime("us", "UTC"),
    "ended": pl.Datetime("us", "UTC"),
    "hosts": pl.Int64,  # how many
    "device": pl.String,
    "host_cpu": pl.String,  # of the host, which is the device if there is no accelerator
    "emulated": pl.Boolean,
    "concurrent": pl.Boolean,  # another trial of the study ran at the same time
    "has_sums": pl.Boolean,  # its outcome tells whether its files are as they were; null without an outcome
    "startup_seconds": pl.Float64,
    "first_step_seconds": pl.Float64,
    "test_accuracy": pl.Float64,
    # Of a trial with until_accuracy, null without: whether it came to it, the training seconds (without
    # evaluations) and steps until then or until it gave up, and the best accuracy on the way.
    "accuracy_reached": pl.Boolean,
    "accuracy_seconds": pl.Float64,
    "accuracy_steps": pl.Int64,
    "accuracy_best": pl.Float64,
    "prepare_seconds": pl.Float64,  # of an inference trial: before its first call
    "max_difference": pl.Float64,  # of its logits from eager execution's
    "cpu_seconds_per_sample": pl.Float64,  # of an ingest trial, readers included
    "memory_bytes": pl.Float64,
    **MEASURED,
    **beside.BESIDE,
    **summary.SUMMARY,
    **bent.BENT,
}


# What other programs leave in folders: as in jobs/contract/files.py, which the analysis does not know.
LITTER = (
    ".DS_Store", "._*", ".AppleDouble", ".localized", ".Spotlight-V100", ".Trash*", ".fseventsd", ".TemporaryItems",
    "__MACOSX", "[Tt]humbs.db", "ehthumbs*.db", "[Dd]esktop.ini", "$RECYCLE.BIN", "System Volume Information",
    ".directory", "@eaDir", "#recycle", "#snapshot", ".snapshot", "lost+found", ".nfs*", ".fuse_hidden*", ".smbdelete*",
    ".ipynb_checkpoints", "*~", ".*.sw[a-p]", "~$*", ".~lock.*", ".#*", "#*#", ".goutputstream-*", "Icon\r",
    ".dropbox*", ".stfolder", ".stversions", ".syncthing.*", ".~tmp~", ".rsync-partial", ".*.part",
)  # fmt: skip


@dataclass(frozen=True)
class SetAside:
    """A file or folder that was not used, or not in full, and why."""

    path: Path
    reason: str


def entries(folder: Path) -> list[Path]:
    """What is in `folder`, in order of names, but for what other programs left there."""
    return sorted(path for path in folder.iterdir() if not any(fnmatchcase(path.name, p) for p in LITTER))


def read(home: Path, set_aside: list[SetAside], check_steady: bool, steps: bool = True) -> dict[str, Any] | None:
    """The row of the trial in folder `home`, None if it is none; what is wrong goes to `set_aside`."""
    if not home.is_dir():
        set_aside.append(SetAside(home, "not a trial's folder"))
        return None
    content, fault = read_json(home / "trial.json")
    if content is None:
        set_aside.append(SetAside(home, fault or "no trial.json: not a trial's folder"))
        return None
    strategy, workers = content.get("strategy"), whole(content.get("workers"), 1)
    batch, repeat = whole(content.get("global_batch"), 1), whole(content.get("repeat", 0), 0)
    if not isinstance(strategy, str) or workers is None or batch is None or repeat is None:
        wrong = "trial.json lacks a valid strategy, workers, global_batch or repeat"
        set_aside.append(SetAside(home, wrong))
        return None
    row: dict[str, Any] = {
        "trial_id": clean(home.name),
        "point": re.sub(r"-r\d+$", "", clean(home.name)),
        "strategy": clean(strategy),
        "workers": workers,
        "global_batch": batch,
        "repeat": repeat,
        **beside.planned(content),
        **_factors(content),
    }
    outcome, fault = read_json(home / "outcome.json")
    if outcome is None:
        row |= {"status": "broken" if fault else "unfinished", "error": fault}
    else:
        row |= _outcome_columns(outcome)
        fault = _named_otherwise(home, content) or _outcome_fault(home, outcome, row)
        if not fault:
            fault, measured = _by_its_files(home, content, outcome, row, check_steady, steps)
            row |= measured
        if not fault and row["status"] == "ok" and steps and check_steady:
            row |= _telemetry(home, content, outcome, row, set_aside)
    if fault:
        row |= {"status": "broken", "error": fault}
        set_aside.append(SetAside(home, fault))
    return row


def _by_its_files(
    home: Path, trial: dict[str, Any], outcome: dict[str, Any], row: dict[str, Any], check_steady: bool, steps: bool
) -> tuple[str, dict[str, Any]]:
    """Why the files do not bear the outcome out, a file that is not what it was before what follows from it; and what
    they say was measured if they do."""
    ok, measured = row["status"] == "ok", {}
    try:
        then = sums.stated(outcome)
    except ValueError as error:
        return str(error), {}
    found = [sums.differing(home, then, ended_well=ok, steps=steps)]
    try:
        measured = _measured(home, trial, outcome, row, check_steady, then) if ok and steps else {}
    except (BrokenSteps, OSError) as error:
        found.append(str(error))
    fault = ": ".join(dict.fromkeys(filter(None, found)))
    return fault, {} if fault else measured


def _measured(
    home: Path,
    trial: dict[str, Any],
    outcome: dict[str, Any],
    row: dict[str, Any],
    check_steady: bool,
    then: Mapping[str, sums.Sum] | None,
) -> dict[str, Any]:
    reports = outcome.get("ranks") or outcome.get("exits")
    expected = range(len(reports)) if isinstance(reports, list) and reports else None
    steps = mapping(trial.get("steps"))
    planned, alone = whole(steps.get("measured"), 1), whole(steps.get("compute_only"), 0)
    found = phases(read_steps(home, then), expected)
    companions, rounds = beside.read(home, trial, outcome, then), beside.rounds_of(trial)
    measured = measure(
        found, row["global_batch"], planned, planned_alone=alone, planned_rounds=rounds,
        unused=beside.unused(companions), workload=str(trial.get("workload") or "train"), check_steady=check_steady,
    )  # fmt: skip
    if rounds is not None:
        measured |= beside.measure(found, companions, row["global_batch"], row["workers"])
    alone_seconds = np.median(found["compute_only"].seconds, axis=1).tolist() if alone else []
    return measured | bent.by_host(outcome, dict(enumerate(alone_seconds)))


def _telemetry(
    home: Path, trial: dict[str, Any], outcome: dict[str, Any], row: dict[str, Any], set_aside: list[SetAside]
) -> dict[str, Any]:
    """The summary of what the samplers saw, and whose are missing. A broken file costs the trial nothing else."""
    nodes, faults = telemetry.read(home)
    set_aside += [SetAside(path, reason) for path, reason in faults]
    steps = round(row["samples"] / row["global_batch"])
    gpus = row["workers"] * (whole(row.get("gpus_per_worker"), 0) or 0)
    asked = trial.get("telemetry")
    hosts = {str(report.get("host")) for report in bent.reports_of(outcome)} - {node.host for node in nodes}
    found = summary.summarize(nodes, outcome.get("ranks"), row["train_seconds"], row["samples"], steps, gpus)
    if hosts and isinstance(asked, dict) and asked.get("hertz"):
        found["bent"] = "; ".join(filter(None, [row["bent"], f"no telemetry of {len(hosts)} of {row['hosts']} hosts"]))
    return found


def _outcome_columns(outcome: dict[str, Any]) -> dict[str, Any]:
    hardware, hosts = mapping(outcome.get("hardware")), outcome.get("hosts")
    reports, first = bent.reports_of(outcome), mapping(next(iter(listed(outcome.get("ranks"))), None))
    return {
        "status": text(outcome.get("status")),
        "error": text(outcome.get("error")) or "",
        "framework": text(outcome.get("framework")),
        "communication": text(outcome.get("communication")),
        "base_case": text(outcome.get("base_case")),
        "launcher": text(outcome.get("launcher")),
        "order": whole(outcome.get("order"), 0),
        "started": time(outcome.get("started")),
        "ended": time(outcome.get("ended")),
        "hosts": len(hosts) if isinstance(hosts, list) else None,
        "device": " + ".join(bent.devices(reports) or bent.devices([outcome])) or None,
        "host_cpu": " + ".join(bent.host_cpus(reports) or bent.host_cpus([outcome])) or None,
        "emulated": bool(
            hardware.get("emulated") or hardware.get("simulated") or outcome.get("emulated") or outcome.get("simulated")
        ),
        "concurrent": outcome.get("concurrent") is True,
        "has_sums": outcome.get("sums") is not None,
        "startup_seconds": number(outcome.get("startup_seconds")),
        "first_step_seconds": number(outcome.get("first_step_seconds")),
        "test_accuracy": number(outcome.get("test_accuracy")),
        **_accuracy(outcome),
        "prepare_seconds": number(first.get("prepare_seconds")),
        "max_difference": number(first.get("max_difference")),
        "cpu_seconds_per_sample": number(first.get("cpu_seconds_per_sample")),
        "memory_bytes": number(first.get("memory_bytes")),
        **bent.of(outcome),
    }


def _accuracy(outcome: dict[str, Any]) -> dict[str, Any]:
    """What the training until an accuracy came to; nothing if the outcome has no usable curve of it."""
    curve = accuracy_curve(outcome)
    if not curve:
        return {}
    reached = mapping(outcome.get("accuracy_reached"))
    step, seconds, _ = curve[-1]
    return {
        "accuracy_reached": bool(reached),
        "accuracy_seconds": number(reached.get("seconds")) or seconds,
        "accuracy_steps": whole(reached.get("step"), 1) or step,
        "accuracy_best": max(accuracy for _, _, accuracy in curve),
    }


def accuracy_curve(outcome: dict[str, Any]) -> list[tuple[int, float, float]]:
    """Step, training seconds until then, and held-out accuracy of each evaluation; [] if there is none."""
    found = []
    for row in listed(outcome.get("accuracy_curve")):
        if isinstance(row, dict):
            step, seconds, share = whole(row.get("step"), 0), number(row.get("seconds")), number(row.get("accuracy"))
            if step is not None and seconds is not None and share is not None:
                found.append((step, seconds, share))
    return found


def _named_otherwise(home: Path, trial: dict[str, Any]) -> str:
    """A trial's id begins with its strategy, workers and batch and ends with its repeat."""
    begin = f"{trial['strategy']}-n{trial['workers']}-b{trial['global_batch']}-"
    if home.name.startswith(begin) and home.name.endswith(f"-r{trial.get('repeat', 0):02d}"):
        return ""
    return f"trial.json is that of {begin}…-r{trial.get('repeat', 0):02d}, not of this folder"


def _outcome_fault(home: Path, outcome: dict[str, Any], row: dict[str, Any]) -> str:
    """Why the outcome cannot be trusted, "" if it can."""
    written = outcome.get("format")
    if not isinstance(written, int) or isinstance(written, bool) or written > FORMAT:
        return f"outcome.json has format {written!r}; this version reads up to {FORMAT}"
    if outcome.get("trial_id") != home.name:
        return f"outcome.json belongs to another trial, {str(outcome.get('trial_id'))[:100]}"
    if row["status"] not in STATUSES[:5]:
        return f"outcome.json has the unknown status {str(outcome.get('status'))[:40]!r}"
    if outcome.get("workers", row["workers"]) != row["workers"]:
        return f"outcome.json says {outcome['workers']!r} workers, trial.json {row['workers']}"
    for name in ("started", "ended"):
        if outcome.get(name) is not None and row[name] is None:
            return f"outcome.json: {name} is not a time: {str(outcome[name])[:40]!r}"
    if row["started"] and row["ended"] and row["ended"] < row["started"]:
        return "the trial ended before it started: the clock went backwards"
    return ""


def _factors(trial: dict[str, Any]) -> dict[str, Any]:
    """Every scalar of trial.json that is a factor, nested names joined: steps.measured ─▶ steps_measured."""
    found: dict[str, Any] = {}
    for key, value in trial.items():
        if key in NOT_FACTORS:
            continue
        name = clean(key)
        parts = {f"{name}_{clean(k)}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
        for part, scalar in parts.items():
            if not isinstance(scalar, dict | list):
                found[part if part not in COLUMNS else f"trial_{part}"] = scalar
    return found
