"""The judges, one for each claim: results ─▶ comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from analysis.load.results import Results
from analysis.verdicts.contrast import Comparison, Rates, Side, compared, decided, plain, without_stand_ins
from analysis.verdicts.over_eager import over_eager, scaling_over_eager
from analysis.workloads.ingest import SOURCES, by_source, of


def tf_data_over_loader(results: Results, margin: float) -> list[Comparison]:
    """Throughput of tf.data over DataLoader's on the same files, at each number of readers.

    Primary is reading the files themselves; TFRecord files and the cache are told beside.
    """
    trials = of(results)
    if not len(trials):
        return []
    families: dict[bool, list[Comparison]] = {True: [], False: []}
    trials = trials.sort(by_source(), "readers", "global_batch")
    for part in trials.partition_by("source", "readers", "global_batch", maintain_order=True):
        source, readers, batch = part.select("source", "readers", "global_batch").row(0)
        here = f"{SOURCES[source]}, {readers} reader{'s' if readers > 1 else ''}, batch {batch}"
        cell = Rates(here, 1, {}, part, part.clear())
        tf, torch = cell.throughputs("TensorFlow"), cell.throughputs("PyTorch")
        if tf and torch:
            families[source == "png"].append(compared("tf.data / DataLoader", cell, tf, torch))
    return [c for primary, family in families.items() for c in decided(family, margin, primary)]


def scales_better(results: Results, margin: float) -> list[Comparison]:
    """Efficiency of TensorFlow over PyTorch's: best of each (primary), native, Horovod, and interaction."""
    found: list[Comparison] = []
    families: dict[str, list[Comparison]] = {}
    for cell in Rates.cells(results, without_stand_ins(results.trials)):
        tf, torch = cell.efficiencies("TensorFlow"), cell.efficiencies("PyTorch")
        for name, sides in {
            "best of each framework": (tf, torch),
            "native communication": (_only(tf, "native"), _only(torch, "native")),
            "Horovod on both": (_only(tf, "horovod"), _only(torch, "horovod")),
        }.items():
            if all(sides):
                families.setdefault(name, []).append(compared(name, cell, *sides))
        if interaction := cell.interaction():
            name = "framework × communication: native over Horovod"
            families.setdefault(name, []).append(compared(name, cell, *interaction))
    for name, family in families.items():
        found += decided(family, margin, primary=name == "best of each framework")
    return found


def suits_tpu(results: Results, margin: float) -> list[Comparison]:
    """Throughput, and above one core efficiency, of TensorFlow over another framework's, where the device is a TPU."""
    real = without_stand_ins(results.trials)
    on_tpu = real.filter(pl.col("device").fill_null("").str.contains("TPU"))
    family = []
    for device in on_tpu["device"].unique(maintain_order=True):
        for cell in Rates.cells(results, on_tpu.filter(device=device), from_one_worker=True):
            tf, others = cell.throughputs("TensorFlow"), cell.throughputs("TensorFlow", other=True)
            if tf and others:
                family.append(compared(f"throughput on the same {device}", cell, tf, others))
            tf = cell.efficiencies("TensorFlow")
            names = [n for n in cell.here["framework"].unique(maintain_order=True) if n != "TensorFlow"]
            others = [side for name in names for side in cell.efficiencies(name)]
            if cell.workers > 1 and tf and others:
                family.append(compared(f"efficiency on the same {device}", cell, tf, others))
    return decided(family, margin, primary=True)


def graph_faster(results: Results, margin: float) -> list[Comparison]:
    """Training throughput, and efficiency, of a graph over eager execution, each framework against itself."""
    frameworks = ("PyTorch", "TensorFlow")
    return over_eager(results, margin, "train", frameworks) + scaling_over_eager(results, margin, frameworks)


def compile_infers_faster(results: Results, margin: float) -> list[Comparison]:
    """Inference throughput of torch.compile over eager PyTorch, per batch size, without the compile time."""
    return over_eager(results, margin, "infer", ("PyTorch",))


JUDGES: dict[str, Callable[[Results, float], list[Comparison]]] = {
    "tf-scales-better": scales_better,
    "tf-suits-tpu": suits_tpu,
    "tf-data-pipeline": tf_data_over_loader,
    "compile-speeds-inference": compile_infers_faster,
    "static-graph-faster": graph_faster,
}


def _only(sides: Sequence[Side], communication: str) -> list[Side]:
    """The plain sides of one communication layer: what both frameworks can do alike."""
    return plain([side for side in sides if side.communication == communication])
