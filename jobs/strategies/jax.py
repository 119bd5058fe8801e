"""jax: JAX in one process on one device. The base case of JAX's curves."""

from jobs.strategies.jax_loop import JaxLoop as STRATEGY

__all__ = ["STRATEGY"]
