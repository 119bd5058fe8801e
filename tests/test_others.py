"""What a site adds without a fork: a strategy, a launcher, a workload, a command that trains.

Each is the smallest that can be, in a folder that is no part of this project, and runs through the whole of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.analysis.workloads.test_interface import MODULE as SHOWN
from tests.others import install

STRATEGY = '''
"""Waits for as long as a step may take, and learns nothing."""
import time

import numpy as np

from jobs.contract.catalog import StrategyInfo
from jobs.strategies.interface import Facts, Strategy

INFO = StrategyInfo("PyTorch", "none", base_case="waits", needs=())


class Waits(Strategy):
    def prepare(self): ...
    def build(self): ...
    def copy_state(self): ...
    def close(self): ...

    def train(self, batches):
        time.sleep(0.002)
        return np.zeros(len(batches))

    compute_only = train

    def evaluate(self):
        return 0.5

    def facts(self):
        return Facts(device="cpu", parameters=1, intra_op_threads=1, inter_op_threads=1)


STRATEGY = Waits
'''

LAUNCHER = '''
"""This machine under another name."""
from cluster.local.launcher import LocalLauncher


class Mine(LocalLauncher):
    kind = "mine"


LAUNCHER = Mine
'''

# A strategy of training whose ranks live otherwise: each starts a command, and reports what that one has measured.
COMMAND = '''
import json
import subprocess
import sys
import time

from jobs.contract.catalog import StrategyInfo
from jobs.contract.folder import append_steps

INFO = StrategyInfo("Fortran", "native", base_case="command", needs=())
TRAINING = """
import json, sys, time
for step in range(int(sys.argv[1])):
    begun = time.perf_counter()
    time.sleep(0.002)
    print(json.dumps(time.perf_counter() - begun))
"""


def run(rank):
    from jobs.strategies.interface import Facts
    from jobs.workloads import reporting

    trial, number = rank.trial, rank.place.rank
    rank.meet().barrier()
    count = trial.steps.warmup + trial.steps.measured
    started = time.time()
    done = subprocess.run([sys.executable, "-c", TRAINING, str(count)], capture_output=True, text=True, check=True)
    seconds = [json.loads(line) for line in done.stdout.splitlines()]
    ended = time.time()
    row = {"phase": "train", "data_seconds": 0.0, "samples": trial.worker_batch, "loss": None}
    rows = [row | {"step": i, "seconds": s, "warmup": i < trial.steps.warmup} for i, s in enumerate(seconds)]
    append_steps(rank.folder, number, rows)
    facts = Facts(device="cpu", parameters=1, intra_op_threads=1, inter_op_threads=1)
    reporting.write(rank, facts, seconds[0], started, ended, {"said_by": "the command"})
    rank.rendezvous.barrier()
    rank.watchdog.stop()
'''

# A workload: its part of a trial, a factor of its own among it, and the life of its ranks.
WORKLOAD = """
import time
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from jobs.contract.trial import Trial


class Nap(Trial):
    factors: ClassVar = ("pause",)
    scales: ClassVar = False
    workload: Literal["nap"] = "nap"
    pause: Annotated[float, Field(gt=0)] = 0.01


TRIAL = Nap


def run(rank):
    import numpy as np

    from jobs.contract.folder import append_steps
    from jobs.strategies.interface import Facts
    from jobs.workloads import reporting
    from jobs.workloads.meter import Meter

    trial, steps = rank.trial, rank.trial.steps
    rank.meet()
    meter = Meter("nap", np.zeros((steps.warmup + steps.measured, trial.global_batch), np.int32), steps.warmup, 1)
    started = time.time()
    meter.run(lambda _: time.sleep(trial.pause) or 0.0, rank.watchdog, trial.limits.hang)
    ended = time.time()
    append_steps(rank.folder, 0, meter.rows())
    facts = Facts(device="cpu", parameters=0, intra_op_threads=1, inter_op_threads=1)
    reporting.write(rank, facts, float(meter.recording.seconds[0]), started, ended, {"naps": meter.done})
    rank.rendezvous.close()
    rank.watchdog.stop()
