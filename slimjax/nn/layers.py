"""Slimmable layers: kernels are stored at their widest, and a width takes the leading channels.

Images are NHWC, kernels HWIO. The active channel count is `features`, the allocated one `max_features`; the active
input channels are those of the array that comes in.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from slimjax.errors import UserError
from slimjax.nn.channels import LeadingChannels
from slimjax.nn.convolutions import convolve

Initializer = Callable[..., jax.Array]
Role = Literal["kernel", "depthwise_kernel", "bias", "scale", "statistic"]


@dataclass(frozen=True)
class Variable:
    """One variable that a layer reads at a width.

    Attributes:
      collection: `params` or `batch_stats`.
      path: its keys below the layer.
      role: what it is, which decides whether it decays.
      active: the part of the stored array that this width reads.
    """

    collection: str
    path: tuple[str, ...]
    role: Role
    active: LeadingChannels

    def active_elements(self, shape: tuple[int, ...]) -> np.ndarray:
        """Which elements of the stored array, counted in C order, the active part consists of, in its shape."""
        return self.active(np.arange(math.prod(shape)).reshape(shape))


class SlimmableLayer(nn.Module):
    """A layer that can say what it reads and what it costs, for counting, extracting and freezing."""

    def place(self) -> str:
        """Where the layer is in its network, as messages call it, such as `block_3/expand/conv`; else its class."""
        return "/".join(self.path) or type(self).__name__

    def variables_read(self, x: jax.Array, *args: Any, **kwargs: Any) -> tuple[Variable, ...]:
        """The variables that a call with these arguments reads, with their active parts."""
        raise NotImplementedError

    def macs(self, x: jax.Array, output: jax.Array) -> int:
        """Multiply-adds of one call on a whole batch."""
        raise NotImplementedError


def conv_kernel_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Normal with standard deviation sqrt(2 / (k * k * out)), `out` at the widest (He et al. 2015, fan-out)."""
    kernel_height, kernel_width, _, max_features = shape
    return jax.random.normal(key, shape, dtype) * (2.0 / (kernel_height * kernel_width * max_features)) ** 0.5


def _check_active(layer: SlimmableLayer, what: str, active: int, allocated: int, groups: int = 1) -> None:
    if not 0 < active <= allocated or active % groups:
        multiple = f" and a multiple of groups={groups}" if groups > 1 else ""
        raise UserError(f"{layer.place()}: {what}={active} has to be between 1 and {allocated}{multiple}")


