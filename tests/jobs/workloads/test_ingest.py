"""What a rank of an ingest trial does around its steps. A strategy without a framework stands in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.contract.parts import Steps
from jobs.contract.trial import Trial
from jobs.data import reading
from jobs.data.dataset import DataError
from jobs.workloads import ingest, reporting
from jobs.workloads.startup import Laps
from tests.jobs.data.pictures import any_png, ramp_16


def run(folder: Path, files: dict[str, Any], batches: Iterator[int], **factors: Any) -> None:
    watchdog = SimpleNamespace(allow=lambda _: None, beat=lambda: None, work=lambda: None, due=math.inf)
    steps = Steps(warmup=1, measured=factors.pop("measured", 2), compute_only=0)
    content = {"strategy": "torch", "workers": 1, "global_batch": 4, "steps": steps, "workload": "ingest"}
    rank: Any = SimpleNamespace(
        trial=Trial.of(files=files, **content | factors), laps=Laps(), watchdog=watchdog, folder=folder,
        load=lambda: None, meet=nullcontext, leave=lambda _: None,
        build=lambda _: SimpleNamespace(ingest=lambda _: batches),
    )  # fmt: skip
    ingest.run(rank)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    home = tmp_path / "photos"
    home.mkdir()
    for i in range(10):
        (home / f"{i}.png").write_bytes(any_png(8, 2))
    return home


def test_what_a_pipeline_raised_is_in_the_log_before_the_file_is_looked_for(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before: list[str] = []
    monkeypatch.setattr(reading, "blame", lambda *_: before.append(capsys.readouterr().err))

    def failing() -> Iterator[int]:
        yield 0
        raise OSError("the pipeline's own words")

    with pytest.raises(OSError, match="own words"):
        run(tmp_path, {"path": str(photos)}, failing())
    assert "OSError: the pipeline's own words" in before[0]


def test_a_file_that_no_launcher_could_see_is_refused_after_it_was_read(photos: Path, tmp_path: Path) -> None:
    """Both read it, and not the same of it."""
    (photos / "4.png").write_bytes(ramp_16())
    batches = iter(range(3))
    with pytest.raises(DataError, match=r"4\.png: is grey with 16 bits"):
        run(tmp_path, {"path": str(photos)}, batches)
    assert list(batches) == []


@pytest.mark.parametrize(("measured", "said"), [(1, []), (2, ["2 of 10 files fill no batch and are not read"])])
def test_files_that_fill_no_batch_are_told_only_where_all_others_are_read(
    measured: int, said: list[str], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(reporting, "report", lambda *of: told.append(of[-1]["not_as_asked"]))
    monkeypatch.setattr(reading, "write_records", lambda folder, shards: ())
    run(tmp_path, {"path": str(photos)}, iter(range(9)), source="tfrecord", readers=1, measured=measured)
    assert told == [said]
