"""The article's claims as hypotheses that were fixed before the run, and their verdicts.

    for verdict in judge(load(Path("results/quick"))): print(verdict.claim.id, verdict.verdict)

A claim has one judge, a function of the results; `JUDGES` finds it. The rules of judging, and how often
they err, are in docs/claims.md.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from analysis.contrast import Comparison, Rates, Side, compared, decided, overall, plain, without_stand_ins, word_for
from analysis.execution import over_eager, scaling_over_eager
from analysis.ingest import tf_data_over_loader
from analysis.load.results import Results

if TYPE_CHECKING:
    from rich.console import Group

MARGIN = 0.05  # where a study file names none


@dataclass(frozen=True)
class Claim:
    """What the article says (`said` is its own wording), and the hypothesis that is tested."""

    id: str
    statement: str
    said: str
    hypothesis: str
    measured_by: str
    to_test: str


@dataclass(frozen=True)
class Published:
    """What published numbers say of a claim; never pooled with what was measured."""

    verdict: str
    summary: str
    comparisons: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Verdict:
    """`verdict` is supported, contradicted, no difference, inconclusive or untested."""

    claim: Claim
    verdict: str
    margin: float
    summary: str
    comparisons: tuple[Comparison, ...] = ()
    published: Published | None = None

    @property
    def statement(self) -> str:
        return self.claim.statement


CLAIMS = (
    Claim(
        "tf-scales-better",
        "TensorFlow has high scalability and is best for large-scale distributed training",
        "高いスケーラビリティ: … 大規模分散学習に最適",
        "At each common number of workers above one, parallel efficiency E(TensorFlow) / E(PyTorch) > 1, with the "
        "best strategy of each framework; separately with Horovod on both, which isolates the framework.",
        "training trials, strong and weak scaling",
        "scaling run studies/quick.yaml",
    ),
    Claim(
        "tf-suits-tpu",
        "TensorFlow is best for Google's TPU",
        "GoogleのTPU … に最適",
        "On the same TPU, TensorFlow's throughput, and over several cores its efficiency, exceed those of any other "
        "framework.",
        "TPU trials; else published run-level evidence (MLPerf Training)",
        "scaling run studies/tpu.yaml on a TPU's host, or notebooks/colab_tpu.ipynb",
    ),
    Claim(
        "tf-data-pipeline",
        "TensorFlow suits large-scale data processing (tf.data)",
        "大規模データ処理(TF Data Pipeline)",
        "Input throughput with the same decoding on the same files: tf.data / PyTorch DataLoader > 1 as readers grow.",
        "ingest trials",
        "scaling run studies/ingest.yaml",
    ),
    Claim(
        "compile-speeds-inference",
        "torch.compile() in PyTorch 2 speeds up inference",
        "PyTorch 2.0の torch.compile() で推論速度向上",
        "Inference throughput compiled / eager > 1, after compile time, per batch size.",
        "inference trials",
        "scaling run studies/inference.yaml",
    ),
    Claim(
        "static-graph-faster",
        "A static graph (define and run) has the advantage over eager execution",
        "静的グラフ(Graph Mode): 計算グラフを先に定義し、後で実行",
        "Step throughput tf.function / eager TensorFlow > 1 and torch.compile / eager PyTorch > 1; separately, "
        "whether the graph changes how training scales.",
        "training trials with graph and eager execution",
        "scaling run studies/execution.yaml",
    ),
)


def judge(results: Results) -> list[Verdict]:
    """The verdict on every claim, in the article's order."""
    margin = _margin(results)
    verdicts = []
    for claim in CLAIMS:
        comparisons = tuple(JUDGES[claim.id](results, margin))
        word = overall([c.verdict for c in comparisons if c.primary])
        evidence = PUBLISHED[claim.id](margin) if claim.id in PUBLISHED else None
        verdicts.append(Verdict(claim, word, margin, _summary(claim, word, comparisons), comparisons, evidence))
    return verdicts


def _margin(results: Results) -> float:
    margin = results.study.get("margin", MARGIN)
    return float(margin) if isinstance(margin, int | float) and 0 < margin < 1 else MARGIN


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


def published_tpu(margin: float) -> Published:
    """MLPerf runs on the same TPU with TensorFlow and another framework.

    The verdict rests on speed, minutes per unit of work; minutes to the target, which also count how
    many epochs were needed, are told beside.
    """
    from analysis.published import mlperf_runs, runs

    rows: list[dict[str, Any]] = []
    for run in runs.compare(mlperf_runs(), "TPU"):
        known = run.one_epoch_more or ()
        # An epoch count that may be one too low must not turn the answer round.
        doubtful = any((ratio < 1) != (run.ratio < 1) for ratio in known)
        word = word_for(run.ratio, run.low, run.high, run.p_holm, margin)
        rows.append(asdict(run) | {"verdict": "inconclusive" if doubtful else word, "doubtful": doubtful})
    by_work, to_target = ([r for r in rows if r["reading"] == reading] for reading in (runs.WORK, runs.TARGET))
    confounders = "; ".join(dict.fromkeys(c for r in rows for c in r["confounders"]))
    return Published(
        overall([r["verdict"] for r in by_work]),
        f"MLPerf Training v0.7 (2020), speed of TensorFlow over that of another framework on the same chips. "
        f"Per unit of work: {_told(by_work)}. To the target, which adds how many epochs it took (no part of the "
        f"verdict): {_told(to_target)}. Mind: {confounders}.",
        tuple(rows),
    )


