"""The parts of a detector behind its backbone. All of them keep their full width, and all widths share them.

Only the first convolutions of the pyramid see how wide the backbone is: they take the leading input channels of their
kernels.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.nn.channels import LeadingChannels
from slimjax.nn.layers import Initializer, SlimmableConv, SlimmableDense, SlimmableLayer, Variable
from slimjax.tasks.detection.settings import ANCHOR_RATIOS

_glorot = nn.initializers.glorot_uniform()
_he = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _normal(std: float) -> Initializer:
    return nn.initializers.normal(std)


class FeaturePyramid(nn.Module):
    """Feature maps of equal depth at every resolution (Lin et al. 2017, arXiv:1612.03144).

    Attributes:
      max_in_features: channels of the backbone's maps at the widest, finest first.
      features: of every level.
      dtype: of the computation.
    """

    max_in_features: tuple[int, ...]
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> list[jax.Array]:
        """From the backbone's maps, finest first, to the pyramid's, and one of half the coarsest resolution.

        Args:
          maps: [batch, height / s, width / s, channels] with steps s that double.

        Returns:
          One map for each, and one more: [batch, height / s, width / s, features].
        """

        def conv(name: str, max_in_features: int, kernel_size: int) -> SlimmableConv:
            return SlimmableConv(
                max_in_features,
                self.features,
                kernel_size=kernel_size,
                use_bias=True,
                dtype=self.dtype,
                kernel_init=_glorot,
                name=name,
            )

        laterals = [conv(f"lateral_{i}", self.max_in_features[i], 1)(x) for i, x in enumerate(maps)]
        for i in reversed(range(len(laterals) - 1)):
            laterals[i] += _doubled(laterals[i + 1])
        levels = [conv(f"output_{i}", self.features, 3)(x) for i, x in enumerate(laterals)]
        return [*levels, levels[-1][:, ::2, ::2]]


def _doubled(x: jax.Array) -> jax.Array:
    """Every pixel of [batch, height, width, channels] four times."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


class RegionProposals(nn.Module):
    """Scores and shifts of the anchors (Ren et al. 2015, arXiv:1506.01497), with the same weights at every level.

    Attributes:
      features: of the levels.
      dtype: of the computation.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
        """From the pyramid's maps to what the anchors of each level say, anchors in the order of `anchors_of_level`.

        Returns:
          Logits that there is an object [batch, anchors], and coded boxes [batch, anchors, 4], of each level, float32.
        """
        hidden = SlimmableConv(
            self.features, self.features, use_bias=True, dtype=self.dtype, kernel_init=_normal(0.01), name="hidden"
        )
        count = len(ANCHOR_RATIOS)
        objectness = SlimmableConv(
            self.features, count, 1, use_bias=True, dtype=self.dtype, kernel_init=_normal(0.01), name="objectness"
        )
        shifts = SlimmableConv(
            self.features, 4 * count, 1, use_bias=True, dtype=self.dtype, kernel_init=_normal(0.01), name="shifts"
        )
        seen = [nn.relu(hidden(x)) for x in levels]
        logits = [objectness(x).reshape(x.shape[0], -1).astype(jnp.float32) for x in seen]
        return logits, [shifts(x).reshape(x.shape[0], -1, 4).astype(jnp.float32) for x in seen]


class BoxHead(nn.Module):
    """Classes and boxes of regions, by two dense layers.

    Attributes:
      in_features: values of a pooled region.
      features: of the dense layers.
      num_classes: categories; one more output is the background, the last.
      dtype: of the computation.
    """

    in_features: int
    features: int
    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, regions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """From [regions, size, size, channels] to logits [regions, num_classes + 1] and boxes [.., num_classes, 4]."""
        x = regions.reshape(regions.shape[0], -1)
        for number, inputs in enumerate((self.in_features, self.features)):
            x = nn.relu(
                SlimmableDense(inputs, self.features, dtype=self.dtype, kernel_init=_glorot, name=f"hidden_{number}")(x)
            )
        classes = SlimmableDense(
            self.features, self.num_classes + 1, dtype=self.dtype, kernel_init=_normal(0.01), name="classes"
        )(x)
        shifts = SlimmableDense(
            self.features, 4 * self.num_classes, dtype=self.dtype, kernel_init=_normal(0.001), name="shifts"
        )(x)
        shifts = shifts.reshape(regions.shape[0], self.num_classes, 4)
        return classes.astype(jnp.float32), shifts.astype(jnp.float32)


class TransposedConv(SlimmableLayer):
    """Convolution whose strides multiply the resolution, with PyTorch's padding of (kernel_size - strides) / 2.

    Attributes:
      in_features: input channels.
      features: output channels.
      kernel_size: side of the square kernel, pixels.
      strides: by which the resolution grows.
      dtype: of the computation; parameters are float32.
    """

    in_features: int
    features: int
    kernel_size: int
    strides: int = 2
    dtype: Any = jnp.float32
    kernel_init: Initializer = _he

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[batch, height, width, in_features] to [batch, strides * height, strides * width, features]."""
        shape = (self.kernel_size, self.kernel_size, self.in_features, self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
        y = transposed_convolution(x.astype(self.dtype), kernel, self.strides)
        return y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)

    def variables_read(self, x: jax.Array) -> tuple[Variable, ...]:
        """See SlimmableLayer."""
        kernel = Variable("params", ("kernel",), "kernel", LeadingChannels())
        return (kernel, Variable("params", ("bias",), "bias", LeadingChannels()))

    def macs(self, x: jax.Array, output: jax.Array) -> int:
        """See SlimmableLayer."""
        return x.size * self.kernel_size**2 * self.features


