"""The twelve rules of Hoefler & Belli, and how this study meets each: answered from its results.

T. Hoefler and R. Belli, "Scientific Benchmarking of Parallel Computing Systems: Twelve Ways to Tell the
Masses When Reporting Performance Results", SC15, doi:10.1145/2807591.2807644. The rules are paraphrased.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from analysis.laws.law import LawFit
from analysis.load.results import Results
from analysis.measures.caveats import FEW_LAUNCHES
from analysis.measures.efficiency import base_words
from analysis.measures.roofline import Roofline
from analysis.report import facts
from analysis.stats.bootstrap import RESAMPLES

Status = Literal["met", "partly met", "not met"]


@dataclass(frozen=True)
class Rule:
    number: int
    asks: str
    status: Status
    answer: str


def answers(
    results: Results, estimates: pl.DataFrame, others: pl.DataFrame, fits: Sequence[LawFit], roof: Roofline
) -> list[Rule]:
    """All twelve, in order; what the study lacks makes a rule partly met or not met, and says so.

    `others` are the points that are no training, calls of the model and files that are read.
    """
    trained = bool(len(estimates)) or not len(others)
    found = [_base_case(estimates) if trained else NOT_TRAINED[0], _subsets(results)]
    found += [
        Rule(
            3,
            "Use the arithmetic mean for costs and the harmonic mean for rates.",
            "met",
            "Times are summarized over launches by the arithmetic mean. The throughput of several launches is total "
            "samples over total time, which is the harmonic mean of their rates.",
        ),
        Rule(
            4,
            "Do not summarize ratios; summarize the costs or rates behind them.",
            "met",
            _ratios(estimates),
        ),
        _intervals(pl.concat([estimates.select("n_launches"), others.select("n_launches")])),
        Rule(
            6,
            "Do not assume normality without checking it.",
            "met",
            "Step times are described by percentiles. Intervals are t intervals on a log scale with a bootstrap "
            f"standard error ({RESAMPLES:,} resamples of launches); a few launches cannot prove normality, so their "
            "coverage is held by simulation with normal and skewed noise instead. Steadiness is tested on ranks.",
        ),
        _comparisons(results),
        Rule(
            8,
            "Ask whether a mean or median is what matters; some questions need percentiles.",
            "met",
            "Throughput answers for the whole run. Beside it stand the median, 95th and 99th percentile and the "
            "longest step of every point, and the ranks that were furthest behind; of calls of the model the "
            "percentiles of their latency. Reading files is judged by its rate alone.",
        ),
        _factors(results),
        Rule(
            10,
            "Report how parallel time was measured, synchronized and summarized.",
            "met",
            "Each rank times each of its steps with its own monotonic clock; steps are synchronized by the gradient "
            "exchange itself, and no clock is compared with another. A step lasts as long as its slowest rank, "
            "step by step. Warm-up steps are kept in the records and left out of every number here; start-up, first "
            "step and input wait are columns of their own.",
        ),
        _bounds(estimates, fits, roof) if trained else NOT_TRAINED[1],
        Rule(
            12,
            "Plot as much as is needed, and connect points only where between them lies a trend.",
            "met",
            "Every launch is a dot, every interval a bar. Lines join worker counts of one strategy, along which "
            "efficiency is a trend; they are no claim about counts that were not measured.",
        ),
    ]
    return found


# Of a study that trains nothing.
NOT_TRAINED = (
    Rule(
        1,
        "Say what the base case of a speedup is, and give its absolute performance.",
        "met",
        "Nothing is trained here, so there is no speedup over workers. Ways to call the model are set against eager "
        "execution, and readers against one reader, whose own rates stand in the same table.",
    ),
    Rule(
        11,
        "Show upper bounds of performance where possible.",
        "not met",
        "No upper bound is measured for calls of the model or for reading files.",
    ),
)


def _base_case(estimates: pl.DataFrame) -> Rule:
    asks = "Say what the base case of a speedup is, and give its absolute performance."
    without = int(estimates["base_case"].null_count())
    named = "; ".join(f"{b.strategy} {b.throughput} samples/s ({b.where})" for b in facts.base_cases(estimates))
    if not named:
        return Rule(1, asks, "not met", "No base case was measured, so no speedup is given over one.")
    kind = base_words(estimates)
    said = f"The base case is {kind}, of the same framework and never the wrapped one beside it: {named}."
    if not without:
        return Rule(1, asks, "met", said)
    return Rule(1, asks, "partly met", f"{said} {without} of {len(estimates)} points have no base case.")


def _ratios(estimates: pl.DataFrame) -> str:
    if not estimates["efficiency_from"].eq("beside").any():
        return (
            "Speedup and efficiency are ratios of summarized throughputs. No ratio is averaged anywhere; dots in the "
            "figures are single launches."
        )
    return (
        "Speedup and efficiency of separate launches are ratios of summarized throughputs. Where the base case ran "
        "beside a launch the two are a pair, each the total over the same rounds, and their ratio is the datum: it is "
        "summarized by the geometric mean, as costs summarized apart would bring back the noise that each pair shares. "
        "Both efficiencies are in the table."
    )


def _subsets(results: Results) -> Rule:
    asks = "Give the reason for reporting a subset."
    lost = len(results.trials) - int((results.trials["status"] == "ok").sum())
    absent = len(facts.not_measured(results))
    return Rule(
        2,
        asks,
        "met",
        f"Every launch in the folder is in this report: {lost} did not succeed, {absent} planned items were not "
        f"measured, {len(results.set_aside)} files were set aside. Each is listed with its reason under Missing.",
    )


def _intervals(estimates: pl.DataFrame) -> Rule:
    asks = "Report confidence intervals for whatever is not deterministic."
    single = int((estimates["n_launches"] < 2).sum())
    few = int((estimates["n_launches"] < FEW_LAUNCHES).sum())
    said = "Intervals are 95% and over independent launches, never over the steps of one launch."
    if not len(estimates):
        return Rule(5, asks, "not met", "No launch succeeded, so there is nothing to give an interval of.")
    if single:
        return Rule(
            5, asks, "partly met", f"{said} {single} of {len(estimates)} points have one launch and so no interval."
        )
    if few:
        said += f" {few} of {len(estimates)} points have fewer than {FEW_LAUNCHES} launches, which makes them wide."
    return Rule(5, asks, "met", said)


def _comparisons(results: Results) -> Rule:
    asks = "Compare nondeterministic data in a statistically sound way."
    margin = results.study.get("margin")
    said = (
        "Claims are judged by ratios with intervals over launches, corrected for the number of comparisons by Holm's "
        "method; overlap of bars is not used as a test."
    )
    if not isinstance(margin, float):
        return Rule(7, asks, "partly met", f"{said} No study file says which margin was fixed before the run.")
    return Rule(7, asks, "met", f"{said} The margin ({margin:.0%}) is the study file's, fixed before the run.")


def _factors(results: Results) -> Rule:
    asks = "Document all factors, their levels and the complete set-up."
    ok = results.trials.filter(status="ok")
    silent = sum(1 for trial_id in ok["trial_id"] if not results.outcome(trial_id).get("versions"))
    said = (
        "All factors, constant and varied, hardware, versions, batch, data and the order of launches are listed under "
        "Factors; the study file as resolved is part of the results."
    )
    if not results.study:
        return Rule(9, asks, "partly met", f"{said} The study file itself is missing from this folder.")
    if silent:
        return Rule(9, asks, "partly met", f"{said} {silent} launches do not say their versions.")
    return Rule(9, asks, "met", said)


def _bounds(estimates: pl.DataFrame, fits: Sequence[LawFit], roof: Roofline) -> Rule:
    asks = "Show upper bounds of performance where possible."
    if estimates["base_case"].null_count() == len(estimates):
        return Rule(11, asks, "not met", "Without a base case there is no ideal to compare with.")
    said = "The ideal, N times the base case, is drawn in every scaling figure"
    fitted = sorted({f.law for f in fits if f.fitted})
    if fitted:
        said += f"; the bounds of the fitted laws ({', '.join(fitted)}) stand under Laws"
    if len(roof.points):
        said += "; the measured roof over the base case stands under The machine"
    if fitted or len(roof.points):
        return Rule(11, asks, "met", f"{said}.")
    return Rule(11, asks, "partly met", f"{said}. No law was fitted, with too few worker counts, and no peak measured.")
