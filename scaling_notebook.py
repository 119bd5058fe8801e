"""What the cells of notebooks/colab_tpu.ipynb call, one function each, in this order.

    tpu = find_tpu()
    python = find_tensorflow(tpu)
    study = plan_study(tpu, python, cores="all", batch=512, repeats=5, steps=0, study=Path("studies/tpu.yaml"))
    results = measure(study)
    show_curves(results); show_verdicts(results); offer_zip(results)

Like scaling.py it only wires, and says in plain sentences what it finds. Without a TPU, CPU devices stand
in for its cores, and whatever comes out of that is called emulated.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from cluster.study.schema import Study

ENVIRONMENTS = Path("environments")
ON_DRIVE = "MyDrive/scaling"
SAVE_SECONDS = 60.0
# What CPU devices that stand in for cores measure at most, since it is for seeing how it goes.
EMULATED_BATCH = 64
EMULATED_CALL = 10
EMULATED_STEPS = {"warmup": 10, "measured": 30, "compute_only": 10}
ONE_CORE = (
    "One core gives a point, not a curve: this reproduces throughput on one chip. To see scaling over cores, run the "
    "notebook on Kaggle with the accelerator TPU v5e-8."
)


@contextmanager
def _clean_errors() -> Iterator[None]:
    """A mistake in a form field is said in a line, and stops "Run all" without a traceback."""
    from cluster.launcher import OptionsError
    from cluster.study.schema import StudyError

    try:
        yield
    except (StudyError, OptionsError) as error:
        raise SystemExit("\n".join(error.faults)) from None


@dataclass(frozen=True)
class Tpu:
    """The devices that workers get: cores of a TPU, or CPU devices that stand in for them."""

    name: str
    cores: int
    emulated: bool


def find_tpu() -> Tpu:
    """Say which TPU this machine has and how many cores; without one, CPU devices stand in for cores."""
    from jobs.machine import tpu
    from jobs.machine.cores import allowed_cores

    why = "there is none on this machine"
    if tpu.chips() or "TPU_NAME" in os.environ:
        try:
            found = Tpu(tpu.name(), tpu.cores(), emulated=False)
        except tpu.TpuError as error:
            why = str(error)
        else:
            print(f"Found {found.name} with {found.cores} core{'s' if found.cores > 1 else ''}.")
            if found.cores == 1:
                print(ONE_CORE)
            return found
    stand_ins = Tpu("emulated TPU", max(2, len(allowed_cores())), emulated=True)
    print(f"No TPU can be used ({why}).")
    print(
        f"{stand_ins.cores} CPU devices stand in for cores. All results below are EMULATED: they say nothing of TPUs."
    )
    return stand_ins


def find_tensorflow(tpu: Tpu) -> Path | None:
    """An interpreter whose TensorFlow drives these devices, and what to do where there is none."""
    from cluster.setup.tpu import MENU, tensorflow, tensorflow_on_cpus

    find = tensorflow_on_cpus if tpu.emulated else tensorflow
    python, reasons = find(ENVIRONMENTS)
    if python is not None:
        print(f"TensorFlow works with {python}.")
        return python
    print("No TensorFlow works here:", *reasons, sep="\n  ")
    if not tpu.emulated:
        print(MENU)
    print("Without it the study goes on, and the claim about TensorFlow stays untested.")
    return None


@_clean_errors()
def plan_study(
    tpu: Tpu, tensorflow: Path | None, *, cores: str, batch: int, repeats: int, steps: int, study: Path
) -> Study:
    """The study of the file `study` over these devices.

    `cores` is "all" (1, 2, 4, … and all there are) or numbers with commas; `batch` is the global one at
    strong scaling and each core's at weak; `steps` are measured in each launch, 0 for as many as the file says.
    """
    from cluster.study import file
    from cluster.study.schema import resolved

    content = resolved(file.parse(study))
    if tpu.emulated:
        batch = min(batch, EMULATED_BATCH)
        _lighten(content)
        print(f"CPUs are slow: at most {EMULATED_BATCH} samples and few steps, so that this ends in minutes.")
    elif importlib.util.find_spec("torch_xla") and "torch-xla" not in content["strategies"]:
        content["strategies"].append("torch-xla")  # Colab and Kaggle have it installed beside JAX
    content["name"] = f"{content['name']}-{tpu.name.removeprefix('TPU ').lower().replace(' ', '-')}-{tpu.cores}"
    content["workers"] = _counts(cores, tpu.cores, batch)
    content["batch"] |= {name: batch for name in ("global", "per_worker") if content["batch"][name] is not None}
    content["repeats"] = {"min": repeats}
    content["resources"]["tpu"] = "emulated" if tpu.emulated else "real"
    if steps:
        content["steps"]["measured"] = steps
    of_tensorflow = [name for name in content["strategies"] if name.startswith("tf")]
    if tensorflow is None:
        content["strategies"] = [name for name in content["strategies"] if name not in of_tensorflow]
    apart = tensorflow is not None and str(tensorflow) != sys.executable
    python = dict.fromkeys(of_tensorflow, str(tensorflow)) if apart else {}
    content["launcher"] = {"kind": "local", "python": python, "oversubscribe": True}
    made = file.check(content)
    print(yaml.safe_dump({k: content[k] for k in ("name", "strategies", "workers", "scaling", "batch", "repeats")},
                         sort_keys=False, default_flow_style=None).strip())  # fmt: skip
    return made


def _lighten(content: dict[str, Any]) -> None:
    """Let a study that was made for a TPU take few steps, in whole calls."""
    k = content["steps_per_call"]
    k = min(k if isinstance(k, int) else min(k), EMULATED_CALL)
    content["steps_per_call"] = k
    for phase, most in EMULATED_STEPS.items():
        content["steps"][phase] = min(content["steps"][phase], most) // k * k


def _counts(cores: str, there: int, batch: int) -> list[int]:
    from cluster.study.schema import StudyError

    if cores.strip() == "all":
        counts = {1, there} | {2**i for i in range(there.bit_length()) if 2**i <= there}
        return sorted(n for n in counts if batch % n == 0)
    try:
        chosen = sorted({int(part) for part in cores.split(",")})
    except ValueError:
        raise StudyError([f"cores: {cores!r} is wrong; write all, or numbers such as 1, 2, 4"]) from None
    if wrong := [n for n in chosen if not 1 <= n <= there]:
        raise StudyError([f"cores: {', '.join(map(str, wrong))}: there are {there}"])
    return chosen


def drive() -> Path | None:
    """The folder on Google Drive where results are kept from one runtime to the next; None outside Colab."""
    if "google.colab" not in sys.modules:
        print("This is not Colab: results stay in this machine's folder.")
        return None
    from google.colab import drive as google_drive

    google_drive.mount("/content/drive")
    place = Path("/content/drive") / ON_DRIVE
    place.mkdir(parents=True, exist_ok=True)
    return place


@_clean_errors()
def measure(study: Study, keep: Path | None = None) -> Path:
    """Measure what is missing of the study, and return its results folder.

    Between launches, when nothing is being measured, the results go as a zip into the folder `keep` at
    most once a minute; a new runtime takes them up from there.
    """
    from rich.console import Console

    from cluster.driver.plan import plan
    from cluster.driver.progress import TerminalDisplay
    from cluster.driver.run import run
    from cluster.local.launcher import LocalLauncher
    from cluster.results.folder import ResultsFolder
    from cluster.results.importing import bring
    from jobs.contract.outcome import Outcome
    from scaling import examine, precision

    results = Path("results") / study.slug
    kept = keep / f"{study.slug}.zip" if keep else None

    class Display(TerminalDisplay):
        saved = time.monotonic()

        def ended(self, outcome: Outcome) -> None:
            super().ended(outcome)
            if kept and time.monotonic() > self.saved + SAVE_SECONDS:
                _keep(results, kept)
                self.saved = time.monotonic()

    if kept and kept.exists():  # what is here already is passed over
        print(*bring(kept, results, examine).lines(), sep="\n")
    launcher = LocalLauncher(study.launcher.options, results)
    planned = plan(study, launcher)
    for note in planned.notes():
        print(note)
    folder = ResultsFolder(results)
    folder.open(study)
    try:
        with Display(Console(file=sys.stdout, width=110, force_terminal=False, force_jupyter=False)) as display:
            summary = run(planned, folder, launcher, precision, display)
    finally:
        folder.close()
        if kept:
            _keep(results, kept)
    if summary.failed:
        print(f"{len(summary.failed)} launches failed; run this cell again to try them once more.")
    return results


def show_curves(results: Path) -> None:
    """Draw throughput, speedup, efficiency and where the time goes, into the notebook."""
    from IPython.display import Image, display

    from analysis.figures.write import write_all
    from analysis.load.results import load

    for path in write_all(load(results), results / "figures"):
        if path.suffix == ".png":
            display(Image(path.read_bytes(), width=900))


def show_verdicts(results: Path) -> None:
    """A table of the claims that these results, or published ones, can judge."""
    import pandas as pd
    from IPython.display import HTML, display

    from analysis.load.results import load
    from analysis.verdicts import claims

    loaded = load(results)
    rows = [
        {
            "claim": verdict.claim.statement,
            "measured here": verdict.verdict,
            "why": verdict.summary,
            "published": f"{verdict.published.verdict}: {verdict.published.summary}" if verdict.published else "–",
        }
        for verdict in claims.judge(loaded)
        if verdict.verdict != "untested" or verdict.published
    ]
    if loaded.trials["emulated"].any():
        print("These results are EMULATED: CPU devices stood in for the TPU's cores, so nothing here is about a TPU.")
    with pd.option_context("display.max_colwidth", None):
        display(HTML(pd.DataFrame(rows).to_html(index=False, border=0, justify="left")))


def offer_zip(results: Path) -> Path:
    """Zip the results folder and offer it for download; at home: `scaling import`."""
    target = Path(f"{results.name}.zip")
    _zip(results, target)
    print(f"At home: scaling import {target.name}, then scaling claims results/{results.name}")
    print("docs/environment.md says all that is in it: this host's name and some of its variables too.")
    if "google.colab" in sys.modules:
        from google.colab import files

        files.download(str(target))
    else:
        from IPython.display import FileLink, display

        display(FileLink(str(target)))
    return target


def _keep(results: Path, target: Path) -> None:
    """Nothing is kept that could not be brought back: a zip without a finished launch."""
    if any(results.glob("trials/*/outcome.json")):
        _zip(results, target)


def _zip(results: Path, target: Path) -> None:
    """Made beside the results and put in place when whole: `target` is never half written."""
    made = Path(shutil.make_archive(str(results), "zip", results.parent, results.name))
    aside = target.with_name(f".{target.name}.part")
    shutil.move(made, aside)
    aside.replace(target)
