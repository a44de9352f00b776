"""The state that training carries from step to step."""

from typing import Any, Self

import jax
import jax.numpy as jnp
import optax
from flax import struct

from slimjax.models.network import SlimmableNetwork


class Weights(struct.PyTreeNode):
    """What a network computes with.

    Attributes:
      params: the shared parameters at their widest, and every width's scales and biases, float32.
      batch_stats: every width's running statistics, float32.
    """

    params: Any
    batch_stats: Any


class TrainState(struct.PyTreeNode):
    """Everything that a step changes.

    Attributes:
      step: updates done so far, int32 scalar.
      params: the shared parameters at their widest, and every width's scales and biases, float32.
      batch_stats: every width's running statistics, float32.
      opt_state: of the one optimiser.
      averaged: exponential moving averages of `params` and `batch_stats`; None where nobody asked for them.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    averaged: Weights | None = None

    @property
    def weights(self) -> Weights:
        """What is evaluated and shipped: the moving averages where there are some."""
        return Weights(self.params, self.batch_stats) if self.averaged is None else self.averaged

    def with_statistics(self, batch_stats: Any) -> Self:
        """The state with other statistics for `weights`."""
        if self.averaged is None:
            return self.replace(batch_stats=batch_stats)
        return self.replace(averaged=self.averaged.replace(batch_stats=batch_stats))

    def starting_from(self, weights: Weights) -> Self:
        """The state with these weights, averages included, as if nothing had been trained."""
        # A copy: a step uses up what it is given, and the same array cannot be used up twice.
        averaged = None if self.averaged is None else jax.tree.map(jnp.copy, weights)
        return self.replace(params=weights.params, batch_stats=weights.batch_stats, averaged=averaged)


def state_of(weights: Weights, tx: optax.GradientTransformation, averages: bool) -> TrainState:
    """The state before the first step.

    Args:
      weights: with which training starts.
      tx: the optimiser.
      averages: whether moving averages of the weights are kept.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=weights.params,
        batch_stats=weights.batch_stats,
        opt_state=tx.init(weights.params),
        averaged=jax.tree.map(jnp.copy, weights) if averages else None,
    )


def initial_state(
    model: SlimmableNetwork, tx: optax.GradientTransformation, seed: int, image_size: int, averages: bool = False
) -> TrainState:
    """A new network's state; jit it, since Flax initialises by running the network."""
    variables = model.init(jax.random.key(seed), jnp.zeros((1, image_size, image_size, 3)))
    return state_of(Weights(variables["params"], variables["batch_stats"]), tx, averages)
