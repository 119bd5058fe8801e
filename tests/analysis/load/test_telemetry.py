"""Telemetry as it is read: known counters, known answers, and nothing where nothing was told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from analysis.load import samples as telemetry
from analysis.load import summary as load_summary
from analysis.load.results import load
from analysis.measures.efficiency import estimate
from analysis.measures.table import render
from tests.analysis import generate

# The generated ranks train from STARTED to ENDED; the last part of that is the measured steps.
STARTED, ENDED = 1_000_000.0, 1_000_040.0
WATTS = 300.0
GPU = "GPU-a"


def start(**content: Any) -> dict[str, Any]:
    ranks = [{"rank": rank, "pid": 10 + rank, "cpus": [rank], "gpus": []} for rank in (0, 1)]
    told = {"kind": "start", "unix": STARTED - 5, "host": "node-0", "node_rank": 0, "hertz": 2.0, "ranks": ranks}
    return told | content


def sample(unix: float, **changes: Any) -> dict[str, Any]:
    """A sample of a quiet node that sends 1 MB in a second and whose GPU takes WATTS."""
    ranks = [{"rank": rank, "cpu_percent": 90.0 + rank, "rss_bytes": 1e9 + unix - STARTED} for rank in (0, 1)]
    seconds = unix - STARTED
    gpu = {
        "uuid": GPU,
        "sm_percent": 80.0,
        "power_watts": WATTS,
        "energy_joules": 1e6 + WATTS * seconds,
        "throttle": ["gpu_idle"],
        "pcie_sent_bytes_per_second": 1e6,
        "pcie_received_bytes_per_second": 3e6,
        "nvlink_sent_bytes": None,
    }
    node = {"cpu_percent": 50.0, "others_cores": 0.02, "stolen_cores": 0.0, "sent_bytes": 1e9 + 1e6 * seconds}
    energy = {"package-0": 100 + 40.0 * seconds, "package-1": 60.0 * seconds}
    row = {"kind": "sample", "unix": unix, "ranks": ranks, "gpus": [gpu], "node": node | {"cpu_energy_joules": energy}}
    for place, value in changes.items():
        part, _, key = place.partition("__")
        target = row[part][0] if isinstance(row[part], list) else row[part]
        target[key] = value
    return row


def samples(**changes: Any) -> list[dict[str, Any]]:
    return [sample(float(unix), **changes) for unix in np.arange(STARTED - 5, ENDED + 5, 0.5)]


def text(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One launch of two ranks, 20 s of measured steps in 40 s of training."""
    way = generate.Way("torch-ddp", rate=64 / 2, strong=generate.efficient(1.0))
    results = generate.study(
        tmp_path / "results", ways=[way], workers=(2,), scaling=("strong",), batch_global=64, repeats=1,
        measured=20, launch_cv=0.0, step_cv=0.0,
    )  # fmt: skip
    (home,) = (results / "trials").iterdir()
    outcome = json.loads((home / "outcome.json").read_text())
    for report in outcome["ranks"]:
        report |= {"train_started_unix": STARTED, "train_ended_unix": ENDED}
    (home / "outcome.json").write_text(json.dumps(outcome))
    return results


def write(folder: Path, content: str, name: str = "telemetry-node-0.jsonl") -> Path:
    (home,) = (folder / "trials").iterdir()
    (home / name).write_text(content)
    return home / name


def summary(folder: Path) -> dict[str, Any]:
    found = telemetry.summary(load(folder))
    assert len(found) == 1
    return found.row(0, named=True)


def test_counters_and_gauges_are_those_of_the_measured_steps(folder: Path) -> None:
    write(folder, text(start(), *samples()))
    row, trial = summary(folder), load(folder).trials.row(0, named=True)
    seconds = trial["train_seconds"]
    assert seconds == pytest.approx(20.0, rel=0.05)
    assert row["telemetry_samples"] == pytest.approx(2 * seconds, abs=1)
    assert row["rank_cpu_percent"] == pytest.approx(90.5)
    assert row["peak_rss_bytes"] == pytest.approx(1e9 + 40)
    assert row["gpu_sm_percent"] == 80.0
    assert row["gpu_power_watts"] == WATTS
    assert row["gpu_energy_joules"] == row["energy_joules"] == pytest.approx(WATTS * seconds)
    assert row["energy_source"] == "GPU energy counters"
    assert row["joules_per_sample"] == pytest.approx(WATTS * seconds / trial["samples"])
    assert row["cpu_energy_joules"] == pytest.approx(100 * seconds)
    assert row["network_bytes_per_step"] == pytest.approx(1e6 * seconds / 20)
    assert row["pcie_bytes_per_second"] == 4e6
    assert row["nvlink_bytes_per_step"] is None
    assert row["throttled_share"] == 0.0  # having nothing to do is no throttling
    assert not row["noisy_neighbour"]


