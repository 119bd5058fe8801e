"""Adam for JAX with torch.optim.Adam's semantics, so that all frameworks do the same update.

optax's adds epsilon where torch does, but computes 1 - βᵗ in float32: 1.3e-5 off in the first step, which
moves the losses of ten steps by 1.5e-5, and by 4e-7 without it. jobs/strategies/tf/adam.py mends the same in
Keras.
"""

from __future__ import annotations

import math
from typing import Any

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def torch_adam(rate: Any) -> Any:
    """Kingma & Ba (2015) as torch.optim.Adam has it: θ -= lr/(1-β₁ᵗ)·m / (√v/√(1-β₂ᵗ) + ε).

    An optax.GradientTransformation; `rate` is a number, or a function of the step from 0.
    """
    import jax
    import jax.numpy as jnp
    import optax

    def update(gradients: Any, state: Any, parameters: Any = None) -> Any:
        count = state.count + 1
        m = jax.tree.map(lambda old, g: BETA1 * old + (1 - BETA1) * g, state.mu, gradients)
        v = jax.tree.map(lambda old, g: BETA2 * old + (1 - BETA2) * g * g, state.nu, gradients)

        def step(m: Any, v: Any) -> Any:
            correction1, correction2 = (-jnp.expm1(count.astype(m.dtype) * math.log(b)) for b in (BETA1, BETA2))
            return m / correction1 / (jnp.sqrt(v / correction2) + EPSILON)

        return jax.tree.map(step, m, v), optax.ScaleByAdamState(count=count, mu=m, nu=v)

    moments = optax.GradientTransformation(optax.scale_by_adam(BETA1, BETA2, EPSILON).init, update)
    return optax.chain(moments, optax.scale_by_learning_rate(rate))
