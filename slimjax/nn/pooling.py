"""Pooling that is fast on every backend: XLA's own on TPU and GPU, sums and maxima of shifted images on CPU.

XLA:CPU runs a window reduction and, for the gradient of a maximum, a scatter element by element. Like `convolve`, the
functions here choose when lowering and support reverse mode only. Images are NHWC.
"""

from functools import partial, reduce

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from slimjax.errors import UserError
from slimjax.nn.convolutions import convolve
from slimjax.nn.scheduling import computed_once
from slimjax.nn.windows import pad_images, padded_taps


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x: jax.Array, window: int, strides: int, padding: int = 0) -> jax.Array:
    """The largest value of each window; padding never wins.

    Of equal values the first, row by row, gets the whole gradient.

    Args:
      x: images [batch, height, width, features].
      window: rows and columns of it.
      strides: rows and columns by which it moves.
      padding: rows and columns added at each of the four sides.

    Returns:
      [batch, (height + 2 * padding - window) // strides + 1, likewise, features].

    Raises:
      UserError: if the window is larger than the images with their padding.
    """
    height, width = x.shape[1:3]
    if min(height, width) + 2 * padding < window:
        raise UserError(
            f"images are too small: {height}x{width} pixels are left for a window of {window}; give larger images"
        )

    def largest_tap(x: jax.Array) -> jax.Array:
        return reduce(jnp.maximum, _taps_to_compare(x, window, strides, padding))

    def native(x: jax.Array) -> jax.Array:
        return _native_max_pool(x, window, strides, padding)

    return lax.platform_dependent(x, cpu=largest_tap, default=native)


def _max_pool_forward(
    x: jax.Array, window: int, strides: int, padding: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = max_pool(x, window, strides, padding)
    return y, (x, y)


def _max_pool_backward(
    window: int, strides: int, padding: int, residuals: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array]:
    def from_taps(x: jax.Array, y: jax.Array, dy: jax.Array) -> jax.Array:
        shares, taken, dy = [], jnp.zeros(y.shape, bool), computed_once(dy, x[0, 0, 0, 0])
        for tap in _taps_to_compare(x, window, strides, padding):
            shares.append(jnp.where((tap == y) & ~taken, dy, 0))
            taken |= tap == y
        return _untapped(shares, x.shape[1:3], window, strides, padding)

    def native(x: jax.Array, y: jax.Array, dy: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: _native_max_pool(x, window, strides, padding), x)[1](dy)[0]

    return (lax.platform_dependent(*residuals, dy, cpu=from_taps, default=native),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def average_pool(x: jax.Array, window: int, strides: int, padding: int = 0) -> jax.Array:
    """The mean of each window, zeros of the padding counted, as PyTorch does by default.

    On CPU it is a depthwise convolution.

    Args:
      x: images [batch, height, width, features].
      window: rows and columns of it.
      strides: rows and columns by which it moves.
      padding: rows and columns of zeros added at each of the four sides.

    Returns:
      [batch, (height + 2 * padding - window) // strides + 1, likewise, features].
    """

    def as_convolution(x: jax.Array) -> jax.Array:
        features = x.shape[-1]
        kernel = jnp.full((window, window, 1, features), 1 / window**2, x.dtype)
        return convolve(x, kernel, strides=strides, padding=padding, groups=features)

    def native(x: jax.Array) -> jax.Array:
        # Padded apart from the window, the form that TensorFlow's converter for LiteRT knows; XLA puts them together.
        padded = pad_images(x, (padding, padding), (padding, padding))
        return nn.avg_pool(padded, (window, window), (strides, strides))

    return lax.platform_dependent(x, cpu=as_convolution, default=native)


def _native_max_pool(x: jax.Array, window: int, strides: int, padding: int) -> jax.Array:
    return nn.max_pool(x, (window, window), (strides, strides), ((padding, padding),) * 2)


def _taps_to_compare(x: jax.Array, window: int, strides: int, padding: int) -> list[jax.Array]:
    return padded_taps(x, (window, window), strides, padding, value=-jnp.inf)


def _untapped(shares: list[jax.Array], size: tuple[int, ...], window: int, strides: int, padding: int) -> jax.Array:
    """The sum of what the taps hand back to the images they were taken from; the transpose of `padded_taps`."""

    def around(place: int, pixels: int, places: int) -> tuple[int, int]:
        return place - padding, pixels + padding - 1 - (places - 1) * strides - place

    places = shares[0].shape[1:3]
    moved = [
        pad_images(share, around(i, size[0], places[0]), around(j, size[1], places[1]), dilation=strides)
        for share, (i, j) in zip(shares, np.ndindex(window, window), strict=True)
    ]
    return reduce(jnp.add, moved)
