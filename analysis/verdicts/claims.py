"""The article's claims as hypotheses that were fixed before the run, and their verdicts.

    for verdict in judge(load(Path("results/quick"))): print(verdict.claim.id, verdict.verdict)

A claim has one judge, a function of the results (judges.py). The rules of judging, and how often
they err, are in docs/claims.md.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from analysis.load.results import Results
from analysis.measures import caveats
from analysis.verdicts import unlike
from analysis.verdicts.contrast import Comparison, overall
from analysis.verdicts.evidence import PUBLISHED, Published
from analysis.verdicts.judges import JUDGES

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
class Verdict:
    """`verdict` is supported, contradicted, no difference, inconclusive or untested."""

    claim: Claim
    verdict: str
    margin: float
    summary: str
    comparisons: tuple[Comparison, ...] = ()
    published: Published | None = None
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # point ─▶ those of launches it stands on

    @property
    def statement(self) -> str:
        return self.claim.statement

    @property
    def cautions(self) -> list[str]:
        """What to warn of, counted: of the points, and of what the sides of the comparisons do not share."""
        of_sides = {i: c.warnings for i, c in enumerate(self.comparisons)}
        return caveats.counted(self.warnings) + caveats.counted(of_sides, "comparisons")


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
    margin, warned = _margin(results), caveats.by_point(results)
    point_of = dict(results.trials.select("trial_id", "point").iter_rows())
    verdicts = []
    for claim in CLAIMS:
        found = JUDGES[claim.id](results, margin)
        comparisons = tuple(replace(c, warnings=unlike.warnings(results.trials, c)) for c in found)
        word = overall([c.verdict for c in comparisons if c.primary])
        evidence = PUBLISHED[claim.id](margin) if claim.id in PUBLISHED else None
        points = dict.fromkeys(point_of[record] for c in comparisons for record in c.records)
        warnings = {point: tuple(warned.get(point, ())) for point in points}
        summary = _summary(claim, word, comparisons)
        verdicts.append(Verdict(claim, word, margin, summary, comparisons, evidence, warnings))
    return verdicts


def _margin(results: Results) -> float:
    margin = results.study.get("margin", MARGIN)
    return float(margin) if isinstance(margin, int | float) and 0 < margin < 1 else MARGIN


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
        of_points, none = caveats.counted(v.warnings), [((), dict.fromkeys(Comparison.columns()))]
        for warnings, row in [(c.warnings, c.row()) for c in v.comparisons] or none:
            rows.append(head | {"warning": "; ".join([*of_points, *warnings])} | row)
    return pl.DataFrame(rows, infer_schema_length=None)


def to_json(verdicts: Sequence[Verdict], left_out: Sequence[str] = (), ascii_only: bool = False) -> str:
    """For machines; docs/claims.md describes the keys. Infinite bounds are null. `left_out`: what of the study was
    not measured or not used, a line each."""
    content = [
        {
            **asdict(v.claim),
            "verdict": v.verdict,
            "margin": v.margin,
            "summary": v.summary,
            "comparisons": [
                {**c.row(), "records": list(c.records), "warnings": list(c.warnings)} for c in v.comparisons
            ],
            "warnings": {point: list(texts) for point, texts in v.warnings.items()},
            "published": asdict(v.published) if v.published else None,
        }
        for v in verdicts
    ]
    said = {"format": 1, "left_out": list(left_out), "claims": _finite(content)}
    return json.dumps(said, indent=1, ensure_ascii=ascii_only, allow_nan=False)


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
        for warning in v.cautions:
            lines.append(Text(f"    warning, {warning}", style="dim"))
        if v.published:
            colour = colours.get(v.published.verdict, "dim")
            lines.append(Text.assemble("  published: ", (v.published.verdict, colour), ". ", v.published.summary))
        lines.append(Text(""))
    return Group(*lines)
