"""Reading launches that were measured in blocks: what is right is read right, what does not agree is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.load import rounds
from analysis.load.results import load
from analysis.measures.distribution import distributions
from tests.analysis import blocks, generate

ROUNDS, BATCH = 10, 64
PAIR = (generate.Way("torch"), generate.Way("torch-ddp", weak=generate.efficient(0.8)))
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "blocks"
    generate.study(folder, ways=PAIR, workers=(2,), scaling=("weak",), repeats=1, measured=40, compute_only=20)
    return blocks.into(folder, rounds=ROUNDS, rates={"torch": 1000.0})


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "blocks"))


def launch(folder: Path) -> Path:
    return next(folder.glob("trials/torch-ddp-*"))


def row(folder: Path) -> dict[str, Any]:
    return load(folder).trials.filter(strategy="torch-ddp").row(0, named=True)


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def lines(path: Path) -> Lines:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, rows: Lines) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def turns(home: Path, round_: int, **changes: float) -> None:
    def change(report: dict[str, Any]) -> dict[str, Any]:
        report["turns"][round_ - 1] |= changes
        return report

    edit(home / f"base-{BATCH}.json", change)


def test_totals_are_of_the_counted_steps_of_all_rounds(original: Path) -> None:
    found, home = row(original), launch(original)
    assert load(original).set_aside == []
    ranks = [[r for r in lines(home / f"rank-0000{rank}.jsonl") if not r.get("warmup")] for rank in (0, 1)]
    slowest = [max(a["seconds"], b["seconds"]) for a, b in zip(*ranks, strict=True) if a["phase"] == "train"]
    assert found["train_seconds"] == pytest.approx(sum(slowest))
    assert found["samples"] == 40 * 2 * BATCH
    alone = [r["seconds"] for rank in ranks for r in rank if r["phase"] == "compute_only"]
    assert found["exposed_seconds"] == pytest.approx(np.mean(slowest) - np.mean(alone))
    base = [r["seconds"] for r in lines(home / f"base-{BATCH}.jsonl") if not r.get("warmup")]
    assert found["base_each_cost"] == pytest.approx(sum(base) / (ROUNDS * blocks.PER_BLOCK * BATCH))
    assert (found["base_whole_cost"], found["in_blocks"], found["base_beside"]) == (None, True, f"[{BATCH}]")
    assert (found["rounds"], found["rounds_unused"], found["base_still_seconds"]) == (ROUNDS, 0, 0.0)


def test_a_launch_without_blocks_has_none(tmp_path: Path) -> None:
    plain = generate.study(tmp_path / "plain", ways=PAIR, workers=(2,), scaling=("weak",), repeats=1)
    found = row(plain)
    assert (found["in_blocks"], found["base_beside"]) == (False, "[]")
    assert [found[name] for name in ("rounds", "rounds_unused", "blocks_off", "base_each_cost")] == [None] * 4
    assert load(plain).steps()["block"].null_count() == load(plain).steps().height


@pytest.mark.parametrize(
    ("changes", "unused"),
    [
        ({"ranks_cpu_seconds": 0.03}, {4}),
        ({"own_cpu_seconds_asleep": 0.5}, {3, 4}),  # since its turn before: it is not told in which of the two rounds
        ({"own_cpu_seconds_asleep": 0.02, "ranks_cpu_seconds": 0.01}, set()),  # a tick of the clock
    ],
)
def test_a_round_in_which_a_stopped_side_used_a_cpu_is_left_out_on_both_sides(
    folder: Path, changes: dict[str, float], unused: set[int]
) -> None:
    home = launch(folder)
    turns(home, 4, **changes)
    found = row(folder)
    assert found["rounds_unused"] == len(unused)
    assert found["samples"] == 4 * (ROUNDS - len(unused)) * 2 * BATCH
    base = [r for r in lines(home / f"base-{BATCH}.jsonl") if not r.get("warmup") and r["block"] not in unused]
    assert found["base_each_cost"] == pytest.approx(sum(r["seconds"] for r in base) / (len(base) * BATCH))
    assert distributions(load(folder)).steps.filter(strategy="torch-ddp")["steps"][0] == found["samples"] / 2 / BATCH


def test_a_launch_of_which_no_round_can_be_used_is_set_aside(folder: Path) -> None:
    for each in range(1, ROUNDS + 1):
        turns(launch(folder), each, ranks_cpu_seconds=0.1)
    (aside,) = load(folder).set_aside
    assert "none of 10 rounds can be used" in aside.reason


def test_a_block_far_from_the_others_is_counted_and_told(folder: Path) -> None:
    home = launch(folder)
    before = row(folder)
    for path in home.glob("rank-*.jsonl"):
        rows = lines(path)
        for each in rows:
            each["seconds"] *= 5 if each["block"] == 3 and each["phase"] == "train" else 1
        write(path, rows)
    found = row(folder)
    assert found["blocks_off"] == before["blocks_off"] + 1
    assert found["samples"] == before["samples"]
    assert found["train_seconds"] > 1.2 * before["train_seconds"]


def test_steps_that_stood_still_are_told_of_all_three_phases(folder: Path) -> None:
    """A suspended laptop inside a block: one step of seconds among milliseconds."""
    home = launch(folder)
    for path, phase in ((home / "rank-00000.jsonl", "train"), (home / f"base-{BATCH}.jsonl", "base")):
        rows = lines(path)
        next(r for r in rows if r["phase"] == phase and r["block"] == 5 and not r.get("warmup"))["seconds"] += 7.0
        write(path, rows)
    found = row(folder)
    assert found["stood_still_seconds"] == pytest.approx(7.0, rel=0.05)
    assert found["base_still_seconds"] == pytest.approx(7.0, rel=0.05)


def test_steadiness_is_told_by_the_means_of_blocks(tmp_path: Path) -> None:
    made = generate.study(
        tmp_path / "r", ways=PAIR, workers=(2,), scaling=("weak",), repeats=1, measured=60, compute_only=60, drift=0.5
    )
    quiet = blocks.into(made, rounds=20, rates={"torch": 1000.0}, launch_cv=0.0, round_cv=0.001)
    found = row(quiet)
    assert found["steady"] is False
    assert "round" in found["steady_note"]


def without_last_block(home: Path) -> None:
    for path in home.glob("rank-*.jsonl"):
        write(path, [r for r in lines(path) if r["block"] < ROUNDS])


def one_step_less(home: Path) -> None:
    """In one block, of all ranks: whole lines, numbered anew."""
    for path in home.glob("rank-*.jsonl"):
        rows = lines(path)
        rows.remove([r for r in rows if r["phase"] == "train" and r["block"] == 6][-1])
        for step, each in enumerate(r for r in rows if r["phase"] == "train"):
            each["step"] = step
        write(path, rows)


def another_block_on_one_rank(home: Path) -> None:
    rows = lines(home / "rank-00001.jsonl")
    next(r for r in rows if r["block"] == 6)["block"] = 5
    write(home / "rank-00001.jsonl", rows)


def blocks_exchanged(home: Path) -> None:
    for path in home.glob("rank-*.jsonl"):
        write(path, [r | {"block": {3: 4, 4: 3}.get(r["block"], r["block"])} for r in lines(path)])


def nothing_left_out(home: Path) -> None:
    """The first step after a change is counted in one block, and the last is not."""
    for path in home.glob("rank-*.jsonl"):
        rows = lines(path)
        here = [r for r in rows if r["phase"] == "train" and r["block"] == 2]
        del here[0]["warmup"]
        here[-1]["warmup"] = True
        write(path, rows)


def no_block_on_some(home: Path) -> None:
    for path in home.glob("rank-*.jsonl"):
        rows = lines(path)
        del rows[8]["block"]
        write(path, rows)


def of_the_base(change: Callable[[Lines], Lines]) -> Callable[[Path], None]:
    return lambda home: write(home / f"base-{BATCH}.jsonl", change(lines(home / f"base-{BATCH}.jsonl")))


def of_its_report(**changes: Any) -> Callable[[Path], None]:
    return lambda home: edit(home / f"base-{BATCH}.json", lambda report: report | changes)


def cut(home: Path) -> None:
    path = home / f"base-{BATCH}.jsonl"
    path.write_bytes(path.read_bytes()[:-30])


def turn_missing(home: Path) -> None:
    edit(home / f"base-{BATCH}.json", lambda report: report | {"turns": report["turns"][:-1]})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without_last_block, "36 measured training steps, but 40 were planned"),
        (one_step_less, "block 6 of train has 3 counted steps, but block 1 has 4"),
        (another_block_on_one_rank, "the ranks do not have the same steps"),
        (blocks_exchanged, "the blocks of train are not in order"),
        (nothing_left_out, "not every block of train begins with the steps that are not counted"),
        (no_block_on_some, "some lines say which block they are of"),
        (
            lambda home: edit(home / "trial.json", lambda t: t | {"steps": t["steps"] | {"blocks": 5}}),
            "base-64.jsonl is of 10 rounds, but 5 were planned",
        ),
        (
            lambda home: edit(home / "trial.json", lambda t: t | {"steps": t["steps"] | {"blocks": None}}),
            "in 10 rounds",
        ),
        (lambda home: edit(home / "trial.json", lambda t: t | {"base_batches": [64, 128]}), "planned were [64, 128]"),
        (lambda home: edit(home / "outcome.json", lambda o: o | {"base_beside": []}), "planned were [64]"),
        (lambda home: (home / f"base-{BATCH}.jsonl").unlink(), "lines of batch none"),
        (lambda home: (home / f"base-{BATCH}.json").unlink(), "base-64.json is missing"),
        (cut, "base-64.jsonl line 66 is not a complete JSON object"),
        (of_the_base(lambda rows: rows[:-1]), "base-64.jsonl: block 10 of base has 4 counted steps"),
        (of_the_base(lambda rows: rows[:-6]), "base-64.jsonl is of 9 rounds, but 10"),
        (of_the_base(lambda rows: [r | {"samples": 32} for r in rows]), "a step has other samples than 64"),
        (of_the_base(lambda rows: [r | {"phase": "train"} for r in rows]), "other steps than a base case's"),
        (of_the_base(lambda rows: [*rows[:9], rows[9] | {"seconds": -1.0}, *rows[10:]]), "base-64.jsonl: seconds of"),
        (of_its_report(strategy="tf"), "the report of another base case"),
        (of_its_report(batch=128), "the report of another base case"),
        (of_its_report(turns=None), "one turn in each of its 10 rounds"),
        (turn_missing, "one turn in each of its 10 rounds"),
    ],
)
def test_files_that_do_not_agree_are_refused_in_one_line(
    folder: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(launch(folder))
    (aside,) = load(folder).set_aside
    assert said in aside.reason
    assert "\n" not in aside.reason
    assert row(folder)["status"] == "broken"


@pytest.mark.parametrize("name", [f"base-{BATCH}.jsonl", f"base-{BATCH}.json"])
def test_files_of_the_base_case_are_held_against_their_sums(tmp_path: Path, name: str) -> None:
    made = generate.study(
        tmp_path / "r", ways=PAIR, workers=(2,), scaling=("weak",), repeats=1, measured=40, compute_only=20
    )
    summed = blocks.into(made, rounds=ROUNDS, rates={"torch": 1000.0}, sums=True)
    assert load(summed).set_aside == []
    path = launch(summed) / name
    text = path.read_text()
    path.write_text(text.replace("64", "46", 1))
    (aside,) = load(summed).set_aside
    assert f"{name} is not what it was when its launch ended" in aside.reason
    path.write_text(text)
    edit(launch(summed) / "outcome.json", lambda o: o | {"sums": {k: v for k, v in o["sums"].items() if k != name}})
    (aside,) = load(summed).set_aside
    assert f"outcome.json has no sum of {name}" in aside.reason


def test_few_blocks_are_never_far_from_each_other() -> None:
    rng = np.random.default_rng(0)
    assert rounds.off(np.array([1.0, 1.001, 1.002, 5.0])) == 0
    assert np.mean([rounds.off(1 + 0.06 * rng.standard_normal(20)) > 0 for _ in range(1000)]) < 0.03
    assert rounds.off(np.ones(20)) == 0
