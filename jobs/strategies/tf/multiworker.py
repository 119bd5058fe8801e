"""tf-multiworker: MultiWorkerMirroredStrategy, one replica per process; its all-reduce is a ring over gRPC
on CPUs, NCCL's on GPUs."""

from __future__ import annotations

import json
import os
from typing import Any

from jobs.contract.catalog import StrategyInfo
from jobs.rank.rendezvous import Rendezvous
from jobs.strategies.tf.plain import CALLED, CHANNELS_LAST, FLOAT16, XLA, TensorFlowLoop

INFO = StrategyInfo(
    "TensorFlow",
    "native",
    base_case="tf",
    needs=("tensorflow",),
    several_steps_per_call=True,
    executions={"infer": CALLED},
    lacks={"channels-last": CHANNELS_LAST, "float16": FLOAT16, "xla": XLA},
)


def tf_config(rendezvous: Rendezvous) -> str:
    """The TF_CONFIG of this rank: all ranks are workers, at the ports they hold."""
    workers = [f"{peer.address}:{peer.port}" for peer in rendezvous.peers]
    task = {"type": "worker", "index": rendezvous.place.rank}
    return json.dumps({"cluster": {"worker": workers}, "task": task})


class TensorFlowMultiWorker(TensorFlowLoop):
    """Each rank is a worker of one TF cluster; collectives sum the gradients."""

    data_in_scope = False  # creating a variable in scope broadcasts it, which has no uint8 kernel

    def distribute(self) -> Any:
        import tensorflow as tf

        os.environ["TF_CONFIG"] = tf_config(self.context.rendezvous)
        self.context.rendezvous.barrier()  # who finds nobody listening waits a second before it tries again
        kinds = tf.distribute.experimental
        how = kinds.CommunicationImplementation
        options = kinds.CommunicationOptions(implementation=how.NCCL if self.gpus else how.RING)
        try:
            return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
        except tf.errors.UnknownError:  # "Could not start gRPC server", which is all it says
            self.context.rendezvous.meet_no_stranger()
            raise


STRATEGY = TensorFlowMultiWorker
