"""A strategy that has no model: a sum over the batch's labels, then a word with all other ranks, then a rest."""

import json
import os
import time
from typing import Any

import numpy as np

from jobs.data.dataset import Indices
from jobs.strategies.interface import Facts, Losses, Strategy

REST_SECONDS = 0.003


class Bare(Strategy):
    def prepare(self) -> None:
        """There is nothing to import."""

    def build(self) -> None:
        if does := os.environ.get("SCALING_TEST_DOES"):  # what else a rank is to do: seed ─▶ code (tests/failing.py)
            meet = self.context.rendezvous
            code = json.loads(does).get(str(self.trial.seed), "")
            exec(code, {"rank": meet.place.rank, "meet": meet, "trial": self.trial})
        self.context.rendezvous.barrier()

    def train(self, batches: Indices) -> Losses:
        losses = self.compute_only(batches)
        self.context.rendezvous.barrier()
        return losses

    def copy_state(self) -> None:
        """There is none."""

    def compute_only(self, batches: Indices) -> Losses:
        time.sleep(REST_SECONDS * len(batches))
        losses: Any = self.context.dataset.train_labels[batches].mean(axis=1)
        return losses if len(losses) > 1 else float(losses[0])

    def evaluate(self) -> float:
        return float(np.mean(self.context.dataset.test_labels == 0))

    def close(self) -> None:
        """The rendezvous is closed by the worker."""

    def facts(self) -> Facts:
        threads = self.trial.threads_per_worker * (self.trial.workers // self.trial.processes)
        return Facts(device="cpu", parameters=1, intra_op_threads=threads, inter_op_threads=1)
