"""The state that training carries from step to step."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from slimjax.models.network import SlimmableNetwork


class TrainState(struct.PyTreeNode):
    """Everything that a step changes.

    Attributes:
      step: updates done so far, int32 scalar.
      params: the shared parameters at their widest, and every width's scales and biases, float32.
      batch_stats: every width's running statistics, float32.
      opt_state: of the one optimiser.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState


def initial_state(model: SlimmableNetwork, tx: optax.GradientTransformation, seed: int, image_size: int) -> TrainState:
    """A new network's state; jit it, since Flax initialises by running the network."""
    variables = model.init(jax.random.key(seed), jnp.zeros((1, image_size, image_size, 3)))
    params, batch_stats = variables["params"], variables["batch_stats"]
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, tx.init(params))
