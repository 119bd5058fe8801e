"""Images are decoded once on a machine, however many processes want them, and what is half done is never trusted."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.contract.catalog import MODELS
from jobs.contract.environment import LOOPBACK, RankEnvironment, rank_variables
from jobs.contract.files import rank_file
from jobs.contract.folder import write_trial
from jobs.contract.parts import Data, Limits, Steps
from jobs.contract.report import rank_report
from jobs.contract.trial import Trial
from jobs.data import decoding, folder, kept
from jobs.data.dataset import DataError
from jobs.machine.network import master_port
from jobs.rank.keeper import end, start_worker
from tests.jobs.data.pictures import halves, saved
from tests.running import until

ROOT = Path(__file__).parents[3]
SIDE = 28


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "scaling" / "images"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Twenty images of two classes."""
    home = tmp_path / "home"
    for i in range(20):
        (home / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        (home / f"class{i % 2}" / f"{i}.png").write_bytes(saved(halves(i, 255 - i), "PNG"))
    return home


def find(home: Path, side: int = SIDE, model: str = "cnn") -> folder.Found:
    return folder.find(Data(kind="images", path=str(home), side=side), MODELS[model])


def images(found: folder.Found) -> NDArray[np.uint8]:
    for _ in found.decode():
        pass
    dataset = found.load()
    return np.concatenate([dataset.train_images, dataset.test_images])


def directly(found: folder.Found) -> NDArray[np.uint8]:
    return np.stack([decoding.decoded(file.path, found.side, found.channels) for file in found.files])


def test_what_is_kept_is_what_decoding_gives_bit_by_bit(cache: Path, home: Path) -> None:
    found = find(home)
    np.testing.assert_array_equal(images(found), directly(found))
    assert [path.suffix for path in cache.iterdir()] == [".npy"]
    assert cache.stat().st_mode & 0o777 == 0o700  # images may be nobody else's business


def test_nothing_is_decoded_twice(cache: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = images(find(home))

    def decode(*_: object) -> NDArray[np.uint8]:
        raise AssertionError("decoded again")

    monkeypatch.setattr(kept, "decoded", decode)
    np.testing.assert_array_equal(images(find(home)), first)


def test_its_pages_are_shared_and_may_be_written_to_without_harm(cache: Path, home: Path) -> None:
    """Who would write to it writes to a copy of its own; torch warns of arrays that are read-only."""
    dataset = find(home)
    before = images(dataset).copy()
    mine = dataset.load().train_images
    assert mine.flags.writeable
    assert str(dataset.place) in Path("/proc/self/maps").read_text()
    mine[:] = 7
    np.testing.assert_array_equal(images(dataset), before)


CHANGES: dict[str, Callable[[Path], folder.Found]] = {
    "another size": lambda home: find(home, SIDE - 1),
    "another model": lambda home: find(home, SIDE, "resnet50"),
    "another file": lambda home: (shutil.copy(home / "class0/0.png", home / "class0/more.png"), find(home))[1],
    "one file less": lambda home: ((home / "class0/0.png").unlink(), find(home))[1],
    "another name": lambda home: ((home / "class0/0.png").rename(home / "class0/00.png"), find(home))[1],
    "another content": lambda home: ((home / "class0/0.png").write_bytes(saved(halves(9, 9), "PNG")), find(home))[1],
    "another time": lambda home: (os.utime(home / "class0/0.png", (1, 1)), find(home))[1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_images_are_not_taken_for_these(change: str, cache: Path, home: Path) -> None:
    before = find(home)
    images(before)
    after = CHANGES[change](home)
    assert after.place != before.place
    np.testing.assert_array_equal(images(after), directly(after))


DECODE = """
import sys, time
from jobs.contract.catalog import MODELS
from jobs.contract.parts import Data
from jobs.data import folder, kept
slow, real = float(sys.argv[2]), kept.decoded
def decoded(*of):
    print("decoded", flush=True)
    time.sleep(slow)
    return real(*of)
kept.decoded = decoded
for _ in folder.find(Data(kind="images", path=sys.argv[1], side=28), MODELS["cnn"]).decode():
    pass
"""


def start(home: Path, slow: float) -> subprocess.Popen[str]:
    """Another process that decodes, taking `slow` seconds for each image."""
    command = [sys.executable, "-c", DECODE, str(home), str(slow)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_of_many_processes_one_decodes(cache: Path, home: Path) -> None:
    several = [start(home, 0.02) for _ in range(4)]
    said = [process.communicate(timeout=60)[0] for process in several]
    assert [process.returncode for process in several] == [0] * 4
    assert sum(text.count("decoded") for text in said) == 20
    np.testing.assert_array_equal(images(find(home)), directly(find(home)))


def test_what_a_killed_process_leaves_is_not_trusted_and_taken_over(cache: Path, home: Path) -> None:
    first = start(home, 0.2)
    until(lambda: list(cache.glob("*.partial")), 30)
    assert first.stdout is not None
    assert first.stdout.readline() == "decoded\n"
    second = start(home, 0.0)
    time.sleep(0.5)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not list(cache.glob("*.npy"))
    assert second.communicate(timeout=60)[0].count("decoded") == 20
    np.testing.assert_array_equal(images(find(home)), directly(find(home)))
    assert len(list(cache.iterdir())) == 1


def test_where_locks_of_others_are_not_seen_what_is_kept_is_whole_and_in_order(
    cache: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines on a shared file system, by turns; locks that hold nobody off stand for its locks. Who comes last
    takes no name away from what another machine may have mapped."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    found, works = find(home), []
    for node in ("node1", "node2"):
        monkeypatch.setattr(kept, "machine", lambda node=node: node)
        works.append(found.decode())
        next(works[-1])
    for _ in zip(*works, strict=True):
        pass
    first = found.place.stat().st_ino
    assert [path.name for path in cache.iterdir()] == [found.place.name]
    np.testing.assert_array_equal(images(found), directly(found))
    late = kept._write(found.place, found.files, found.side, found.channels)
    assert list(late)[-1] == 20
    assert found.place.stat().st_ino == first
    assert list(cache.iterdir()) == [found.place]


@pytest.mark.parametrize(("days", "stays"), [(0, True), (2, False)])
def test_what_another_machine_has_left_goes_when_it_is_old(days: int, stays: bool, cache: Path, home: Path) -> None:
    found, ours = find(home), f"{kept.machine()}-"
    images(found)
    found.place.unlink()
    left = [cache / f"{found.place.stem}.{whose}0123abcd.partial" for whose in ("node2-", ours)]
    for path in left:
        path.touch()
        os.utime(path, (time.time() - days * 86400,) * 2)
    images(found)
    assert [path.exists() for path in left] == [stays, False]


def test_one_that_is_ended_leaves_nothing(cache: Path, home: Path) -> None:
    work = find(home).decode()
    assert [next(work), next(work)] == [1, 2]
    work.close()
    assert not list(cache.iterdir())


def test_a_broken_image_is_named_and_leaves_nothing(cache: Path, home: Path) -> None:
    broken = home / "class1" / "7.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(DataError, match=str(broken)):
        images(find(home))
    assert not list(cache.iterdir())


def test_a_full_disk_is_one_line(cache: Path, home: Path) -> None:
    """A limit to the size of files stands for the disk: what fails is the same write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        with pytest.raises(DataError) as caught:
            images(find(home))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value).startswith(f"{cache}: decoded images cannot be kept there (File too large)")
    assert "XDG_CACHE_HOME" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(cache.iterdir())


def test_a_place_that_cannot_be_is_one_line(cache: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="decoded images cannot be kept there"):
        images(find(home))


SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda content: content[:-1],
    "too long": lambda content: content + b"x",
    "of another shape": lambda content: content.replace(b"(20, 28, 28, 1)", b"(20, 1, 28, 28)"),
    "of another type": lambda content: content.replace(b"|u1", b"|i1"),
    "none": lambda content: b"",
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_file_that_is_not_as_it_was_written_is_refused(how: str, cache: Path, home: Path) -> None:
    found = find(home)
    images(found)
    found.place.write_bytes(SPOILT[how](found.place.read_bytes()))
    with pytest.raises(DataError, match="remove it, and it is made anew"):
        found.load()


def test_pages_are_touched_before_steps_are(cache: Path, home: Path) -> None:
    """A framework may take the array as it is, and its first steps would wait for the disk."""
    found = find(home)
    images(found)
    dataset = found.load()
    _, _, mine = Path("/proc/self/smaps").read_text().partition(str(found.place))
    resident = int(mine.partition("Rss:")[2].split()[0]) * 1024
    assert resident >= dataset.train_images.nbytes + dataset.test_images.nbytes


@pytest.mark.usefixtures("bare_ranks")
def test_ranks_that_wait_for_the_decoding_on_another_node_give_signs_of_life(
    cache: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Caches of their own make nodes of two ranks. One has its images. On the other, some process decodes for longer
    than the limit of a start-up, and dies; the rank takes over."""
    found = find(home)
    images(found)
    lock = tmp_path / "other" / cache.relative_to(tmp_path / "cache") / found.place.with_suffix(".lock").name
    lock.parent.mkdir(parents=True)
    held = lock.open("ab")
    fcntl.flock(held, fcntl.LOCK_EX)
    half = lock.with_suffix(f".{kept.machine()}-0123abcd.partial")
    half.write_bytes(b"half of it")
    trial = Trial.of(
        strategy="torch-ddp", workers=2, global_batch=4, steps=Steps(warmup=1, measured=2, compute_only=0),
        data=Data(kind="images", path=str(home), side=SIDE), limits=Limits(startup=4.0),
    )  # fmt: skip
    trial_folder, port = tmp_path / trial.id, master_port()
    write_trial(trial_folder, trial)
    ranks, began = [], time.time()
    for rank, home_of_caches in enumerate(("cache", "other")):
        place = rank_variables(RankEnvironment(rank, 2, 0, 1, rank, LOOPBACK, port))
        ranks.append(start_worker(trial_folder, rank, place | {"XDG_CACHE_HOME": str(tmp_path / home_of_caches)}))
    try:
        time.sleep(6.0)
        held.close()
        codes = [rank.wait(30) for rank in ranks]
    finally:
        end(ranks)
    assert codes == [0, 0], (
        rank_file(trial_folder, 0, "log").read_text() + rank_file(trial_folder, 1, "log").read_text()
    )
    assert not half.exists()
    assert lock.with_suffix(".npy").read_bytes() == found.place.read_bytes()
    first, other = (rank_report(rank_file(trial_folder, rank, "json").read_bytes()) for rank in (0, 1))
    assert first is not None
    assert other is not None
    # What a machine does once is no part of a launch's start-up; that of others in the meeting is none either.
    assert max(r.startup_seconds for r in (first, other)) < 4 < first.train_started_unix - began
    assert (first.data, other.data) == (found.told(), None)
