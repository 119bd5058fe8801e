"""A study in a container that may use half a core: planned, run and told of as what it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests import limited
from tests.warm import forges

ROOT = Path(__file__).parents[3]
STUDY = {
    "name": "half",
    "strategies": ["torch", "torch-ddp"],
    "workers": "auto",
    "scaling": ["strong"],
    "batch": {"global": 8},
    "steps": {"warmup": 1, "measured": 60, "compute_only": 1},
    "repeats": {"min": 1},
}


@contextmanager
def busy(enter: list[str]) -> Iterator[None]:
    """What else is in the container and uses its quota up: ranks without a framework mostly rest."""
    with subprocess.Popen([*enter, "sh", "-c", "while :; do :; done"]) as process:
        try:
            yield
        finally:
            process.kill()


@pytest.mark.quota
def test_a_quota_counts_as_cores_and_what_it_holds_back_goes_with_the_number(tmp_path: Path) -> None:
    study, results = tmp_path / "study.yaml", tmp_path / "r"
    environment = os.environ | forges.bare() | {"COLUMNS": "200"}

    def scaling(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*enter, sys.executable, "-m", "scaling", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)

    with limited.group(0.5) as enter:
        study.write_text(yaml.safe_dump(STUDY | {"workers": [1, 2]}))
        refused = scaling("run", study, "--results", results)
        study.write_text(yaml.safe_dump(STUDY))
        with busy(enter):
            run = scaling("run", study, "--results", results)
        examined = scaling("doctor")
    assert refused.returncode == 2
    assert "do not fit on the 1 physical cores there are (a CPU quota of 0.5)" in refused.stderr
    assert "1 physical for this process" in examined.stdout
    assert "a CPU quota of 0.5 cores: not even one worker" in examined.stdout
    assert run.returncode == 0, run.stderr
    plan = json.loads((results / "plan.json").read_text())
    assert {point.split("-")[-3] for point in plan["points"]} == {"n1"}
    assert any("a CPU quota of 0.5 cores" in line for line in plan["left_out"])
    for path in results.glob("trials/*/outcome.json"):
        (rank,) = json.loads(path.read_text())["ranks"]
        assert rank["cpu_quota"] == 0.5
        assert 0 < rank["throttled_periods"] <= rank["quota_periods"]
        assert rank["cores"] == rank["cpus"]
    said = " ".join(run.stdout.split())
    assert "a CPU quota held 1 of 1 launches back, in " in said
    assert "a CPU quota of 0.5 cores for 1 thread of a rank in 1 of 1 launches" in said
