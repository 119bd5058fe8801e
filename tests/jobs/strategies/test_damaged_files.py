"""A file that cannot be decoded is named, by whichever framework and from wherever it is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from jobs.contract.parts import Limits, Steps, Telemetry
from jobs.contract.trial import Trial
from tests.running import launch

pytestmark = pytest.mark.usefixtures("warm_ranks")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten PNG files, of which one is damaged in its middle, which shows only when it is decoded."""
    home = tmp_path_factory.mktemp("photos")
    for number in range(10):
        Image.effect_noise((48, 48), 50).convert("RGB").save(home / f"{number}.png")
    whole = (home / "7.png").read_bytes()
    (home / "7.png").write_bytes(whole[:400] + bytes(200) + whole[600:])
    return home


@pytest.mark.parametrize("source", ["png", "cached", "tfrecord"])
@pytest.mark.parametrize("strategy", ["torch", "tf"])
def test_the_file_is_named(strategy: str, source: str, photos: Path, tmp_path: Path) -> None:
    trial = Trial.of(
        strategy=strategy, workload="ingest", workers=1, global_batch=5, source=source, telemetry=Telemetry(hertz=0),
        steps=Steps(warmup=2, measured=4, compute_only=0), files={"path": str(photos), "resize": 16},
        limits=Limits(startup=60.0, hang=20.0),
    )  # fmt: skip
    launched = launch(trial, tmp_path)
    outcome = launched.outcome
    assert outcome.status == "failed"
    assert outcome.error.startswith(f"rank 0 ended with exit code 1: DataError: {photos}/7.png: ")
    log = (launched.folder / "rank-00000.log").read_text()
    assert strategy == "torch" or "Invalid PNG data" in log  # what the framework itself had to say
