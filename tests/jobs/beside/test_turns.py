"""The base case beside a launch, by turns with its ranks: what is measured, and what ends the launch.

Ranks and base case are bare (tests/warm): who is stopped, continued, killed and told of it is real.
"""

from __future__ import annotations

import json
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from analysis.load.results import load
from analysis.measures.efficiency import estimate
from cluster.launcher import Launch
from cluster.local.launcher import LocalLauncher
from jobs.beside import turns
from jobs.contract.files import base_file
from jobs.contract.folder import write_trial
from jobs.contract.outcome import Outcome, read_outcome
from jobs.contract.parts import Data, Limits, Steps
from jobs.contract.trial import Trial
from jobs.workloads.blocks import order
from tests import failing
from tests.jobs.data.pictures import halves, saved
from tests.running import Done, in_blocks, launch, ranks_of, stop_in_its_turn, until

pytestmark = [pytest.mark.usefixtures("bare_ranks"), pytest.mark.timeout(120)]
SHORT = Steps(warmup=3, measured=12, compute_only=8, blocks=4)


def trial(steps: Steps = SHORT, batches: tuple[int, ...] = (8,), **fields: Any) -> Trial:
    factors = {"strategy": "torch-ddp", "workers": 2, "global_batch": 8, "steps": steps, "base_batches": batches}
    return Trial.of(**(factors | fields))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    from tests.warm.forges import bare, lead

    with pytest.MonkeyPatch.context() as patch:
        lead(patch, bare())
        yield launch(trial(batches=(8, 4)), tmp_path_factory.mktemp("beside"))


def test_each_round_has_a_block_of_each_phase_in_an_order_of_its_own(done: Done) -> None:
    assert done.outcome.status == "ok", done.outcome.error
    assert done.outcome.format == 2
    for rank in (0, 1):
        for phase, counted, warmup in (("train", 3, 3), ("compute_only", 2, 3)):
            rows = done.rows(rank, phase)
            assert [row["step"] for row in rows] == list(range(len(rows)))
            assert [row["block"] for row in rows] == [0] * warmup + [
                b for b in (1, 2, 3, 4) for _ in range(counted + 1)
            ]
            marks = [True] * warmup + ([True] + [False] * counted) * 4
            assert [row.get("warmup", False) for row in rows] == marks
    by_rank = [[(b["phase"], b["block"]) for b in report.blocks or []] for report in done.outcome.ranks]
    planned = [(p, r) for r, phases in enumerate(order(done.trial), start=1) for p in phases]
    assert by_rank[0] == by_rank[1] == [each for each in planned if isinstance(each[0], str)]
    assert len({tuple(phases) for phases in order(done.trial)}) > 1
    assert order(done.trial) != order(done.trial.model_copy(update={"repeat": 1}))


def test_the_base_case_measures_as_much_and_on_the_cores_of_each_worker(done: Done) -> None:
    assert done.outcome.base_beside == [8, 4]
    for batch, counted in ((8, 2), (4, 3)):
        rows, said = (
            lines(base_file(done.folder, batch, "jsonl")),
            json.loads(base_file(done.folder, batch, "json").read_text()),
        )
        assert {(row["phase"], row["samples"]) for row in rows} == {("base", batch)}
        assert [row["block"] for row in rows] == [0] * 3 + [b for b in (1, 2, 3, 4) for _ in range(counted + 1)]
        assert sum(not row.get("warmup", False) for row in rows) == 4 * counted
        assert (said["strategy"], said["batch"]) == ("torch", batch)
        assert [turn["block"] for turn in said["turns"]] == [1, 2, 3, 4]
        assert [turn["cpus"] for turn in said["turns"]] == [done.outcome.ranks[t["worker"]].cpus for t in said["turns"]]
        assert {turn["worker"] for turn in said["turns"]} == {0, 1}
        for ending in ("jsonl", "json"):
            assert base_file(done.folder, batch, ending).name in (done.outcome.sums or {})


def test_what_such_a_launch_leaves_is_what_the_analysis_reads(done: Done) -> None:
    """The results format is the only tie between the two."""
    results = load(done.folder.parents[1])
    assert results.set_aside == []
    row = results.trials.row(0, named=True)
    assert (row["status"], row["in_blocks"], row["base_beside"], row["rounds"]) == ("ok", True, "[4, 8]", 4)
    for batch, name in ((8, "base_whole_cost"), (4, "base_each_cost")):
        counted = [r["seconds"] for r in lines(base_file(done.folder, batch, "jsonl")) if not r.get("warmup")]
        assert row["rounds_unused"] or row[name] == pytest.approx(sum(counted) / len(counted) / batch)
        assert row[name] > 0
    (found,) = estimate(results).filter(strategy="torch-ddp", scaling="strong").rows(named=True)
    assert found["efficiency_from"] == "beside"
    assert found["speedup"] == pytest.approx(row["base_whole_cost"] * row["throughput"])


