"""python -m tests.kept.choose

Adds to ids.json the trials below and to grids.json the shipped studies, where they are not kept yet. What is kept
stays: a trial that is there under another id than today's is an error.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from cluster.study import file
from cluster.study.grid import grid
from jobs.contract.folder import read_trial, write_trial
from jobs.contract.trial import Trial
from tests.kept import files

Content = dict[str, Any]
TPU_CORES, CORES = 8, 4  # that a study with `workers: auto` finds

TORCH: Content = {"strategy": "torch", "workers": 1, "global_batch": 64}
TF = TORCH | {"strategy": "tf"}
JAX = TORCH | {"strategy": "jax"}
DDP: Content = {"strategy": "torch-ddp", "workers": 4, "global_batch": 64}
INFER = {"workload": "infer", "steps": {"compute_only": 0}}
INGEST = {"workload": "ingest", "steps": {"warmup": 16, "measured": 48, "compute_only": 0}}
GPU: Content = {"gpus_per_worker": 1}
LEARNT: Content = {"until_accuracy": 0.95, "steps": {"at_most": 300}}
SPREAD = (
    "torch-ddp", "torch-horovod", "tf-mirrored", "tf-multiworker", "tf-horovod", "jax-sharded", "torch-xla",
)  # fmt: skip

# One factor at a time: a trial, a factor, its values.
FACTORS: list[tuple[Content, str, Iterable[Any]]] = [
    (TORCH, "global_batch", (1, 2, 10, 100, 1024, 65536)),
    (DDP, "global_batch", (4, 12, 4096)),
    (TORCH, "repeat", (1, 9, 10, 99, 100)),
    (TF, "repeat", (1, 7)),
    (TORCH, "seed", (1, 7, 2**31, 2**63 - 1)),
    (
        TORCH,
        "data",
        (
            *({"kind": "mnist"}, {"kind": "mnist", "path": "/data/mnist"}, {"kind": "mnist", "path": "mnist.npz"}),
            *({"kind": "synthetic"}, {"kind": "synthetic", "side": 28}, {"kind": "images", "path": "/data/images"}),
            {"kind": "images", "path": "数字 и ö", "side": 28},
        ),
    ),
    (
        TORCH | {"model": "resnet50"},
        "data",
        (
            *({"kind": "synthetic"}, {"kind": "synthetic", "side": 32}, {"kind": "synthetic", "side": 224}),
            *({"kind": "images", "path": "/data/images"}, {"kind": "images", "path": "images", "side": 512}),
        ),
    ),
    (TF | {"model": "resnet50"}, "data", ({"kind": "synthetic"}, {"kind": "images", "path": "/data/images"})),
    (
        TORCH,
        "steps",
        ({"warmup": 1}, {"warmup": 100}, {"measured": 1}, {"measured": 10**6}, {"compute_only": 0}, {"compute_only": 7},
         {"warmup": 1, "measured": 3, "compute_only": 1}),
    ),
    (TORCH, "precision", ("float64", "bfloat16", "float16")),
    (TF, "precision", ("float64", "bfloat16", "float16")),
    (JAX, "precision", ("float64", "bfloat16")),
    (DDP, "precision", ("float64", "bfloat16", "float16")),
    (TORCH | GPU, "precision", ("float32", "tf32", "float64", "bfloat16", "float16")),
    (TF | GPU, "precision", ("float32", "tf32", "bfloat16")),
    (JAX | GPU, "precision", ("float32", "tf32")),
    (TORCH, "optimizer", ("framework-default",)),
    (TF, "optimizer", ("framework-default",)),
    (DDP, "optimizer", ("framework-default",)),
    (TORCH, "layout", ("channels-last",)),
    (DDP | GPU, "layout", ("channels-last",)),
    (TORCH, "learning_rate", (1e-4, 0.01, 0.1, 1.0, 3e-05, 1 / 3, 0.1 + 0.2)),
    (TORCH, "learning_rate_warmup", (1, 5, 500)),
    (TORCH | LEARNT, "until_accuracy", (0.5, 0.75, 0.9, 0.99, 0.999)),
    (
        TORCH | LEARNT,
        "steps",
        ({"at_most": 20}, {"at_most": 10**5}, {"at_most": 300, "evaluate_every": 1},
         {"at_most": 300, "evaluate_every": 50, "compute_only": 0}),
    ),
    (TF, "steps_per_call", (2, 5, 10)),
    (JAX, "steps_per_call", (2, 5, 10)),
    (TORCH, "execution", ("graph",)),
    (TF, "execution", ("eager", "xla")),
    (DDP, "execution", ("graph",)),
    (TORCH | INFER, "execution", ("default", "graph", "torchscript", "onnxruntime")),
    (TF | INFER, "execution", ("default", "eager", "xla", "savedmodel", "tflite")),
    (JAX | INFER, "execution", ("default", "eager")),
    (TORCH | INFER, "global_batch", (1, 16, 128)),
    (TORCH | INFER | GPU, "execution", ("default", "graph", "torchscript")),
    (TORCH | INGEST, "readers", (1, 2, 4, 16)),
    (TF | INGEST, "readers", (1, 2, 4, 16)),
    (TORCH | INGEST, "source", ("tfrecord", "cached")),
    (TF | INGEST, "source", ("tfrecord", "cached")),
    (
        TORCH | INGEST,
        "files",
        ({"count": 64}, {"side": 32}, {"resize": 16}, {"path": "/data/png"}, {"path": "png", "resize": 224},
         {"count": 10_000, "side": 256, "resize": 224}),
    ),
    (TORCH, "threads_per_worker", (2, 8, 64)),
    (DDP, "threads_per_worker", (2, 8)),
    (TORCH, "gpus_per_worker", (1,)),
    (TF, "gpus_per_worker", (1,)),
    (JAX, "tpu", ("real", "emulated")),
    (TORCH, "limits", ({"startup": 600.0}, {"hang": 0.5}, {"trial": 3600.0}, {"startup": 1.5, "hang": 2.0})),
    (TORCH, "telemetry", ({"hertz": 0.0}, {"hertz": 0.1}, {"hertz": 20.0})),
]  # fmt: skip


def chosen() -> Iterator[Content]:
    """Trials, each as what it has beside the defaults."""
    yield from ({**trial, factor: value} for trial, factor, values in FACTORS for value in values)
    yield from (TORCH, TF, JAX)
    for strategy, workers in itertools.product(SPREAD, (1, 2, 3, 4, 16, 1024)):
        one = {"strategy": strategy, "workers": workers, "global_batch": 1536}
        yield from (one | {"global_batch": 64 * workers}, *([one] if 1536 % workers == 0 else []))
    for strategy, workers in itertools.product(("torch-ddp", "torch-horovod", "tf-mirrored", "tf-horovod"), (1, 2, 8)):
        yield {"strategy": strategy, "workers": workers, "global_batch": 64 * workers, "gpus_per_worker": 1}
    for strategy, workers, tpu in itertools.product(
        ("tf-tpu", "jax-sharded", "torch-xla"), (1, 2, 8), ("real", "emulated")
    ):
        one = {"strategy": strategy, "workers": workers, "global_batch": 512, "tpu": tpu}
        yield from (one, one | {"steps_per_call": 10})
    for rule, warmup, reference in itertools.product(("linear", "sqrt"), (0, 10), (1, 32, 64)):
        changed = {"learning_rate_rule": rule, "learning_rate_warmup": warmup, "reference_batch": reference}
        yield from (DDP | changed, DDP | LEARNT | changed)
    yield {  # everything at once
        **DDP, **GPU, **LEARNT, "repeat": 3, "seed": 5, "model": "resnet50", "precision": "bfloat16",
        "data": {"kind": "images", "path": "/data/images", "side": 96}, "optimizer": "framework-default",
        "layout": "channels-last", "learning_rate": 0.02, "learning_rate_rule": "sqrt", "learning_rate_warmup": 4,
        "reference_batch": 16, "execution": "graph", "threads_per_worker": 4, "limits": {"hang": 90.0},
        "telemetry": {"hertz": 1.0},
    }  # fmt: skip


def points(study: Path) -> tuple[int, list[Trial]]:
    """The points of a shipped study, and the number of workers that fit where it is expanded."""
    parsed = file.parse(study)
    fits = TPU_CORES if parsed.resources.tpu == "real" else CORES
    return fits, grid(parsed, fits).points


def written(trial: Trial) -> Content:
    """What trial.json of a trial holds. It need not come to the disk: hundreds of them would take seconds."""
    with tempfile.TemporaryDirectory() as folder, mock.patch("os.fsync"):
        home = Path(folder, "trial")
        write_trial(home, trial)
        content: Content = json.loads((home / "trial.json").read_text(encoding="utf-8"))
        return content


def trial_of(content: Content) -> Trial:
    """The trial whose trial.json holds `content`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "trial.json").write_text(json.dumps(content), encoding="utf-8")
        return read_trial(Path(folder))


def main() -> None:
    ids, grids = files.read(files.IDS), files.read(files.GRIDS)
    known = {json.dumps(content, sort_keys=True): name for name, content in ids.items()}
    trials = [trial_of(content) for content in chosen()]
    for study in sorted((files.ROOT / "studies").glob("*.yaml")):
        fits, found = points(study)
        grids.setdefault(study.name, {"fits": fits, "points": [point.point for point in found]})
        trials += found
    for trial in trials:
        content = written(trial)
        name = known.setdefault(json.dumps(content, sort_keys=True), trial.id)
        if name != trial.id:
            raise SystemExit(f"{name} is kept, and is {trial.id} today: an id must not change")
        ids.setdefault(name, content)
    files.write(files.IDS, ids)
    files.write(files.GRIDS, grids)
    print(f"{len(ids)} ids, {len(grids)} grids")


if __name__ == "__main__":
    main()
