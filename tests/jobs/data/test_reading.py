"""Both input pipelines give the same batches, and a trial of either leaves what is read later."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.contract.parts import Steps
from jobs.contract.recipe import Files, Source
from jobs.contract.trial import Trial
from jobs.data import dataset, png, reading
from jobs.data.records import FEATURE
from jobs.workloads.ingest import Ingest
from tests.jobs.data.pictures import KINDS, SIDE, any_png, halves, ramp_16, saved, stroke
from tests.running import launch

FILES = Files(count=24, side=40, resize=28)


def trial(source: Source = "png", batch: int = 8, warmup: int = 3, measured: int = 5, **factors: Any) -> Trial:
    steps = Steps(warmup=warmup, measured=measured, compute_only=0)
    content = {"strategy": "torch", "readers": 2, "files": FILES} | factors
    return Trial.of(workers=1, global_batch=batch, workload="ingest", source=source, steps=steps, **content)


def planned(what: Trial, folder: Path) -> reading.Plan:
    assert isinstance(what, Ingest)
    return reading.plan(what, what.steps, what.global_batch, what.seed, folder)[0]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> reading.Plan:
    return planned(trial(), tmp_path_factory.mktemp("files"))


def as_planned(plan: reading.Plan) -> NDArray[np.float32]:
    """What batches [n, b, h, w, c] hold, by the plan alone: each file by itself, flipped where it says so."""
    from jobs.strategies.torch.ingest import image

    samples = [image(path, plan.resize).numpy().transpose(1, 2, 0) for path in plan.paths]
    flipped = [sample[:, ::-1] if flip else sample for sample, flip in zip(samples, plan.flips, strict=True)]
    return np.stack(flipped).reshape(-1, plan.batch, plan.resize, plan.resize, 3)


def test_a_plan_reads_each_file_once_an_epoch_and_flips_half(plan: reading.Plan) -> None:
    first, second = plan.paths[:24], plan.paths[24:48]
    assert sorted(first) == sorted(second) == sorted(set(plan.paths))
    assert first != second
    assert 0 < plan.flips.sum() < len(plan.flips)


@pytest.mark.parametrize("source", ["tfrecord", "cached"])
def test_what_is_kept_is_read_in_the_order_of_the_first_epoch(source: Source, tmp_path: Path) -> None:
    plan = planned(trial(source, batch=4, warmup=6, measured=6), tmp_path)
    assert sorted(plan.paths[:24]) == sorted(set(plan.paths))
    assert len(set(plan.paths)) == 24
    assert plan.paths[:24] == plan.paths[24:]
    assert len(plan.records) == (2 if source == "tfrecord" else 0)


def test_a_record_file_holds_the_files_as_they_are(tmp_path: Path) -> None:
    import tensorflow as tf

    plan = planned(trial("tfrecord"), tmp_path)
    mine = [path for start in range(0, 24, 16) for path in plan.paths[start : start + 8]]
    records = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(plan.records[0])]
    held = [record.features.feature[FEATURE].bytes_list.value[0] for record in records]
    assert held == [Path(path).read_bytes() for path in mine]


def test_a_folder_of_the_users_is_taken_as_it_is(plan: reading.Plan, tmp_path: Path) -> None:
    theirs = Files(path=str(Path(plan.paths[0]).parent))
    found = planned(trial(files=theirs, batch=4), tmp_path)
    assert set(found.paths) <= set(plan.paths)
    assert not list(tmp_path.iterdir())


def test_of_a_large_folder_only_what_is_read_becomes_records(plan: reading.Plan, tmp_path: Path) -> None:
    theirs = Files(path=str(Path(plan.paths[0]).parent), resize=28)
    few = planned(trial("tfrecord", batch=4, warmup=1, measured=2, files=theirs), tmp_path)
    assert len(few.paths) == len(set(few.paths)) == 12
    held = sum(Path(record).stat().st_size for record in few.records)
    assert held < 1.1 * sum(Path(path).stat().st_size for path in few.paths) + 12 * 100


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"files": Files(path="/dev/null")}, "files.path: no PNG files in /dev/null, which is no folder"),
        ({"files": Files(path="/nowhere")}, "files.path: no PNG files in /nowhere, which is not there"),
        ({"source": "cached", "warmup": 2}, "steps.warmup: 2 batches of 8 do not fill the cache with 24 files"),
        ({"source": "tfrecord", "batch": 16}, "readers: 24 files make fewer batches of 16 than the 2 readers"),
    ],
)
def test_what_cannot_be_read_is_said(change: dict[str, Any], fault: str, tmp_path: Path) -> None:
    with pytest.raises(dataset.DataError, match=fault):
        planned(trial(**change), tmp_path)


@pytest.mark.parametrize(("strategy", "source"), [("torch", "tfrecord"), ("tf", "cached")])
def test_an_ingest_trial_leaves_its_rates_cpu_and_memory(strategy: str, source: Source, tmp_path: Path) -> None:
    done = launch(trial(source, strategy=strategy), tmp_path)
    assert done.outcome.status == "ok", (done.outcome.error, done.outcome.exits)
    (report,) = done.outcome.ranks
    assert report.cpu_seconds_per_sample is not None
    assert 0 < report.cpu_seconds_per_sample < 1
    assert report.memory_bytes is not None
    assert report.memory_bytes > 50e6
    assert report.threads == 2
    assert [row["samples"] for row in done.rows(0, "ingest")] == [8] * 8


def of_the_users(folder: Path, **factors: Any) -> reading.Plan:
    count = len(list(folder.rglob("*")))
    return planned(
        trial(batch=count, warmup=1, measured=1, files=Files(path=str(folder), resize=SIDE), **factors), folder
    )


def test_files_are_known_by_their_ending_however_it_is_written(tmp_path: Path) -> None:
    for name in ("a.png", "b.PNG", "c.Png"):
        (tmp_path / name).write_bytes(any_png(8, 2))
    for name in ("d.jpg", "e.txt", ".f.png", "._g.png"):
        (tmp_path / name).write_bytes(b"x")
    found, told = reading.find(str(tmp_path))
    assert [Path(path).name for path in found] == ["a.png", "b.PNG", "c.Png"]
    left_out = {".jpg files": 1, ".txt files": 1, "hidden files": 1, "files that other programs left there": 1}
    assert told == {"path": str(tmp_path), "files": 3, "left_out": left_out}
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.jpeg").write_bytes(b"x")
    with pytest.raises(dataset.DataError, match=r"no PNG files in .*/none \(1 \.jpeg files\)"):
        reading.find(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (ramp_16(), "grey with 16 bits"),
        (any_png(16, 4), "grey with 16 bits"),
        (b"", "is empty"),
        (saved(halves(0, 9), "JPEG"), "is no PNG file, whatever it is called"),
        (saved(halves(0, 9), "WEBP"), "is no PNG file"),
        (any_png(8, 2)[:20], "no whole PNG header"),
        (any_png(8, 2)[:-1], "ends in the middle"),
        (any_png(8, 2)[:200], "ends in the middle"),
        (any_png(8, 2) + any_png(8, 2)[:200], ""),  # what comes after the end is nobody's business
    ],
)
def test_a_file_that_not_every_library_reads_alike_is_refused_by_name(content: bytes, why: str, tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(any_png(8, 2))
    (tmp_path / "b.png").write_bytes(content)
    if not why:
        reading.examine(of_the_users(tmp_path).paths)
        return
    with pytest.raises(dataset.DataError, match=f"^{tmp_path / 'b.png'}: .*{why}"):
        reading.examine(of_the_users(tmp_path).paths)


def test_planning_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would put it where it is quicker to read."""
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(any_png(8, 2))
    opened: list[object] = []
    monkeypatch.setattr(png, "fault", opened.append)
    of_the_users(tmp_path)
    assert not opened