def transposed_convolution(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    """What every pixel adds to a finer image: `jax.lax.conv_transpose`, as one matrix product.

    XLA:CPU takes tens of times longer for the gradients of the dilated convolution that it is otherwise.

    Args:
      x: [batch, height, width, in_features].
      kernel: [side, side, in_features, features]; the side is a multiple of the strides, and even beyond them.
      strides: by which the resolution grows.

    Returns:
      [batch, strides * height, strides * width, features]: what is beyond these edges is cut off, evenly.
    """
    batch, height, width, _ = x.shape
    side, features = kernel.shape[0], kernel.shape[-1]
    count = side // strides
    # Products for every tap, in blocks of the finer image that each belong to one pixel of the coarse one.
    # Who asks for float32 gets it on accelerators too, which would round the factors otherwise.
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    taps = jnp.einsum("bhwi,yxio->bhwyxo", x, kernel[::-1, ::-1], precision=precision)
    blocks = taps.reshape(batch, height, width, count, strides, count, strides, features)
    blocks = blocks.transpose(3, 5, 0, 1, 4, 2, 6, 7)
    blocks = blocks.reshape(count, count, batch, height * strides, width * strides, features)
    y = jnp.zeros((), taps.dtype)
    for row in range(count):
        for column in range(count):
            before = strides * row, strides * column
            after = strides * (count - 1 - row), strides * (count - 1 - column)
            rows, columns = zip(before, after, strict=True)
            y += jnp.pad(blocks[row, column], ((0, 0), rows, columns, (0, 0)))
    margin = (side - strides) // 2
    return y[:, margin : margin + height * strides, margin : margin + width * strides]


class _Convolutions(nn.Module):
    """3x3 convolutions one after the other, each with a bias and ReLU."""

    in_features: int
    features: int
    count: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for number in range(self.count):
            inputs = self.features if number else self.in_features
            conv = SlimmableConv(
                inputs, self.features, use_bias=True, dtype=self.dtype, kernel_init=_he, name=f"conv_{number}"
            )
            x = nn.relu(conv(x))
        return x


class MaskHead(nn.Module):
    """A mask of a region for every class, independent of each other (He et al. 2017, arXiv:1703.06870).

    Attributes:
      features: of the pyramid and of the convolutions.
      num_classes: categories.
      dtype: of the computation.
    """

    features: int
    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, regions: jax.Array) -> jax.Array:
        """From [regions, size, size, channels] to logits [regions, 2 * size, 2 * size, num_classes], float32."""
        x = _Convolutions(self.features, self.features, 4, self.dtype, name="hidden")(regions)
        x = nn.relu(TransposedConv(self.features, self.features, 2, dtype=self.dtype, name="larger")(x))
        masks = SlimmableConv(
            self.features, self.num_classes, 1, use_bias=True, dtype=self.dtype, kernel_init=_he, name="masks"
        )
        return masks(x).astype(jnp.float32)


class KeypointHead(nn.Module):
    """Where in a region each keypoint is (He et al. 2017, section 5).

    Attributes:
      in_features: of the pyramid.
      features: of the convolutions.
      num_keypoints: of an object.
      dtype: of the computation.
    """

    in_features: int
    features: int
    num_keypoints: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, regions: jax.Array) -> jax.Array:
        """From [regions, size, size, channels] to logits [regions, 4 * size, 4 * size, num_keypoints], float32."""
        x = _Convolutions(self.in_features, self.features, 8, self.dtype, name="hidden")(regions)
        # In float32: what is looked for is the highest of many bins.
        larger = TransposedConv(self.features, self.num_keypoints, 4, kernel_init=_normal(0.001), name="larger")
        x = larger(x.astype(jnp.float32))
        count, height, width, keypoints = x.shape
        return jax.image.resize(x, (count, 2 * height, 2 * width, keypoints), "bilinear")
