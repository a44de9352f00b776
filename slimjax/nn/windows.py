"""What a square window that slides over images sees, element by element of the window.

Images are NHWC, and the window moves by `strides` rows and columns at a time.
"""

import jax
import jax.numpy as jnp
from jax import lax


def pad_images(
    x: jax.Array, rows: tuple[int, int], columns: tuple[int, int], dilation: int = 1, value: float = 0.0
) -> jax.Array:
    """Rows and columns added (before, after), and `dilation - 1` between neighbours; negative numbers crop.

    Args:
      x: images [batch, height, width, features].
      rows: how many to add above and below.
      columns: how many to add left and right.
      dilation: the distance of two neighbours afterwards.
      value: what is added.

    Returns:
      [batch, (height - 1) * dilation + 1 + sum(rows), likewise, features].
    """
    between = dilation - 1
    return lax.pad(x, jnp.asarray(value, x.dtype), ((0, 0, 0), (*rows, between), (*columns, between), (0, 0, 0)))


def output_size(size: int, window: int, strides: int, padding: int) -> int:
    """How many places a window takes along a side of `size` with `padding` more at both ends."""
    return (size + 2 * padding - window) // strides + 1


def taps(padded: jax.Array, window: tuple[int, ...], strides: int, rows: int, columns: int) -> list[jax.Array]:
    """What each element of the window, row by row, sees of the padded images: [batch, rows, columns, features]."""
    batch, _, _, features = padded.shape
    return [
        lax.slice(
            padded,
            (0, i, j, 0),
            (batch, i + (rows - 1) * strides + 1, j + (columns - 1) * strides + 1, features),
            (1, strides, strides, 1),
        )
        for i in range(window[0])
        for j in range(window[1])
    ]


def padded_taps(
    x: jax.Array, window: tuple[int, ...], strides: int, padding: int, value: float = 0.0
) -> list[jax.Array]:
    """The taps of images with `padding` rows and columns of a value at each of the four sides."""
    rows, columns = (output_size(size, side, strides, padding) for size, side in zip(x.shape[1:3], window, strict=True))
    padded = pad_images(x, (padding, padding), (padding, padding), value=value)
    return taps(padded, window, strides, rows, columns)