def test_nobody_computes_in_the_turn_of_another(done: Done) -> None:
    """By the clocks of all, a rank's block and a turn do not overlap; and by the CPU time that was taken."""
    taken = [
        turn for batch in (8, 4) for turn in json.loads(base_file(done.folder, batch, "json").read_text())["turns"]
    ]
    assert len(taken) == 8
    for report in done.outcome.ranks:
        for block in report.blocks or []:
            for turn in taken:
                assert block["end_unix"] <= turn["begin_unix"] or turn["end_unix"] <= block["begin_unix"]
    for turn in taken:
        assert turn["ranks_cpu_seconds"] < 0.002
        assert turn["own_cpu_seconds_asleep"] < 0.002


def test_it_trains_on_the_images_of_a_folder_that_the_ranks_have_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(8):
            (tmp_path / "set" / name / f"{i}.png").write_bytes(saved(halves(10 * i, 200), "PNG"))
    images = Data(kind="images", path=str(tmp_path / "set"))
    outcome = launch(trial(data=images), tmp_path).outcome
    assert (outcome.status, outcome.base_beside) == ("ok", [8]), outcome.error


class Begun:
    """A launch that goes on."""

    def __init__(self, results: Path, what: Trial) -> None:
        self._launcher = LocalLauncher({"oversubscribe": True}, results)
        self.folder = results / "trials" / what.id
        write_trial(self.folder, what)
        self._launcher.start([Launch(what, self.folder, 0)])

    def named(self, module: str) -> psutil.Process:
        def found() -> list[psutil.Process]:
            everything = psutil.process_iter(["cmdline"])
            return [p for p in everything if module in (c := p.info["cmdline"] or []) and str(self.folder) in str(c)]

        (process,) = until(found, 30)
        return process

    def in_turn(self) -> psutil.Process:
        """The base case, early in a turn in which it trains; the ranks are stopped."""
        companion = self.named("jobs.companion")
        until(lambda: self._stopped() == [True, True], 30)
        return companion

    def _stopped(self) -> list[bool]:
        return [rank.status() == psutil.STATUS_STOPPED for rank in ranks_of(self.folder)]

    def end(self, within: float) -> Outcome:
        deadline = time.monotonic() + within
        try:
            while not self._launcher.wait(0.2):
                assert time.monotonic() < deadline, "it goes on"
        finally:
            self._launcher.close()
        outcome = read_outcome(self.folder)
        assert outcome is not None
        until(lambda: not ranks_of(self.folder), 10)
        until(lambda: not any(str(self.folder) in str(p.info["cmdline"]) for p in psutil.process_iter(["cmdline"])), 10)
        return outcome


@pytest.fixture
def begun(tmp_path: Path) -> Begun:
    return Begun(tmp_path, in_blocks(trial(limits=Limits(startup=20.0, hang=4.0, trial=60.0))))


def test_a_base_case_that_dies_ends_the_launch_with_its_own_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "if trial.strategy == 'torch': raise OverflowError('the plain one is too large')"
    monkeypatch.setenv(failing.DOES, json.dumps({"0": code}))
    outcome = launch(trial(), tmp_path).outcome
    assert outcome.status == "failed"
    assert re.search(r"the base case beside \(batches of 8\) ended with exit code 1: .*too large", outcome.error)


