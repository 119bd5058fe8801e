"""One practice cluster for all tests that need SLURM."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.slurm import launcher
from tests.cluster.slurm import practice


@pytest.fixture(scope="session")
def slurm_folder() -> Iterator[Path]:
    """The folder of a running practice cluster. Its path is short, as a socket's must be."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    with practice.practice_cluster(folder):
        yield folder
    shutil.rmtree(folder)


@pytest.fixture
def slurm_cluster(slurm_folder: Path) -> Iterator[Path]:
    """The same, with all nodes up and nothing in the queue, before and after."""
    practice.empty()
    yield slurm_folder
    practice.empty()


@pytest.fixture
def settles_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """One machine sees its own files at once, and its controller may be asked more often than others'."""
    monkeypatch.setattr(launcher, "SETTLE_SECONDS", 2.0)
    monkeypatch.setattr(launcher, "POLL_SECONDS", 0.3)
