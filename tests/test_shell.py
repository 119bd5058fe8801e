"""A study in a shell that is full of other people's variables: it is measured, drawn and told as anywhere else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jobs.machine.cores import allowed_cores
from tests.warm.forges import bare

ROOT = Path(__file__).parents[1]
STUDY = {
    "name": "shell",
    "strategies": ["torch-ddp"],
    "workers": [1, 2],
    "scaling": ["strong"],
    "batch": {"global": 8},
    "steps": {"warmup": 1, "measured": 4, "compute_only": 1},
    "repeats": {"min": 1},
    "launcher": {"kind": "local", "oversubscribe": True},
}
# Each ends a run, or bends it, where it is heeded.
SHELL = {
    "MPLBACKEND": "nosuch", "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "64", "GOMP_CPU_AFFINITY": "0",
    "http_proxy": "http://me:hunter2@127.0.0.1:9", "KERAS_BACKEND": "torch", "RANK": "3", "WORLD_SIZE": "4",
    "TORCHDYNAMO_DISABLE": "1", "JAX_PLATFORMS": "cuda",
}  # fmt: skip
CHOSEN = {"NCCL_ALGO": "Ring", "MALLOC_ARENA_MAX": "2", "TORCHINDUCTOR_MAX_AUTOTUNE": "1"}
SECRETS = {
    "TF_VAR_db_pwd": "hunter2", "TORCH_API_TOKEN": "hunter2", "NCCL_TOPO_FILE": "https://me:hunter2@host/topo.xml",
    "AWS_SECRET_ACCESS_KEY": "hunter2", "DATABASE_URL": "postgres://me:hunter2@db", "CUDA_NOTE": "password=hunter2",
}  # fmt: skip


def scaling(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scaling", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "140"} | environment
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def study(folder: Path) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return path


def in_the_way(folder: Path) -> str:
    """A PYTHONPATH with packages called as ours are, before what leads to bare ranks."""
    for name in ("jobs", "cluster", "analysis"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise RuntimeError('another package called {name}')\n")
    return os.pathsep.join([str(folder), bare()["PYTHONPATH"]])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("shell")
    shell = bare() | SHELL | CHOSEN | SECRETS | {"PYTHONPATH": in_the_way(place / "path")}
    done = scaling("run", study(place), "--results", place / "results", **shell)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return place / "results"


def test_it_is_measured_and_drawn_as_anywhere_else(results: Path) -> None:
    assert (results / "figures" / "efficiency.png").exists()
    assert list((results / "report").glob("*.html"))
    outcomes = [json.loads(path.read_text()) for path in results.glob("trials/*/outcome.json")]
    assert [outcome["status"] for outcome in outcomes] == ["ok", "ok"]
    for outcome in outcomes:
        cores = {cpu for rank in outcome["ranks"] for cpu in rank["cpus"]}
        assert len(cores) == min(len(outcome["ranks"]), len(allowed_cores()))
        seen = outcome["environment"]
        assert {name: seen[name] for name in CHOSEN} == CHOSEN
        assert seen["OMP_NUM_THREADS"] == "1"
        assert not seen.keys() & (SHELL.keys() - {"OMP_NUM_THREADS"})
        assert seen["NCCL_TOPO_FILE"] == "https://***@host/topo.xml"
        assert seen["PYTHONPATH"].startswith(str(ROOT))


def test_no_file_of_a_results_folder_holds_a_secret_of_the_shell(results: Path) -> None:
    files = [path for path in results.rglob("*") if path.is_file()]
    assert len(files) > 15
    assert not [path for path in files if b"hunter2" in path.read_bytes()]


def test_a_notebooks_backend_and_another_figure_style_change_no_figure(results: Path, tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: ff0000\nfont.size: 40\nsavefig.dpi: 10\nbackend: tkagg\n")
    shell = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "MATPLOTLIBRC": str(tmp_path)}
    done = scaling("plot", results, "--to", tmp_path / "figures", **shell)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("efficiency.png", "throughput.svg"):
        assert (tmp_path / "figures" / name).read_bytes() == (results / "figures" / name).read_bytes()


def test_a_terminal_without_a_width_is_written_to_as_a_file(results: Path) -> None:
    told = [scaling("status", results, COLUMNS=columns).stdout for columns in ("0", "110")]
    assert told[0] == told[1]


@pytest.mark.parametrize("name", ["cluster/study", "jobs/contract", "analysis/load"])
def test_a_folder_without_code_that_is_called_as_ours_stands_behind_it(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir(parents=True)
    path = tmp_path / "absent.yaml"
    done = subprocess.run(
        [Path(sys.executable).with_name("scaling"), "run", path, "--dry-run"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert str(path) in done.stderr


@pytest.mark.parametrize(
    ("said", "shown"),
    [("ignore", False), ("error", True), ("error::DeprecationWarning,ignore::UserWarning", False), ("always", True)],
)
def test_what_the_shell_says_of_warnings_holds_but_that_they_are_errors(said: str, shown: bool) -> None:
    code = "import scaling, warnings; scaling.app = lambda: warnings.warn('careful'); scaling.main()"
    command, shell = [sys.executable, "-c", code], os.environ | {"PYTHONWARNINGS": said}
    done = subprocess.run(command, cwd=ROOT, env=shell, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "UserWarning: careful" in done.stderr) == (0, shown), done.stderr


@pytest.mark.parametrize("arguments", [["--dry-run"], []])
def test_what_is_refused_is_said_before_anything_is_measured(arguments: list[str], tmp_path: Path) -> None:
    done = scaling("run", study(tmp_path), "--results", tmp_path / "r", *arguments, XLA_FLAGS="/home/me/flags.txt")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("XLA_FLAGS: ")
    assert not (tmp_path / "r").exists()


@pytest.mark.ray
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:8265", "RAY_ADDRESS: 'http://127.0.0.1:8265' is a dashboard's; "),
        ("127.0.0.1:9", "RAY_ADDRESS: 127.0.0.1:9: nothing answers there "),
    ],
)
def test_an_address_of_ray_that_is_left_over_is_named_with_the_cure(address: str, said: str, tmp_path: Path) -> None:
    done = scaling("run", study(tmp_path), "--on", "ray", "--dry-run", RAY_ADDRESS=address)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(said)
    assert "unset RAY_ADDRESS" in done.stderr