def _told(rows: Sequence[dict[str, Any]]) -> str:
    return "; ".join(
        f"{r['benchmark']} on {r['accelerators']:,} {r['accelerator']}, over {r['reference']} {r['ratio']:.3f} "
        f"[{r['low']:.3f}, {r['high']:.3f}], {r['runs']} against {r['runs_reference']} runs, {r['verdict']}"
        + (", as one epoch more or less turns it round" if r["doubtful"] else "")
        for r in rows
    )


def published_scaling(margin: float) -> Published:
    """What published scale-out series can say of the two frameworks: they were never run on the same system."""
    from analysis import published

    curves = published.curves()
    frameworks = curves.with_columns(
        pl.when(pl.col("framework").str.contains("TensorFlow")).then(pl.lit("TensorFlow"))
        .when(pl.col("framework").str.to_lowercase().str.contains("pytorch")).then(pl.lit("PyTorch"))
        .alias("family")
    ).drop_nulls("family")  # fmt: skip
    shared = frameworks.group_by("accelerator", "model").agg(pl.col("family").n_unique().alias("n"))
    both = shared.filter(pl.col("n") == 2)
    parts = []
    for name in ("TensorFlow", "PyTorch"):
        at = frameworks.filter(family=name, workers=8, base_workers=1)["efficiency"]
        low, high = at.min(), at.max()
        if isinstance(low, float) and isinstance(high, float):
            parts.append(f"{name} {100 * low:.0f} to {100 * high:.0f}% at 8 workers ({len(at)} series)")
    reason = (
        "no published series has both frameworks on the same accelerator and model"
        if not len(both)
        else f"only {len(both)} accelerator and model pairs have both frameworks, with different systems and batches"
    )
    return Published(
        "inconclusive",
        f"Efficiency: {'; '.join(parts)}. These cannot be set against each other: {reason}; systems, years, "
        "communication libraries and batches differ.",
    )


PUBLISHED: dict[str, Callable[[float], Published]] = {
    "tf-suits-tpu": published_tpu,
    "tf-scales-better": published_scaling,
}


def _only(sides: Sequence[Side], communication: str) -> list[Side]:
    """The plain sides of one communication layer: what both frameworks can do alike."""
    return plain([side for side in sides if side.communication == communication])


def _summary(claim: Claim, word: str, comparisons: Sequence[Comparison]) -> str:
    primary = [c for c in comparisons if c.primary]
    if not primary:
        return f"To test it: {claim.to_test}."
    launches = min(min(c.launches) for c in primary)
    few = f" At least one side has only {launches} launches." if launches < 5 else ""
    counts = Counter(c.verdict for c in primary)
    each = f" Of {len(primary)} comparisons: {', '.join(f'{n} {verdict}' for verdict, n in counts.most_common())}."
    by = ". By ".join(
        f"{name}, " + "; ".join(f"{c.where()}: {c.ratio:.2f} [{c.low:.2f}, {c.high:.2f}], {c.verdict}" for c in family)
        for name, family in _by_name(primary).items()
    )
    return f"Ratio by {by}.{each if len(counts) > 1 else ''}{few}"


def _by_name(comparisons: Sequence[Comparison]) -> dict[str, list[Comparison]]:
    return {name: [c for c in comparisons if c.name == name] for name in dict.fromkeys(c.name for c in comparisons)}


def frame(verdicts: Sequence[Verdict]) -> pl.DataFrame:
    """One row per comparison; a claim without any has one row with empty numbers."""
    rows = []
    for v in verdicts:
        head = {"claim": v.claim.id, "claim_verdict": v.verdict, "margin": v.margin}
        head["published_verdict"] = v.published.verdict if v.published else None
        for row in [c.row() for c in v.comparisons] or [dict.fromkeys(Comparison.columns())]:
            rows.append(head | row)
    return pl.DataFrame(rows, infer_schema_length=None)


def to_json(verdicts: Sequence[Verdict]) -> str:
    """For machines; docs/claims.md describes the keys. Infinite bounds are null."""
    content = [
        {
            **asdict(v.claim),
            "verdict": v.verdict,
            "margin": v.margin,
            "summary": v.summary,
            "comparisons": [{**c.row(), "records": list(c.records)} for c in v.comparisons],
            "published": asdict(v.published) if v.published else None,
        }
        for v in verdicts
    ]
    return json.dumps({"format": 1, "claims": _finite(content)}, indent=1, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def render(verdicts: Sequence[Verdict]) -> Group:
    """For the terminal: each claim with its verdict, its numbers, and the published evidence beside."""
    from rich.console import Group
    from rich.text import Text

    colours = {"supported": "green", "contradicted": "red", "no difference": "blue", "inconclusive": "yellow"}
    lines: list[Text] = []
    for v in verdicts:
        lines.append(Text.assemble((v.claim.statement, "bold"), f"  ({v.claim.id})"))
        lines.append(Text.assemble("  measured: ", (v.verdict, colours.get(v.verdict, "dim")), ". ", v.summary))
        for c in v.comparisons:
            if not c.primary:
                bounds = f"{c.ratio:.2f} [{c.low:.2f}, {c.high:.2f}]"
                lines.append(Text(f"    {c.name}, {c.where()}: {bounds}, {c.verdict}", style="dim"))
        if v.published:
            colour = colours.get(v.published.verdict, "dim")
            lines.append(Text.assemble("  published: ", (v.published.verdict, colour), ". ", v.published.summary))
        lines.append(Text(""))
    return Group(*lines)