def in_blocks(folder: Path, seconds: float) -> list[tuple[float, float]]:
    """Let the launch's ranks say that training and computing took turns, so long each; the blocks of training."""
    (home,) = (folder / "trials").iterdir()
    outcome = json.loads((home / "outcome.json").read_text())
    begins = np.arange(STARTED + 20, ENDED, 2 * seconds).tolist()
    spans = [("train", r, b) for r, b in enumerate(begins, 1)]
    spans += [("compute_only", r, b + seconds) for r, b in enumerate(begins, 1)]
    said = [{"phase": p, "block": r, "begin_unix": b, "end_unix": b + seconds} for p, r, b in spans]
    for report in outcome["ranks"]:
        report["blocks"] = said
    (home / "outcome.json").write_text(json.dumps(outcome))
    return [(begin, begin + seconds) for begin in begins]


def test_where_phases_took_turns_telemetry_is_of_the_blocks_of_training(folder: Path) -> None:
    """Twice as much power in training, and bytes in training alone."""
    blocks = in_blocks(folder, 2.0)
    rows, joules, sent = samples(), 0.0, 0.0
    for row in rows:
        trains = any(begin < row["unix"] <= end for begin, end in blocks)
        joules += 0.5 * (WATTS if trains else WATTS / 2)
        sent += 1e6 if trains else 0.0
        row["gpus"][0] |= {"power_watts": WATTS if trains else WATTS / 2, "energy_joules": joules}
        row["node"]["sent_bytes"] = sent
    write(folder, text(start(), *rows))
    row, trial = summary(folder), load(folder).trials.row(0, named=True)
    assert row["gpu_power_watts"] == WATTS
    assert row["gpu_energy_joules"] == pytest.approx(WATTS * trial["train_seconds"])
    assert row["network_bytes_per_step"] == pytest.approx(2e6 * trial["train_seconds"] / 20)
    assert row["telemetry_note"] is None


def test_blocks_that_are_too_short_for_telemetry_leave_what_is_told_of_all_phases(folder: Path) -> None:
    in_blocks(folder, 0.5)
    write(folder, text(start(), *samples(node__others_cores=0.3)))
    row = summary(folder)
    assert row["noisy_neighbour"]
    assert row["peak_rss_bytes"] == pytest.approx(1e9 + 40)
    assert [row[n] for n in ("energy_joules", "rank_cpu_percent", "network_bytes_per_step")] == [None] * 3
    assert row["telemetry_note"] == "blocks of 0.5 s are too short for samples every 0.5 s"


def test_a_sample_counts_for_the_time_that_it_stands_for(folder: Path) -> None:
    """A sampler that was kept from its core for the last ten seconds: they are a half of the measured ones."""
    sparse = [row for row in samples() if row["unix"] <= STARTED + 30 or row["unix"] >= ENDED]
    for row in sparse:
        row["gpus"][0]["sm_percent"] = 20.0 if row["unix"] >= ENDED else 80.0
    write(folder, text(start(), *(row for row in sparse if row["unix"] <= ENDED)))
    assert summary(folder)["gpu_sm_percent"] == pytest.approx(50.0, abs=2.0)


def test_a_nodes_window_is_told_by_its_own_ranks(folder: Path) -> None:
    """Clocks of nodes may be minutes apart."""
    (home,) = (folder / "trials").iterdir()
    outcome = json.loads((home / "outcome.json").read_text())
    outcome["ranks"][1] |= {"train_started_unix": STARTED + 300, "train_ended_unix": ENDED + 300}
    (home / "outcome.json").write_text(json.dumps(outcome))
    mine = [{"rank": 0, "pid": 10, "cpus": [0], "gpus": []}]
    write(folder, text(start(ranks=mine), *samples()))
    assert summary(folder)["gpu_energy_joules"] == pytest.approx(WATTS * load(folder).trials["train_seconds"][0])


