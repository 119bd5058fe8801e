"""tf: TensorFlow in one process, without distribution. The base case of TensorFlow's curves."""

from jobs.strategies.tf_loop import TensorFlowLoop as STRATEGY

__all__ = ["STRATEGY"]
