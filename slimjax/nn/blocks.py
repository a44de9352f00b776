"""Compositions of slimmable layers that several families use. Channels are given per switch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.nn.batch_norm import SwitchableBatchNorm
from slimjax.nn.layers import SlimmableConv, SlimmableDepthwiseConv

BatchNormFactory = Callable[..., SwitchableBatchNorm]
Activation = Callable[[jax.Array], jax.Array]


class ConvNorm(nn.Module):
    """Convolution, batch norm and, where given, an activation.

    Attributes:
      in_features: input channels of every switch.
      features: output channels of every switch.
      batch_norm: makes the batch norm; called with `features`, `groups` and `name`.
      kernel_size: side of the square kernel, pixels.
      strides: step of the output grid, pixels.
      groups: groups of channels that do not mix, see SlimmableConv.
      output_groups: groups of outputs that are sliced each on its own, see SlimmableConv.
      activation: applied last; None leaves the output linear.
      dtype: of the computation.
    """

    in_features: tuple[int, ...]
    features: tuple[int, ...]
    batch_norm: BatchNormFactory
    kernel_size: int = 1
    strides: int = 1
    groups: int = 1
    output_groups: int = 1
    activation: Activation | None = nn.relu6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, switch: int, train: bool = False) -> jax.Array:
        """[batch, height, width, in_features[switch]] to [batch, height', width', features[switch]]."""
        x = SlimmableConv(
            max(self.in_features),
            max(self.features),
            kernel_size=self.kernel_size,
            strides=self.strides,
            groups=self.groups,
            output_groups=self.output_groups,
            dtype=self.dtype,
            name="conv",
        )(x, self.features[switch])
        groups = max(self.groups, self.output_groups)
        x = self.batch_norm(features=self.features, groups=groups, name="bn")(x, switch, train)
        return self.activation(x) if self.activation else x


class DepthwiseNorm(nn.Module):
    """3x3 depthwise convolution, batch norm and, where given, an activation.

    Attributes:
      features: channels of every switch.
      batch_norm: makes the batch norm; called with `features` and `name`.
      strides: step of the output grid, pixels.
      activation: applied last; None leaves the output linear.
      dtype: of the computation.
    """

    features: tuple[int, ...]
    batch_norm: BatchNormFactory
    strides: int = 1
    activation: Activation | None = nn.relu6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, switch: int, train: bool = False) -> jax.Array:
        """[batch, height, width, features[switch]] to the strided grid, same channels."""
        x = SlimmableDepthwiseConv(max(self.features), strides=self.strides, dtype=self.dtype, name="conv")(x)
        x = self.batch_norm(features=self.features, name="bn")(x, switch, train)
        return self.activation(x) if self.activation else x