def test_a_part_of_a_total_is_not_a_total(folder: Path) -> None:
    """One of two GPUs does not tell its power and energy."""
    rows = samples()
    for row in rows:
        row["gpus"].append(row["gpus"][0] | {"uuid": "GPU-b", "power_watts": None, "energy_joules": None})
    write(folder, text(start(), *rows))
    found = summary(folder)
    for name in ("gpu_power_watts", "gpu_energy_joules", "energy_joules", "joules_per_sample", "energy_source"):
        assert found[name] is None, name
    assert found["pcie_bytes_per_second"] == 8e6


def test_samples_are_long_and_know_when_the_training_began(folder: Path) -> None:
    write(folder, text(start(), *samples()))
    seen = telemetry.samples(load(folder))
    assert seen.schema == pl.Schema(telemetry.SAMPLES)
    power = seen.filter(of="gpu", quantity="power_watts")
    assert power["seconds"].to_list() == np.arange(-5, 45, 0.5).tolist()
    begins = power.group_by("phase").agg(pl.col("seconds").min()).sort("phase")
    assert begins["phase"].to_list() == list(telemetry.PHASES)
    assert begins["seconds"].to_list() == pytest.approx([-5.0, 0.0, 20.0, 40.5], abs=1)
    assert seen.filter(quantity="nvlink_sent_bytes").is_empty()  # null, not zero
    energy = seen.filter(of="node", quantity="cpu_energy_joules", phase="startup")
    assert energy["value"][0] == 100 - 5 * 100


def test_without_an_energy_counter_power_is_summed_over_time(folder: Path) -> None:
    write(folder, text(start(), *samples(gpus__energy_joules=None)))
    row = summary(folder)
    assert row["gpu_energy_joules"] == pytest.approx(WATTS * load(folder).trials["train_seconds"][0])
    assert row["energy_source"] == "GPU power over time"


def test_without_gpus_energy_is_that_of_the_packages_and_without_a_counter_none(folder: Path) -> None:
    rows = samples()
    write(folder, text(start(), *(row | {"gpus": []} for row in rows)))
    assert summary(folder)["energy_source"] == "CPU package counters"
    assert summary(folder)["energy_joules"] == pytest.approx(100 * load(folder).trials["train_seconds"][0])
    write(folder, text(start(), *(row | {"gpus": []} for row in samples(node__cpu_energy_joules=None))))
    row = summary(folder)
    assert row["rank_cpu_percent"] is not None
    for name in ("energy_joules", "energy_source", "joules_per_sample", "gpu_sm_percent", "throttled_share"):
        assert row[name] is None, name


@pytest.mark.parametrize(
    ("others", "stolen", "noisy"),
    [(0.05, 0.0, False), (0.2, 0.0, True), (0.0, 0.2, True), (-0.3, 0.2, True), (None, None, None)],
)
def test_a_neighbour_is_noisy_above_a_tenth_of_a_core(
    folder: Path, others: float | None, stolen: float | None, noisy: bool | None
) -> None:
    """Where the ranks' CPU time holds what the hypervisor stole, the others' share comes out below zero."""
    write(folder, text(start(), *samples(node__others_cores=others, node__stolen_cores=stolen)))
    assert summary(folder)["noisy_neighbour"] is noisy
    (warning,) = estimate(load(folder))["warning"]
    assert ("a noisy neighbour in 1 of 1 launches" in warning) == bool(noisy)
    assert ("noisy neighbour" in "\n".join(map(str, [render(estimate(load(folder))).caption]))) == bool(noisy)


def test_power_caps_are_throttling(folder: Path) -> None:
    rows = samples()
    for row in rows[::2]:
        row["gpus"][0]["throttle"] = ["sw_power_cap"]
    write(folder, text(start(), *rows))
    assert summary(folder)["throttled_share"] == pytest.approx(0.5, abs=0.03)


def test_a_sampler_that_died_early_counts_nothing_to_the_end(folder: Path) -> None:
    write(folder, text(start(), *(row for row in samples() if row["unix"] < STARTED + 30)))
    row = summary(folder)
    assert row["rank_cpu_percent"] == pytest.approx(90.5)
    assert row["network_bytes_per_step"] is None
    assert row["energy_source"] == "GPU power over time"


