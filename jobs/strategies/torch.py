"""torch: PyTorch in one process, without any wrapper. The base case of PyTorch's curves."""

from jobs.strategies.torch_loop import TorchLoop as STRATEGY

__all__ = ["STRATEGY"]
