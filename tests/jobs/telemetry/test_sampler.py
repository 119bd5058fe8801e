"""The sampler of a node: its cores, its neighbours, its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from analysis.load import samples
from analysis.load.results import load
from analysis.measures.efficiency import estimate
from jobs.contract.environment import RankEnvironment
from jobs.contract.parts import Steps
from jobs.contract.trial import Trial
from jobs.rank.rendezvous import Rendezvous
from jobs.telemetry import cpu as telemetry_cpu
from jobs.telemetry.lines import FLUSH_SECONDS, Lines
from jobs.telemetry.plan import Plan, Sampled, file_name
from jobs.telemetry.start import sampling
from tests.running import launch, until
from tests.sampler import read, sampler

CORE = max(os.sched_getaffinity(0))


@contextmanager
def busy(cpu: int, seconds: float = 60.0) -> Iterator[psutil.Process]:
    """A process that wants all of a core."""
    code = f"import time\nend = time.time() + {seconds}\nwhile time.time() < end: 1"
    process = subprocess.Popen(["taskset", "-c", str(cpu), sys.executable, "-c", code])
    try:
        until(lambda: psutil.Process(process.pid).cpu_affinity() == [cpu])
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two ranks of which one has a neighbour on its core."""
    results = tmp_path_factory.mktemp("disturbed")
    steps = Steps(warmup=3, measured=40, compute_only=3)
    trial = Trial.of(strategy="torch-ddp", workers=2, global_batch=128, steps=steps, telemetry={"hertz": 10})
    with busy(min(os.sched_getaffinity(0)), 300):
        done = launch(trial, results)
    assert done.outcome.status == "ok", done.outcome.error
    return results


@pytest.mark.quiet
def test_a_trial_has_the_samples_of_its_ranks_in_each_of_its_phases(disturbed: Path) -> None:
    results = load(disturbed)
    assert not results.set_aside
    seen = samples.samples(results)
    assert set(seen["phase"]) == set(samples.PHASES)
    ranks = seen.filter(of="rank", phase="measured", quantity="cpu_percent")
    assert set(ranks["subject"]) == {"0", "1"}
    (row,) = samples.summary(results).iter_rows(named=True)
    assert 5 < row["rank_cpu_percent"] < 105
    assert 100e6 < row["peak_rss_bytes"] < 4e9  # a PyTorch that trains
    # Gradients of 387,466 parameters, which two ranks tell each other: each sends 1.5 MB in each step, and
    # whoever else uses the loopback meanwhile, more.
    assert row["network_bytes_per_step"] > 2 * 1.5e6


def test_a_noisy_neighbour_is_flagged_where_the_results_are_read(disturbed: Path) -> None:
    results = load(disturbed)
    (row,) = samples.summary(results).iter_rows(named=True)
    assert row["others_cores"] > 0.25
    assert row["noisy_neighbour"]
    (warning,) = set(estimate(results)["warning"])
    assert "a noisy neighbour in 1 of 1 launches" in warning


def test_no_energy_is_claimed_where_no_counter_tells_it(disturbed: Path) -> None:
    (row,) = samples.summary(load(disturbed)).iter_rows(named=True)
    if row["cpu_energy_joules"] is None:
        assert row["joules_per_sample"] is None
        assert row["energy_source"] is None
        whats = samples.notes(load(disturbed))["what"].to_list()
        assert whats.count("cpu_energy_joules") == 1
    else:
        assert row["joules_per_sample"] > 0


@pytest.mark.quiet
def test_what_a_rank_uses_is_not_taken_for_its_neighbours(tmp_path: Path) -> None:
    """Two samplers at the same time: to one the busy process is a rank, to the other it is not."""
    with busy(CORE) as worker, busy(CORE, 60) as other:
        began, times = time.monotonic(), worker.cpu_times()
        with (
            sampler(tmp_path / "a.jsonl", [(worker.pid, [CORE])]),
            sampler(tmp_path / "b.jsonl", [(other.pid, [CORE])]),
        ):
            time.sleep(3)
            used = [p.cpu_times().user for p in (worker, other)]
        share = (used[0] - times.user) / (time.monotonic() - began)
    for name in ("a", "b"):
        rows = read(tmp_path / f"{name}.jsonl", "sample")
        seconds = np.diff([row["unix"] for row in rows])
        others = np.average([row["node"]["others_cores"] for row in rows[1:]], weights=seconds)
        percent = np.average([row["ranks"][0]["cpu_percent"] for row in rows[1:]], weights=seconds)
        # Each has the other for a neighbour, of the same size, and whoever else is on this core, which is one.
        assert others > 0.6 * share
        assert others + percent / 100 == pytest.approx(1.0, abs=0.15)