def test_ranks_wait_and_are_not_stopped_while_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frameworks take a peer for dead that gives no sign for seconds."""
    code = (
        f"import time, pathlib\nif trial.strategy == 'torch': pathlib.Path('{tmp_path}/starts').touch(); time.sleep(2)"
    )
    monkeypatch.setenv(failing.DOES, json.dumps({"0": code}))
    begun = Begun(tmp_path, trial())
    until((tmp_path / "starts").exists, 30)
    for _ in range(10):
        assert [rank.status() == psutil.STATUS_STOPPED for rank in ranks_of(begun.folder)] == [False, False]
        time.sleep(0.1)
    assert begun.end(within=20).status == "ok"


def test_a_stranger_at_its_socket_is_turned_away() -> None:
    """The names of such sockets are seen by everybody on the machine."""
    listener, name = socket.socket(socket.AF_UNIX), f"\0{secrets.token_hex(16)}"
    listener.bind(name)
    listener.listen()
    own = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(chr(0) + sys.argv[1]); sys.stdin.read()"
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(name)
        with subprocess.Popen([sys.executable, "-c", own, name[1:]], stdin=subprocess.PIPE) as rank:
            (line,) = turns._accept(turns.Told(listener.detach(), "", [rank.pid], [(0, [0])], 0, 20.0, 20.0))
            with line:
                assert stranger.recv(1) == b""


def test_a_base_case_that_is_killed_in_its_turn_is_told_at_once(begun: Begun) -> None:
    begun.in_turn().kill()
    outcome = begun.end(within=3.5)
    assert outcome.status == "failed"
    assert "the base case beside (batches of 8) was killed by SIGKILL" in outcome.error


def test_a_base_case_that_is_stopped_in_its_turn_is_found_within_the_limit(begun: Begun) -> None:
    begun.in_turn().send_signal(signal.SIGSTOP)
    outcome = begun.end(within=9)
    assert "the base case beside (batches of 8) gave no sign of life for limits.hang = 4 s" in outcome.error


def test_a_rank_that_is_killed_in_a_turn_is_blamed_and_no_stopped_one(begun: Begun) -> None:
    begun.in_turn()
    (rank,) = [r for r in ranks_of(begun.folder) if r.environ()["RANK"] == "1"]
    rank.kill()
    outcome = begun.end(within=3.5)
    assert (outcome.status, outcome.error.partition(":")[0]) == ("failed", "rank 1 was killed by SIGKILL")
    assert [e.limit for e in outcome.exits] == ["", ""]


def test_a_rank_that_is_stopped_in_its_own_turn_is_found_within_the_limit(begun: Begun) -> None:
    begun.in_turn()
    (rank,) = [r for r in ranks_of(begun.folder) if r.environ()["RANK"] == "1"]
    stop_in_its_turn(rank, begun.folder)
    outcome = begun.end(within=12)
    assert outcome.status == "timeout", outcome.error


def test_ranks_and_base_case_end_with_who_changes_turns(begun: Begun) -> None:
    begun.in_turn()
    begun.named("jobs.beside.turns").kill()
    outcome = begun.end(within=12)
    assert outcome.status in ("failed", "timeout")
    assert outcome.error


def test_a_turn_that_would_take_too_long_is_refused(tmp_path: Path) -> None:
    slow = trial(Steps(warmup=2, measured=800, compute_only=0, blocks=2), limits=Limits(hang=2.0))
    outcome = launch(slow, tmp_path).outcome
    assert outcome.status == "failed"
    assert "a turn of the base case on batches of 8 takes" in outcome.error
    assert "a quarter of limits.hang" in outcome.error


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"steps": Steps(measured=50, blocks=20)}, "steps.measured: 50 steps are not as many in each of 20 blocks"),
        ({"steps": Steps(measured=20, blocks=20)}, "two at least; take 40"),
        ({"steps": Steps(measured=40, compute_only=20, blocks=20)}, "steps.compute_only: 20 steps are not as many"),
        ({"steps": Steps(measured=40, compute_only=40), "base_batches": (8,)}, "in blocks only; give steps.blocks"),
        ({"strategy": "torch", "workers": 1, "base_batches": (8,)}, "torch is a base case itself"),
        ({"until_accuracy": 0.9, "steps": Steps(measured=40, compute_only=40, blocks=20, at_most=100)}, "in one go"),
        ({"workload": "infer", "strategy": "torch", "workers": 1, "steps": Steps(blocks=5)}, "has no phases"),
    ],
)
def test_what_cannot_be_in_blocks_is_refused(fields: dict[str, Any], fault: str) -> None:
    content = {"strategy": "torch-ddp", "workers": 2, "global_batch": 8, "steps": SHORT} | fields
    with pytest.raises(ValueError, match=re.escape(fault)):
        Trial.of(**content)


def test_a_trial_of_before_keeps_its_id() -> None:
    plain = Trial.of(strategy="torch-ddp", workers=2, global_batch=8)
    assert "blocks" not in plain.content["steps"]
    assert "base_batches" not in plain.content
    assert plain.format == 1
    assert plain.id != plain.model_copy(update={"steps": Steps(blocks=10)}).id
