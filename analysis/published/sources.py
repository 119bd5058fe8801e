"""Where the published numbers come from, under which licence, and what to beware of when reading them."""

from __future__ import annotations

from dataclasses import dataclass

_MLPERF_WARNINGS = (
    "Minutes are time to a quality target: speed and epochs to converge in one number. Rates here are work "
    "(epochs or samples) per minute of the whole run, evaluation included.",
    "Global batch and tuning change along every series: neither strong nor weak scaling.",
    "Compare within one round only: code and, for bert, the quality target change between rounds.",
    "Derived from the raw logs and not verified by MLCommons; MLPerf is a trademark of MLCommons.",
)


@dataclass(frozen=True)
class Source:
    """One published source. `has_curves` is false where it holds no scale-out series."""

    id: str
    title: str
    citation: str
    licence: str
    warnings: tuple[str, ...]
    has_curves: bool = True
    why_no_curves: str = ""


def _mlperf(version: str, year: int, *more: str, why_no_curves: str = "") -> Source:
    return Source(
        id=f"mlperf_v{version}",
        title=f"MLPerf Training v{version} ({year}), closed division, run-level logs",
        citation=f"MLCommons, https://github.com/mlcommons/training_results_v{version}, "
        "SUBMITTER/results/SYSTEM/BENCHMARK/result_N.txt and SUBMITTER/systems/SYSTEM.json",
        licence="Apache-2.0",
        warnings=_MLPERF_WARNINGS + more,
        has_curves=not why_no_curves,
        why_no_curves=why_no_curves,
    )


SOURCES: dict[str, Source] = {
    source.id: source
    for source in (
        Source(
            id="tf_benchmarks_2017",
            title="TensorFlow performance benchmarks, May 2017",
            citation="TensorFlow authors, https://github.com/tensorflow/tensorflow, "
            "tensorflow/docs_src/performance/benchmarks.md at commit 5984ffef",
            licence="Apache-2.0",
            warnings=(
                "The distributed EC2 series exchanges gradients through parameter servers: no all-reduce model "
                "describes it, and its one-GPU base is not that of the single-server series.",
                "The batch differs by model and system; many single-server rows keep the variables on the CPU.",
                "Mean of 5 runs of 100 steps; the spread is not published. GPUs, drivers and code of 2017.",
            ),
        ),
        Source(
            id="pytorch_ddp_readme",
            title="PyTorch DistributedDataParallel benchmark (PyTorch 1.4 alpha, 8 V100 per machine)",
            citation="PyTorch contributors, https://github.com/pytorch/pytorch, "
            "benchmarks/distributed/ddp/README.md at commit bf69c149",
            licence="BSD-3-Clause",
            warnings=(
                "Step times are printed to 1 ms, about 1% of a step; efficiencies inherit that.",
                "One launch, no repeat; percentiles pool 10 steps of every rank. The date is not stated.",
                "The bucket_cap_mb=1 rows come from another pair of runs and have no median: their 75th "
                "percentile is used, against their own one-GPU run.",
            ),
        ),
        Source(
            id="ray_train_parity",
            title="Ray Train benchmarks: parity with native PyTorch and TensorFlow",
            citation="Ray authors, https://github.com/ray-project/ray, doc/source/train/benchmarks.rst "
            "at commit 03c1a1e6",
            licence="Apache-2.0",
            warnings=(
                "Never compare its two frameworks: PyTorch divides one global batch of 64 over the workers, "
                "TensorFlow keeps the batch of a worker, and the epochs differ (20; TensorFlow on GPU 200).",
                "4 and 16 CPU workers share the same four machines, so a worker's cores shrink from 8 to 2.",
                "The page says 'within 2.5%'; its own 16-worker CPU row differs by 9.5%. No spread published.",
            ),
            has_curves=False,
            why_no_curves="every series in it has a single worker count on given resources per worker",
        ),
        _mlperf(
            "0.7",
            2020,
            "The raw counters of the bert logs of NVIDIA and of Google's tf2.0 are unusable: no rates.",
            why_no_curves="TensorFlow's code version changes along its series, and the PyTorch logs hold no "
            "usable count of samples",
        ),
        _mlperf(
            "1.0",
            2021,
            "Google's tpu-v4-128 counts epochs from 0, 1 or 2 too few of about 42: efficiencies of the TPU v4 "
            "resnet series against it come out 2 to 5% too high.",
        ),
        _mlperf(
            "2.1",
            2022,
            "The HPE resnet time on 32 GPUs is out of line with 16 and 64; it is in the logs.",
            "Part of the logs date from the round before.",
        ),
    )
}