@pytest.mark.quiet
def test_what_a_rank_has_started_counts_as_its_own(tmp_path: Path) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = bytearray(200_000_000)\\nwhile 1: x'])"
    parent = subprocess.Popen(["taskset", "-c", str(CORE), sys.executable, "-c", code], start_new_session=True)
    try:
        child = until(lambda: psutil.Process(parent.pid).children())[0]
        until(lambda: child.memory_info().rss > 200e6)
        with sampler(tmp_path / "t.jsonl", [(parent.pid, [CORE])]):
            time.sleep(1.5)
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()
    seen = [sample["ranks"][0] for sample in read(tmp_path / "t.jsonl", "sample")]
    assert seen[-1]["rss_bytes"] > 200e6
    # A sample that comes late leaves the next a time too short to tell.
    assert max(rank["cpu_percent"] or 0.0 for rank in seen) > 5


@pytest.mark.quiet
def test_what_has_ended_of_a_rank_is_still_its_own(tmp_path: Path) -> None:
    """Else it would be a neighbour's: the cores remember it."""
    burn = "import time\nwhile time.process_time() < 0.2: 1"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {burn!r}]); print(flush=True); input()"
    parent = subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        parent.stdout.readline()
        assert telemetry_cpu._cpu(psutil.Process(parent.pid)) >= 0.18
    finally:
        parent.kill()
        parent.communicate()


def test_the_sampler_is_no_part_of_the_rank_that_has_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rank = telemetry_cpu._Rank(Sampled(0, os.getpid(), [CORE], ""), lambda *_: None)
    reader, itself = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
    try:
        monkeypatch.setattr(telemetry_cpu.os, "getpid", lambda: itself.pid)
        children = rank._children(rank._pid)
        assert reader.pid in children
        assert itself.pid not in children
    finally:
        for process in (reader, itself):
            process.kill()
            process.wait()


def test_the_sampler_leaves_the_cores_of_the_workers_where_there_are_others(tmp_path: Path) -> None:
    me, all_cores = os.getpid(), sorted(os.sched_getaffinity(0))
    with sampler(tmp_path / "one.jsonl", [(me, all_cores[:1])]) as process:
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
    (start,) = read(tmp_path / "one.jsonl", "start")
    free = set(range(os.cpu_count() or 1)) - telemetry_cpu.with_siblings(all_cores[:1])
    assert set(start["sampler_cpus"]) <= free or not free
    assert start["shares_cores"] == (not free)
    with sampler(tmp_path / "all.jsonl", [(me, list(range(os.cpu_count() or 1)))]):
        pass
    (start,) = read(tmp_path / "all.jsonl", "start")
    assert start["shares_cores"]
    assert start["sampler_cpus"]


@pytest.mark.quiet
def test_a_rate_is_kept_and_the_end_is_told(tmp_path: Path) -> None:
    with sampler(tmp_path / "t.jsonl", [(os.getpid(), [CORE])], hertz=10):
        time.sleep(2)
    times = [row["unix"] for row in read(tmp_path / "t.jsonl", "sample")]
    assert 10 <= len(times) <= 40
    assert times == sorted(times)
    (end,) = read(tmp_path / "t.jsonl", "end")
    assert end["samples"] == len(times)
    switches = [row for row in read(tmp_path / "t.jsonl", "sample") if "voluntary_switches" in row["ranks"][0]]
    assert len(switches) == 1  # a file for each thread: not at each sample


def test_a_sampler_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """As when a scheduler suspends a job."""
    with sampler(tmp_path / "t.jsonl", [(os.getpid(), [CORE])], hertz=10) as process:
        for _ in range(2):
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.4)
            process.send_signal(signal.SIGCONT)
            time.sleep(0.1)
        resumed = time.time()
        time.sleep(1)
    assert sum(row["unix"] > resumed for row in read(tmp_path / "t.jsonl", "sample")) > 3


def test_lines_are_held_back_from_a_slow_file_system(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "t.jsonl")
    lines.note("a", "first")
    lines.note("a", "again")
    lines.begin(host="h")
    now = time.monotonic()
    lines.flush(now)
    assert [json.loads(line)["kind"] for line in (tmp_path / "t.jsonl").read_text().splitlines()] == ["start", "note"]
    lines.add("sample")
    lines.flush(now + 0.5 * FLUSH_SECONDS)
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 2
    lines.flush(now + 2 * FLUSH_SECONDS)
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 3


WORKER = """
import os, sys, time
from pathlib import Path
from jobs.contract.environment import RankEnvironment
from jobs.rank.rendezvous import Rendezvous
from jobs.telemetry.start import sampling
with sampling(Path(sys.argv[1]), 10.0, os.sched_getaffinity(0), Rendezvous(RankEnvironment(), "x", 10.0)):
    time.sleep(60)
"""


def test_the_sampler_dies_with_its_worker_and_writes_what_it_holds(tmp_path: Path) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)])
    try:
        (child,) = until(lambda: psutil.Process(worker.pid).children())
        (file,) = until(lambda: list(tmp_path.glob("telemetry-*.jsonl")))
        time.sleep(1)
    finally:
        worker.kill()
        worker.wait()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 10)
    assert len(read(file, "sample")) > 1
    assert len(read(file, "end")) == 1