"""


def study(folder: Path, **keys: Any) -> Path:
    content = {
        "name": "theirs",
        "batch": {"per_worker": 8},
        "scaling": ["weak"],
        "workers": [1],
        "steps": {"warmup": 2, "measured": 10, "compute_only": 2},
        "repeats": {"min": 2},
        "telemetry": False,
        "launcher": {"kind": "local", "oversubscribe": True},
    } | keys
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def scaling(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "scaling", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


def outcomes(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("results/theirs/trials/*/outcome.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def test_a_strategy_and_a_launcher_of_another_package_run_a_study(tmp_path: Path) -> None:
    environment = install(
        tmp_path / "site",
        {"their_strategy": STRATEGY, "their_launcher": LAUNCHER},
        {"scaling.strategies": {"waits": "their_strategy"}, "scaling.launchers": {"mine": "their_launcher"}},
    )
    path = study(tmp_path, strategies=["waits"], launcher={"kind": "mine", "oversubscribe": True})
    done = scaling(tmp_path, environment, "run", str(path))
    assert done.returncode == 0, done.stderr
    assert "waits" in done.stdout
    assert [(o["status"], o["launcher"], o["base_case"]) for o in outcomes(tmp_path)] == [("ok", "mine", "waits")] * 2
    assert (tmp_path / "results/theirs/report/index.html").exists()
    assert (
        "waits"
        in json.loads(scaling(tmp_path, environment, "schema").stdout)["properties"]["strategies"]["items"]["enum"]
    )


def test_a_command_that_trains_is_a_strategy_with_a_life_of_its_own(tmp_path: Path) -> None:
    entry = {"scaling.strategies": {"command": "their_command"}}
    environment = install(tmp_path / "site", {"their_command": COMMAND}, entry)
    path = study(
        tmp_path, strategies=["command"], workers=[1, 2], steps={"warmup": 2, "measured": 10, "compute_only": 0}
    )
    done = scaling(tmp_path, environment, "run", str(path))
    assert done.returncode == 0, done.stderr
    assert "command" in done.stdout
    found = outcomes(tmp_path)
    assert [(o["status"], o["workers"], o["framework"]) for o in found] == [("ok", n, "Fortran") for n in (1, 1, 2, 2)]
    assert {r["said_by"] for o in found for r in o["ranks"]} == {"the command"}
    assert [len(o["ranks"]) for o in found] == [1, 1, 2, 2]


def test_a_workload_of_another_package_is_run_and_shown(tmp_path: Path) -> None:
    environment = install(
        tmp_path / "site",
        {"their_strategy": STRATEGY, "their_workload": WORKLOAD, "their_nap": SHOWN},
        {
            "scaling.strategies": {"waits": "their_strategy"},
            "scaling.workloads": {"nap": "their_workload"},
            "scaling.analysis": {"nap": "their_nap"},
        },
    )
    keys = {"workload": "nap", "strategies": ["waits"], "batch": {"sizes": [4]}, "pause": [0.002, 0.01]}
    done = scaling(tmp_path, environment, "run", str(study(tmp_path, **keys, scaling=["weak"])))
    assert done.returncode == 0, done.stderr
    assert "a nap lasts 0.0" in done.stdout
    found = outcomes(tmp_path)
    assert [(o["status"], o["ranks"][0]["naps"]) for o in found] == [("ok", 12)] * 4
    trials = [json.loads(path.read_text()) for path in tmp_path.glob("results/theirs/trials/*/trial.json")]
    assert sorted((t["workload"], t["pause"], t["precision"]) for t in trials) == sorted(
        [("nap", pause, "float32") for pause in (0.002, 0.01)] * 2
    )
    assert (tmp_path / "results/theirs/figures/nap.png").exists()
    again = scaling(tmp_path, environment, "status", "results/theirs")
    assert again.returncode == 0, again.stderr
    wrong = scaling(tmp_path, environment, "run", str(study(tmp_path, **keys | {"pause": [-1.0]}, optimizer="adam")))
    assert "study.yaml: pause.0: -1.0 is wrong; input should be greater than 0" in wrong.stderr
    wrong = scaling(tmp_path, environment, "run", str(study(tmp_path, **keys, precision="bfloat16")))
    assert "precision: workload nap has none; leave it out" in wrong.stderr


@pytest.mark.parametrize(
    ("source", "group", "said"),
    [
        (None, "strategies", "strategies.0: waits: its module of scaling.strategies cannot be imported: No module"),
        ("import no_such_thing", "strategies", "cannot be imported: No module named 'no_such_thing'"),
        ("INFO = 1 / 0", "strategies", "cannot be imported: division by zero"),
        ("INFO_ = 1", "strategies", "waits: gone has no INFO, as a module of scaling.strategies must"),
        ("LAUNCHER_ = 1", "launchers", "launcher.kind: waits: gone has no LAUNCHER, as a module of scaling.launchers"),
        ("import no_such_thing", "workloads", "workload: waits: its module of scaling.workloads cannot be imported"),
    ],
)
def test_what_is_broken_in_another_package_is_a_line(source: str | None, group: str, said: str, tmp_path: Path) -> None:
    modules = {} if source is None else {"gone": source}
    environment = install(tmp_path / "site", modules, {f"scaling.{group}": {"waits": "gone"}})
    keys: dict[str, Any] = {
        "strategies": {"strategies": ["waits"]},
        "launchers": {"launcher": {"kind": "waits"}},
        "workloads": {"workload": "waits"},
    }[group]
    done = scaling(tmp_path, environment, "run", str(study(tmp_path, **{"strategies": ["torch"]} | keys)))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    if group == "strategies":
        examined = scaling(tmp_path, environment, "doctor")
        assert "waits" in examined.stdout, examined.stderr


def test_what_is_broken_there_costs_no_study_that_does_without(tmp_path: Path) -> None:
    groups = ("strategies", "launchers", "workloads")
    environment = install(tmp_path / "site", {}, {f"scaling.{group}": {"waits": "gone"} for group in groups})
    done = scaling(tmp_path, environment, "run", "--dry-run", str(study(tmp_path, strategies=["torch"])))
    assert (done.returncode, done.stderr) == (0, "")
