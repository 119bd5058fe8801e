"""What is said of a study's data before anything is launched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.contract.parts import Data, Steps
from jobs.contract.recipe import Files
from jobs.contract.trial import Trial
from jobs.data.dataset import DataError
from jobs.data.survey import survey
from tests.jobs.data.pictures import any_png, halves, ramp_16, saved

NOWHERE = "/nowhere/at/all"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def train(**data: Any) -> Trial:
    return Trial.of(strategy="torch", workers=1, global_batch=4, data=Data(**data))


def ingest(path: str | None, **factors: Any) -> Trial:
    steps = Steps(warmup=1, measured=2, compute_only=0)
    content = {"strategy": "torch", "workers": 1, "global_batch": 4, "steps": steps, "workload": "ingest"}
    return Trial.of(**content | {"files": Files(path=path)} | factors)


WANTED = {
    "data.path": [train(kind="images", path=NOWHERE), train(kind="mnist", path=NOWHERE)],
    "files.path": [ingest(NOWHERE)],
}


@pytest.mark.parametrize("key", WANTED)
def test_a_folder_that_this_machine_lacks_is_a_fault_only_where_ranks_run_on_it(key: str) -> None:
    for point in WANTED[key]:
        with pytest.raises(DataError, match=NOWHERE):
            survey([point], 0, here=True)
        (warning,) = survey([point], 0, here=False).warnings
        assert (
            warning == f"{key}: {NOWHERE} is not on this machine; each node will look for it, and fail where it is not"
        )


def test_a_folder_that_is_there_is_looked_at_wherever_ranks_run(tmp_path: Path) -> None:
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(any_png(8, 2))
    assert survey([ingest(str(tmp_path))], 0, here=False).lines == [f"{tmp_path}: 8 PNG files"]
    (tmp_path / "7.png").write_bytes(ramp_16())
    with pytest.raises(DataError, match=r"7\.png: is grey with 16 bits"):
        survey([ingest(str(tmp_path))], 0, here=False)


def test_files_that_are_too_few_for_a_point_are_said_before_it_is_launched(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(any_png(8, 2))
    for factors, said in (({"source": "tfrecord"}, "readers: 1 files make"), ({"source": "cached"}, None)):
        if said:
            with pytest.raises(DataError, match=said):
                survey([ingest(str(tmp_path)), ingest(str(tmp_path), **factors)], 0, here=True)
        else:
            assert survey([ingest(str(tmp_path), **factors)], 0, here=True).told
    with pytest.raises(DataError, match=r"steps\.warmup: 1 batches of 4 do not fill the cache with 1024 files"):
        survey([ingest(None, source="cached")], 0, here=True)


def test_classes_are_named_where_they_are_few_and_counted_where_they_are_many(tmp_path: Path) -> None:
    def said() -> str:
        return survey([train(kind="images", path=str(tmp_path / "set"))], 0, here=True).lines[0]

    for i in range(8):
        (tmp_path / "set" / f"c{i}").mkdir(parents=True)
        for j in range(2 + i):
            (tmp_path / "set" / f"c{i}" / f"{j}.jpg").write_bytes(saved(halves(i, j), "JPEG"))
        if i == 1:
            assert "5 images of 2 classes (c0 2, c1 3), 1 held out (one in 5)" in said()
    assert "44 images of 8 classes (2 to 9 each), 8 held out (one in 5)" in said()


def test_two_models_decode_a_folder_twice_and_tell_of_it_once(tmp_path: Path) -> None:
    for i in range(8):
        (tmp_path / "set" / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / f"class{i % 2}" / f"{i}.png").write_bytes(any_png(8, 2))
    data = {"kind": "images", "path": str(tmp_path / "set")}
    points = [train(**data), train(**data).model_copy(update={"model": "resnet50"})]
    found = survey(points, 0, here=True)
    assert len(found.told) == 1
    assert [images.side for images in found.undecoded] == [28, 224]
    for images in found.undecoded:
        for _ in images.decode():
            pass
    again = survey(points, 0, here=True)
    assert not again.undecoded
    assert sum("decoded already" in line for line in again.lines) == 2
