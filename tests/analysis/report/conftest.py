"""A report of a hostile study, shared by the tests of its content and those in a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.report import page as report
from tests.analysis import generate, observed
from tests.analysis.load.broken import BROKEN

EVIL = "--><script>alert(1)</script>"
EVIL_ERROR = 'CUDA out of <img src="x" onerror="alert(2)"> memory'
EVIL_LOG = "</pre></details><script>alert(3)</script>"


def edit_outcome(home: Path, **fields: Any) -> None:
    path = home / "outcome.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that mostly went well, whose names and errors are markup, with every kind of loss."""
    folder = generate.study(
        tmp_path_factory.mktemp("hostile") / "results", name=EVIL, workers=(1, 2, 4, 8), repeats=3, per_worker=48,
        measured=12, hardware={"cpu": f"Chip{EVIL}", "physical_cores": 8},
    )  # fmt: skip
    observed.telemetry(folder, watts=200.0, others=0.3)
    observed.accuracy(folder, lambda trial: None if trial["workers"] == 8 else 2.0 + trial["repeat"])
    observed.machine(folder, cpu=f"Chip{EVIL}")
    trials = sorted((folder / "trials").iterdir())
    exits = [{"rank": 0, "exit_code": 1, "last_lines": ["Traceback", EVIL_LOG]}]
    edit_outcome(trials[0], status="failed", error=EVIL_ERROR, exits=exits)
    (trials[4] / "outcome.json").unlink()
    for spoilt, home in zip(BROKEN[:4], [t for t in trials if "tf-horovod-n2" in t.name], strict=False):
        spoilt.spoil(home)
    (folder / "set-aside" / "<b>old</b>".replace("/", "∕")).mkdir(parents=True)
    plan = {
        "format": 1,
        "points": ["torch-n64-b512-0123abcd"],
        "repeats": 3,
        "left_out": [f"tf at more than 1 worker {EVIL}"],
        "not_available": {"tf-tpu": f"no TPU {EVIL}"},
        "data": [
            {
                "path": f"/data/{EVIL}",
                "images": 1200,
                "classes": {"a": 400, "\ud800": 800},
                "held_out": "many",
                "held_out_from": f"{EVIL}/",
                "left_out": {f"images in {EVIL}/ and \ud800": 3000, ".webp files": None},
            },
            "no folder",
            {},
        ],
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


@pytest.fixture(scope="session")
def page(hostile: Path) -> Path:
    return report.write(hostile)