def samplers() -> list[psutil.Process]:
    """Those that this process has started; tests that find one answer for those that find none."""
    return [child for child in psutil.Process().children() if "jobs.telemetry.sampler" in child.cmdline()]


def test_a_sampler_that_dies_is_a_note_and_no_more(tmp_path: Path) -> None:
    with sampling(tmp_path, 10.0, os.sched_getaffinity(0), Rendezvous(RankEnvironment(), "x", 10.0)):
        child = until(samplers)[0]
        (file,) = until(lambda: list(tmp_path.glob("telemetry-*.jsonl")))
        child.kill()
        until(lambda: child.status() == psutil.STATUS_ZOMBIE)
    assert read(file, "note")[-1]["what"] == "sampler"
    assert read(file, "note")[-1]["why"] == "was killed by SIGKILL"


def test_a_sampler_that_cannot_write_costs_the_trial_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with sampling(tmp_path / "gone", 10.0, os.sched_getaffinity(0), Rendezvous(RankEnvironment(), "x", 10.0)):
        child = until(samplers)[0]
        until(lambda: child.status() == psutil.STATUS_ZOMBIE)
    assert "telemetry: the sampler ended with exit code 1" in capfd.readouterr().out


def test_only_the_first_rank_of_a_node_starts_a_sampler_and_off_means_none(tmp_path: Path) -> None:
    rendezvous = Rendezvous(RankEnvironment(), "x", 10.0)
    with sampling(tmp_path, 0.0, {0}, rendezvous):
        assert not samplers()
    rendezvous.place = RankEnvironment(local_rank=1)
    with sampling(tmp_path, 2.0, {0}, rendezvous):
        assert not samplers()


def test_a_sampler_is_told_the_ranks_of_its_own_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of other nodes have numbers of processes that somebody else may have here."""
    plans: list[Plan] = []
    monkeypatch.setattr("jobs.telemetry.start._start", lambda plan: plans.append(plan))
    rendezvous = Rendezvous(RankEnvironment(), "x", 10.0)
    (mine,) = rendezvous.peers
    places = [(0, 0, "n1"), (1, 0, "n1"), (2, 1, "n2")]
    rendezvous.peers = [replace(mine, rank=rank, node_rank=node, host=host) for rank, node, host in places]
    rendezvous.place = RankEnvironment(rank=2, world_size=3, node_rank=1)
    with sampling(tmp_path, 2.0, {0}, rendezvous):
        pass
    assert [(plan.host, [rank.rank for rank in plan.ranks]) for plan in plans] == [("n2", [2])]
    assert Path(plans[0].file).name == "telemetry-n2.jsonl"


def test_nodes_that_share_a_host_have_files_of_their_own() -> None:
    assert file_name("n1.example", 3, alone=True) == "telemetry-n1.example.jsonl"
    assert file_name("a/../b", 3, alone=False) == "telemetry-a-..-b-3.jsonl"


def packages(root: Path, microjoules: int) -> None:
    for name, said in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys")):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "name").write_text(f"{said}\n")
        (root / name / "energy_uj").write_text(f"{microjoules}\n")
        (root / name / "max_energy_range_uj").write_text("10000000\n")


def test_energy_of_a_package_goes_on_when_its_counter_begins_anew(tmp_path: Path) -> None:
    notes: list[tuple[str, str]] = []
    packages(tmp_path, 9_000_000)
    found = telemetry_cpu.Packages(lambda *note: notes.append(note), tmp_path)
    assert found.sample() == {"package-0": 0.0}
    packages(tmp_path, 9_500_000)
    assert found.sample() == {"package-0": 0.5}
    packages(tmp_path, 500_000)
    assert found.sample() == {"package-0": 1.5}
    assert not notes


def test_energy_that_may_not_be_read_is_null_with_the_reason(tmp_path: Path) -> None:
    notes: list[tuple[str, str]] = []
    packages(tmp_path, 1)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    (tmp_path / "intel-rapl:0" / "energy_uj").mkdir()  # as root reads what others may not
    assert telemetry_cpu.Packages(lambda *note: notes.append(note), tmp_path).sample() is None
    assert notes[0] == ("cpu_energy_joules", f"Is a directory: {tmp_path / 'intel-rapl:0' / 'energy_uj'}")


def test_the_cores_that_count_are_told_by_their_number(tmp_path: Path) -> None:
    """An offline CPU has no line: the third line may be cpu3's."""
    stat = tmp_path / "stat"
    lines = ["cpu  400 0 100 900 100 50 50 400 0 0", "cpu0 100 0 50 400 50 0 0 0 0 0"]
    stat.write_text("\n".join([*lines, "cpu3 300 0 50 500 50 50 50 400 7 0", "intr 9", ""]))
    tick = telemetry_cpu.TICK
    found: tuple[Any, ...] = telemetry_cpu.cpu_seconds({3}, stat)
    assert found == pytest.approx((2000 * tick, 1000 * tick, 350 * tick, 400 * tick))