def test_a_line_that_was_cut_off_is_no_fault(folder: Path) -> None:
    write(folder, text(start(), *samples()) + '{"kind":"sample","unix":10000')
    assert load(folder).set_aside == []
    assert summary(folder)["gpu_power_watts"] == WATTS


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lines: [*lines[:5], "{{{\n", *lines[5:]], "line 6 not readable"),
        (lambda lines: [*lines[:5], '{"kind": "sample"}\n', "[]\n", *lines[5:]], "line 6 and 1 more"),
        (lambda lines: lines[1:], "its first line does not say"),
        (lambda lines: [], "its first line does not say"),
    ],
)
def test_a_broken_file_is_named_and_costs_the_trial_nothing(
    folder: Path, spoil: Callable[[list[str]], list[str]], said: str
) -> None:
    path = write(folder, "".join(spoil(text(start(), *samples()).splitlines(keepends=True))))
    results = load(folder)
    assert results.trials["status"].to_list() == ["ok"]
    (aside,) = results.set_aside
    assert aside.path == path
    assert said in aside.reason


@pytest.mark.parametrize("value", ["x", [], {"a": []}, True, 1e400, None])
def test_values_that_are_no_numbers_are_not_used(folder: Path, value: Any) -> None:
    spoilt = samples(gpus__power_watts=value, node__others_cores=value, ranks__cpu_percent=value, gpus__throttle=value)
    write(folder, text(start(), *spoilt, start(ranks=value, host=value, node_rank=value)))
    row = summary(folder)
    assert row["gpu_power_watts"] is None
    assert row["rank_cpu_percent"] == 91.0  # the other rank's
    telemetry.samples(load(folder))
    write(folder, text(start(ranks=value, host=value, node_rank=value), *samples(), {"kind": "note"}))
    assert telemetry.summary(load(folder)).is_empty()
    telemetry.samples(load(folder))
    telemetry.notes(load(folder))


def test_trials_without_telemetry_have_no_summary(folder: Path) -> None:
    results = load(folder)
    assert telemetry.summary(results).is_empty()
    assert telemetry.samples(results).is_empty()
    assert results.trials.select(*load_summary.SUMMARY).null_count().row(0) == (1,) * len(load_summary.SUMMARY)


def test_nodes_add_up_and_one_machine_is_counted_once(folder: Path) -> None:
    """Several nodes of a practice cluster are one host, whose network and packages all of them read."""
    one, two = ([{"rank": rank, "pid": 1, "cpus": [rank], "gpus": [GPU]}] for rank in (0, 1))
    write(folder, text(start(ranks=one), *samples()), "telemetry-node-0-0.jsonl")
    write(folder, text(start(ranks=two, node_rank=1), *samples(node__others_cores=0.5)), "telemetry-node-0-1.jsonl")
    same = summary(folder)
    assert same["others_cores"] == pytest.approx(0.5)  # the worse node's
    assert same["noisy_neighbour"]
    write(folder, text(start(ranks=two, node_rank=1, host="node-1"), *samples()), "telemetry-node-0-1.jsonl")
    several = summary(folder)
    for name in ("network_bytes_per_step", "cpu_energy_joules"):
        assert several[name] == pytest.approx(2 * same[name])
    assert set(telemetry.samples(load(folder))["node_rank"]) == {0, 1}


def test_a_gpu_that_was_not_seen_leaves_no_total(folder: Path) -> None:
    """Two workers with a GPU each, of which the sampler saw one: a part of the energy is not the energy."""
    (home,) = (folder / "trials").iterdir()
    write(folder, text(start(), *samples()))
    assert summary(folder)["energy_source"] == "GPU energy counters"
    trial = json.loads((home / "trial.json").read_text())
    (home / "trial.json").write_text(json.dumps(trial | {"gpus_per_worker": 1}))
    part = summary(folder)
    for name in ("gpu_energy_joules", "gpu_power_watts", "pcie_bytes_per_second", "joules_per_sample", "energy_source"):
        assert part[name] is None
    assert part["gpu_sm_percent"] == 80.0
    none = [row | {"gpus": []} for row in samples()]  # no driver: the packages' joules are not the trial's
    write(folder, text(start(), *none))
    assert (summary(folder)["joules_per_sample"], summary(folder)["cpu_energy_joules"] is None) == (None, False)


def test_notes_say_what_could_not_be_read(folder: Path) -> None:
    note = {"kind": "note", "unix": STARTED, "what": "cpu_energy_joules", "why": "Permission denied"}
    write(folder, text(start(), note, *samples()))
    found = telemetry.notes(load(folder))
    assert found.select("host", "what", "why").rows() == [("node-0", "cpu_energy_joules", "Permission denied")]