class SlimmableConv(SlimmableLayer):
    """Convolution whose active input and output channels are leading slices of one kernel, per group where grouped.

    Pads symmetrically by (kernel_size - 1) // 2, as PyTorch's networks do; `SAME` pads otherwise at stride 2.

    Attributes:
      max_in_features: input channels at the widest.
      max_features: output channels at the widest.
      kernel_size: side of the square kernel, pixels.
      strides: step of the output grid, pixels.
      groups: groups of channels that do not mix; each is sliced on its own, so a narrow width keeps all groups.
      output_groups: groups of outputs that are sliced each on its own while all of them see the whole input, for a
        convolution whose outputs a grouped one takes; a grouped one's are its `groups` anyhow.
      use_bias: whether a bias is added.
      dtype: of the computation; parameters are float32.
    """

    max_in_features: int
    max_features: int
    kernel_size: int = 3
    strides: int = 1
    groups: int = 1
    output_groups: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: Initializer = conv_kernel_init

    @nn.compact
    def __call__(self, x: jax.Array, features: int | None = None) -> jax.Array:
        """Convolves with the active part of the kernel.

        Args:
          x: [batch, height, width, in_features], in_features <= max_in_features.
          features: active output channels, the widest by default.

        Returns:
          [batch, ceil(height / strides), ceil(width / strides), features] for odd kernels, in `dtype`.

        Raises:
          UserError: if a channel count is beyond the allocated one or not divisible by the groups.
        """
        features = self.max_features if features is None else features
        _check_active(self, "in_features", x.shape[-1], self.max_in_features, self.groups)
        _check_active(self, "features", features, self.max_features, self._groups_sliced)
        shape = (self.kernel_size, self.kernel_size, self.max_in_features // self.groups, self.max_features)
        kernel = self._active_kernel(x.shape[-1], features)(self.param("kernel", self.kernel_init, shape))
        y = convolve(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            strides=self.strides,
            padding=(self.kernel_size - 1) // 2,
            groups=self.groups,
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.max_features,))
            y = y + self.active_outputs(features)(bias).astype(self.dtype)
        return y

    @property
    def _groups_sliced(self) -> int:
        return max(self.groups, self.output_groups)

    def active_outputs(self, features: int) -> LeadingChannels:
        """The part of values for all outputs, [..., max_features], that a width with so many of them has."""
        return LeadingChannels((features,), self._groups_sliced)

    def _active_kernel(self, in_features: int, features: int) -> LeadingChannels:
        return LeadingChannels((in_features // self.groups, features), self._groups_sliced)

    def variables_read(self, x: jax.Array, features: int | None = None) -> tuple[Variable, ...]:
        """See SlimmableLayer."""
        out = self.max_features if features is None else features
        kernel = Variable("params", ("kernel",), "kernel", self._active_kernel(x.shape[-1], out))
        bias = Variable("params", ("bias",), "bias", self.active_outputs(out))
        return (kernel, bias) if self.use_bias else (kernel,)

    def macs(self, x: jax.Array, output: jax.Array) -> int:
        """See SlimmableLayer."""
        return output.size * self.kernel_size**2 * (x.shape[-1] // self.groups)


class SlimmableDepthwiseConv(SlimmableLayer):
    """Depthwise convolution: one filter per channel, the active channels being those of the input.

    Attributes:
      max_features: channels at the widest.
      kernel_size: side of the square kernel, pixels; padded symmetrically by (kernel_size - 1) // 2.
      strides: step of the output grid, pixels.
      dtype: of the computation; parameters are float32.
    """

    max_features: int
    kernel_size: int = 3
    strides: int = 1
    dtype: Any = jnp.float32
    kernel_init: Initializer = conv_kernel_init

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Filters each channel: [batch, height, width, features] to the strided grid, same channels.

        Raises:
          UserError: if x has more channels than max_features.
        """
        features = x.shape[-1]
        _check_active(self, "features", features, self.max_features)
        kernel = self.param("kernel", self.kernel_init, (self.kernel_size, self.kernel_size, 1, self.max_features))
        return convolve(
            x.astype(self.dtype),
            LeadingChannels((features,))(kernel).astype(self.dtype),
            strides=self.strides,
            padding=(self.kernel_size - 1) // 2,
            groups=features,
        )

    def variables_read(self, x: jax.Array) -> tuple[Variable, ...]:
        """See SlimmableLayer."""
        return (Variable("params", ("kernel",), "depthwise_kernel", LeadingChannels((x.shape[-1],))),)

    def macs(self, x: jax.Array, output: jax.Array) -> int:
        """See SlimmableLayer."""
        return output.size * self.kernel_size**2


class SlimmableDense(SlimmableLayer):
    """Fully connected layer over leading slices of one kernel [max_in_features, max_features].

    Attributes:
      max_in_features: inputs at the widest.
      max_features: outputs at the widest; a classifier keeps all of them at every width.
      use_bias: whether a bias is added.
      dtype: of the computation; parameters are float32.
    """

    max_in_features: int
    max_features: int
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: Initializer = nn.initializers.normal(0.01)

    @nn.compact
    def __call__(self, x: jax.Array, features: int | None = None) -> jax.Array:
        """[..., in_features] to [..., features]; `features` is max_features by default.

        Raises:
          UserError: if a channel count is beyond the allocated one.
        """
        features = self.max_features if features is None else features
        in_features = x.shape[-1]
        _check_active(self, "in_features", in_features, self.max_in_features)
        _check_active(self, "features", features, self.max_features)
        kernel = self.param("kernel", self.kernel_init, (self.max_in_features, self.max_features))
        y = x.astype(self.dtype) @ LeadingChannels((in_features, features))(kernel).astype(self.dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.max_features,))
            y = y + LeadingChannels((features,))(bias).astype(self.dtype)
        return y

    def variables_read(self, x: jax.Array, features: int | None = None) -> tuple[Variable, ...]:
        """See SlimmableLayer."""
        out = self.max_features if features is None else features
        kernel = Variable("params", ("kernel",), "kernel", LeadingChannels((x.shape[-1], out)))
        bias = Variable("params", ("bias",), "bias", LeadingChannels((out,)))
        return (kernel, bias) if self.use_bias else (kernel,)

    def macs(self, x: jax.Array, output: jax.Array) -> int:
        """See SlimmableLayer."""
        return output.size * x.shape[-1]


def read_variable(variables: Mapping[str, Any], layer_path: tuple[str, ...], variable: Variable) -> Any:
    """The stored array of one of a layer's variables, at its widest."""
    node: Any = variables[variable.collection]
    for key in (*layer_path, *variable.path):
        node = node[key]
    return node
