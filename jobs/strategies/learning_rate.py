"""The learning rate of a trial: how it follows from the global batch, and its warm-up.

`linear` multiplies the study's rate by global batch / reference batch (Goyal et al. 2017, §2.1, for SGD),
`sqrt` by the root of that (Krizhevsky 2014, §3.2; for Adam Malladi et al. 2022). The reference batch is
the one that the rate is meant for, by default the batch of one worker. Over the first
`learning_rate_warmup` steps the rate rises in equal steps up to that value (Goyal et al. 2017, §2.2, who
begin at the unmultiplied rate; here, as most do today, it begins near zero, so that it means the same
under every rule).
"""

from __future__ import annotations

from jobs.contract.recipe import Recipe


def peak(recipe: Recipe, global_batch: int) -> float:
    """The rate after the warm-up."""
    if recipe.reference_batch is None:
        return recipe.learning_rate
    ratio = global_batch / recipe.reference_batch
    return recipe.learning_rate * (ratio if recipe.learning_rate_rule == "linear" else ratio**0.5)


def at(recipe: Recipe, global_batch: int, step: int) -> float:
    """The rate of optimizer step `step`, counted from 0."""
    warmup = recipe.learning_rate_warmup
    return peak(recipe, global_batch) * (min(1.0, (step + 1) / warmup) if warmup else 1.0)
