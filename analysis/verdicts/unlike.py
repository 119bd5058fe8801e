"""What the two sides of a comparison do not share beside what is compared, so that the ratio may be of that."""

from __future__ import annotations

import re

import polars as pl

from analysis import wording
from analysis.load import bent
from analysis.measures import caveats
from analysis.verdicts.contrast import Comparison, Side

# A framework's own packages and variables, which the other one does not use, or which it sets by itself.
OWN = re.compile(
    r"(torch|torch_xla|tensorflow(-cpu|-tpu)?|keras|jax|jaxlib|optax|libtpu)$"
    r"|\$(TORCH|PYTORCH|PT_XLA|PT2|INDUCTOR|AOT|TRITON|TF2?_|TENSORFLOW|TFLITE|AUTOGRAPH|EIGEN|KERAS|JAX|PJRT|XLA|TPU_ML_PLATFORM)"
)


def warnings(trials: pl.DataFrame, comparison: Comparison) -> tuple[str, ...]:
    """Of a comparison of launches in `trials`, and of its sides with their base cases."""
    one, other = (_launches(trials, *side) for side in comparison.sides)
    found = []
    ran_on = [" / ".join(sorted(caveats.hardware(side))) for side in (one, other)]
    if all(ran_on) and ran_on[0] != ran_on[1]:
        found.append(f"the sides ran on different hardware ({ran_on[0]} against {ran_on[1]})")
    same = set(one["framework"]) == set(other["framework"])
    if made := bent.apart(one["made_with"], other["made_with"], but=None if same else OWN.match):
        found.append(f"the sides differ in {wording.some(made, bent.MOST)}")
    by = {
        "apart" if side.base_records else "beside" for sides in comparison.sides for side in sides if _efficiency(side)
    }
    if len(by) > 1:
        found.append("one side is over the base case beside its launches, the other over launches of its own")
    for side in dict.fromkeys(side for sides in comparison.sides for side in sides if side.base_records):
        base = trials.filter(pl.col("trial_id").is_in(side.base_records))
        here = trials.filter(pl.col("trial_id").is_in(set(side.records) - set(side.base_records)))
        found += [f"{side.name}: {text}" for text in caveats.unlike(here, base)]
    return tuple(found)


def _efficiency(side: Side) -> bool:
    """Whether it is over a base case."""
    return bool(side.base_records) or (bool(side.paired) and side.above == side.paired)


def _launches(trials: pl.DataFrame, *sides: Side) -> pl.DataFrame:
    return trials.filter(pl.col("trial_id").is_in({record for side in sides for record in side.records}))