def test_the_file_at_fault_is_looked_for_where_it_failed_with_signs_of_life_and_not_for_ever(
    plan: reading.Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spoilt.png").write_bytes(any_png(8, 2)[:200])
    alive: list[int] = []
    paths = list(plan.paths)
    paths[3 * plan.batch + 1] = str(tmp_path / "spoilt.png")
    spoilt = replace(plan, paths=paths)
    with pytest.raises(dataset.DataError, match=r"spoilt\.png: not readable"):
        reading.blame(spoilt, 3, lambda: alive.append(1))
    assert len(alive) == 2
    monkeypatch.setattr(reading, "BLAME_SECONDS", 0.0)
    reading.blame(spoilt, 3)


def test_a_file_that_is_damaged_inside_is_named_by_the_trial(tmp_path: Path) -> None:
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(any_png(8, 2))
    content = bytearray(any_png(8, 2))
    content[len(content) // 2] ^= 1
    (tmp_path / "3.png").write_bytes(content)
    done = launch(trial(files=Files(path=str(tmp_path))), tmp_path / "results")
    assert done.outcome.status == "failed"
    assert f"{tmp_path / '3.png'}: not readable as a PNG file (" in done.outcome.error


def records_of(path: str) -> list[int]:
    """Where each record begins, and where the last one ends."""
    content, at = Path(path).read_bytes(), [0]
    while at[-1] < len(content):
        at.append(at[-1] + 16 + int.from_bytes(content[at[-1] : at[-1] + 8], "little"))
    return at


def damaged(plan: reading.Plan, folder: Path) -> Iterator[reading.Plan]:
    """The plan with the third record of its first file damaged, each time in another place."""
    content, (begin, end) = Path(plan.records[0]).read_bytes(), records_of(plan.records[0])[2:4]
    for at in (begin, begin + 9, (begin + end) // 2, end - 1, None):
        path = folder / f"damaged-at-{at}.tfrecord"
        spoilt = bytearray(content if at is not None else content[: (begin + end) // 2])
        if at is not None:
            spoilt[at] ^= 4
        path.write_bytes(spoilt)
        yield replace(plan, records=(str(path), *plan.records[1:]))


@dataclass(frozen=True)
class Seen:
    """What a pipeline made of plans, each batch [b, h, w, c], and what is said where it failed at damaged records."""

    plans: dict[str, reading.Plan]
    batches: dict[str, NDArray[np.float32]]
    spoilt: list[reading.Plan]
    said: list[str]
    tolerance: float  # a pixel is 4e-3

    def agrees(self, name: str) -> None:
        wanted = as_planned(self.plans[name])
        np.testing.assert_allclose(self.batches[name], wanted, rtol=0, atol=self.tolerance)
        assert np.ptp(wanted[0]) > 0.5  # pictures, not a plain colour


def all_kinds(folder: Path) -> reading.Plan:
    """One file of each kind of PNG file that is not refused, each once in a batch."""
    pictures = {f"{colour}-{depth}": any_png(depth, colour) for colour in KINDS for depth in KINDS[colour]}
    pictures |= {f"{colour}-clear": any_png(8, colour, clear) for colour, clear in ((0, b"\0\7"), (3, b"\0\7\xff"))}
    pictures |= {mode: saved(stroke(mode, 0), "PNG") for mode in ("RGBA", "LA", "P")}
    folder.mkdir()
    for name, content in pictures.items():
        (folder / f"{name}.png").write_bytes(content)
        if png.fault(folder / f"{name}.png"):
            (folder / f"{name}.png").unlink()
    assert len(list(folder.iterdir())) == len(pictures) - 2
    return of_the_users(folder)


@pytest.fixture(scope="module", params=["torch", "tf"])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """From one process of its own, as a trial has one."""
    pipeline, folder = request.param, tmp_path_factory.mktemp("seen")
    plans = {"kinds": all_kinds(folder / "kinds")}
    for source in get_args(Source):
        (folder / source).mkdir()
        plans[source] = planned(trial(source), folder / source)
    spoilt = list(damaged(plans["tfrecord"], folder))
    (folder / "plans").write_bytes(pickle.dumps([plans, spoilt]))
    code = f"""
import pickle, numpy
from jobs.data import reading
from jobs.strategies.{pipeline}.ingest import batches
with open("plans", "rb") as file:
    plans, spoilt = pickle.load(file)
for name, plan in plans.items():
    numpy.save(name, numpy.stack([batch.numpy() for batch in batches(plan)]))
for plan in spoilt:
    try:
        for batch in batches(plan):
            pass
        print("read to the end")
    except Exception:
        try:
            reading.blame(plan)
            print("nobody is blamed")
        except reading.DataError as error:
            print(error)
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    said = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True, timeout=100).stdout
    made = {name: np.load(folder / f"{name}.npy") for name in plans}
    if pipeline == "torch":
        made = {name: batches.transpose(0, 1, 3, 4, 2) for name, batches in made.items()}
    return Seen(plans, made, spoilt, said.splitlines(), 0 if pipeline == "torch" else 1e-6)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("source", get_args(Source))
def test_both_pipelines_give_the_same_batches(source: Source, seen: Seen) -> None:
    assert seen.batches[source].shape == (8, 8, 28, 28, 3)
    seen.agrees(source)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_what_is_not_refused_is_read_alike(seen: Seen) -> None:
    seen.agrees("kinds")


def test_a_damaged_record_is_refused_by_both_and_named(seen: Seen) -> None:
    """That of TensorFlow's reader is its own; which file it was is told by ours."""
    assert len(seen.spoilt) == len(seen.said) == 5
    for plan, said in zip(seen.spoilt, seen.said, strict=True):
        assert said.startswith(f"{plan.records[0]}: record 2 ")
