"""What this environment lacks for a strategy, or for a trial of it; the one place that asks for Horovod's build."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.horovod import installed
from jobs.contract.catalog import STRATEGIES, absent, missing

if TYPE_CHECKING:  # the doctor does without what a trial needs
    from jobs.contract.trial import Trial


def why_not(strategy: str) -> str | None:
    """Why this environment cannot run the strategy, in one line; None if it can. Of Horovod its build knows best."""
    if "horovod" in STRATEGIES[strategy].needs and (why := installed.why_not()):
        return why
    return missing(strategy)


def lacking(trial: Trial) -> str | None:
    """What this environment lacks for the trial though it has its strategy: NCCL for Horovod on GPUs, JAX's
    plugin for them, what another way to execute or to read asks for; None if nothing."""
    if trial.gpus_per_worker and "horovod" in STRATEGIES[trial.strategy].needs:
        return installed.why_not_on_gpus()
    if trial.gpus_per_worker and (
        why := absent(STRATEGIES[trial.strategy].gpu_needs, "`make setup EXTRA=gpu` installs it")
    ):
        return why
    return absent(trial.needs, "`make setup` installs it")
