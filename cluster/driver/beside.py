"""At which points the base case runs beside the ranks (jobs/beside), and why not at the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cluster.launcher import Launcher
from cluster.study.schema import Study
from jobs.contract.catalog import STRATEGIES
from jobs.contract.trial import Trial

Beside = Mapping[str, list[int] | str]  # point ─▶ batches of the base case beside, or why there is none
NOT_AMONG = "is not among the strategies"  # as it may be the next time
MOST = 0.5  # of a launch's measured time


def with_base_beside(
    study: Study, points: Sequence[Trial], launcher: Launcher, kept: Beside
) -> tuple[list[Trial], dict[str, list[int] | str]]:
    """The points, and what was decided of those that are no base case, by their id without it. What is `kept` of an
    earlier run holds, as long as it can."""
    if study.steps.blocks is None:
        return list(points), {}
    found: list[Trial] = []
    decided: dict[str, list[int] | str] = {}
    for point in points:
        if not STRATEGIES[point.strategy].is_base_case:
            what = kept.get(point.point)
            if not what or NOT_AMONG in what or (isinstance(what, list) and not launcher.on_one_host(point)):
                what = _batches(study, point, launcher)
            decided[point.point] = what
            if isinstance(what, list):
                point = point.model_copy(update={"base_batches": tuple(what)})
        found.append(point)
    return found, decided


def _batches(study: Study, point: Trial, launcher: Launcher) -> list[int] | str:
    """Of the base case: the whole global batch where the point is one of strong scaling, a worker's where of weak."""
    base = STRATEGIES[point.strategy].base_case
    if study.steps.base_beside == "never":
        return "steps.base_beside is never"
    if base == point.strategy or base not in study.strategies:
        return f"plain {base} {NOT_AMONG}"
    if point.gpus_per_worker or point.tpu != "none":
        return "it takes turns with the ranks on CPUs only"
    if not launcher.on_one_host(point):
        return "the ranks need not be on one host"
    batches = []
    if "strong" in study.scaling and point.global_batch == study.batch.global_:
        batches.append(point.global_batch)
    if "weak" in study.scaling and study.batch.per_worker == point.worker_batch:
        batches.append(point.worker_batch)
    batches = list(dict.fromkeys(batches))
    if fitting := [batch for batch in batches if _share(point, batch, batches) <= MOST]:
        return fitting
    return f"its turn would take {_share(point, batches[0], batches):.0%} of a round"


def _share(point: Trial, batch: int, batches: Sequence[int]) -> float:
    """Of the time of a round, the turn's on `batch`, if a step takes as long as it has samples for each worker."""
    blocks, k, own = point.steps.blocks or 1, point.recipe.steps_per_call, float(point.worker_batch)
    ranks = own * (point.steps.measured + point.steps.compute_only) / (blocks * k)
    turns = {each: point.base_calls(each) * each for each in batches}
    return turns[batch] / (ranks + sum(turns.values()))
