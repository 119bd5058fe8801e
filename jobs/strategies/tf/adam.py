"""Adam for Keras with torch.optim.Adam's semantics, so that both frameworks do the same update.

They differ as shipped: torch adds epsilon to the bias-corrected root, Keras to the raw one, and
their default epsilons are 1e-8 and 1e-7. Uses what Keras' own Adam uses of its base class; Keras is
pinned, and the parity tests hold this file to account.
"""

from __future__ import annotations

import math
from typing import Any


def torch_adam(learning_rate: float, warmup: int = 0, epsilon: float = 1e-8) -> Any:
    """Kingma & Ba (2015) as torch.optim.Adam has it: θ -= lr/(1-β₁ᵗ)·m / (√v/√(1-β₂ᵗ) + ε).

    Over the first `warmup` steps the rate rises up to `learning_rate` (jobs/strategies/learning_rate.py).
    """
    import keras
    import tensorflow as tf

    class TorchAdam(keras.optimizers.Adam):  # type: ignore[misc]
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            dtype = variable.dtype

            def constant(value: float) -> Any:
                return tf.constant(value, dtype)

            # 1 - βᵗ through expm1: Keras computes βᵗ in float32, 1e-5 off in the first step.
            t = tf.cast(self.iterations, dtype) + 1
            correction1 = -tf.math.expm1(t * constant(math.log(self.beta_1)))
            correction2 = -tf.math.expm1(t * constant(math.log(self.beta_2)))
            index = self._get_variable_index(variable)
            m, v = self._momentums[index], self._velocities[index]
            self.assign_add(m, (gradient - m) * constant(1 - self.beta_1))
            self.assign_add(v, (gradient * gradient - v) * constant(1 - self.beta_2))
            now = constant(rate) * tf.minimum(t / constant(warmup), 1) if warmup else constant(rate)
            step = now / correction1 * m
            self.assign_sub(variable, step / (tf.sqrt(v) / tf.sqrt(correction2) + constant(self.epsilon)))

    rate = float(learning_rate)
    return TorchAdam(rate, epsilon=epsilon)


def rising(peak: float, warmup: int) -> Any:
    """The same rise of the rate for an optimizer of Keras' own."""
    import keras

    class Rising(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        def __call__(self, step: Any) -> Any:
            share = (keras.ops.cast(step, keras.config.floatx()) + 1) / warmup
            return peak * keras.ops.minimum(share, 1.0)

        def get_config(self) -> dict[str, Any]:
            return {"peak": peak, "warmup": warmup}

    return Rising()


def keep_local(optimizer: Any) -> Any:
    """Make a Keras optimizer apply this replica's gradients without summing them over replicas."""
    optimizer._all_reduce_sum_gradients = lambda gradients_and_variables: gradients_and_variables
    return optimizer
