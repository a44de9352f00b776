"""Anchors: the boxes against which the region proposal network regresses (Ren et al. 2015, arXiv:1506.01497)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def anchors_of_level(
    height: int, width: int, stride: int, scale: float = 8.0, ratios: Sequence[float] = (0.5, 1.0, 2.0)
) -> jax.Array:
    """The anchors of one feature map.

    They are centred where the cells of the grid see: cell i of a network of padded odd kernels on pixel i * stride.

    Args:
      height: cells.
      width: cells.
      stride: pixels between cells.
      scale: side of the square anchor over the stride.
      ratios: heights over widths, at equal areas.

    Returns:
      [height * width * len(ratios), 4] float32, pixels: ratios vary fastest, then columns, then rows.
    """
    roots = np.sqrt(np.asarray(ratios, np.float64))
    half_widths, half_heights = 0.5 * scale * stride / roots, 0.5 * scale * stride * roots
    around_origin = np.stack([-half_widths, -half_heights, half_widths, half_heights], -1)
    # Counted by the program itself: as a constant, each 4 numbers would take up 512 bytes of a TPU's program.
    y, x = jnp.meshgrid(jnp.arange(height) * stride, jnp.arange(width) * stride, indexing="ij")
    centres = jnp.stack([x, y, x, y], -1)[:, :, None, :].astype(jnp.float32)
    return (centres + jnp.asarray(around_origin, jnp.float32)).reshape(-1, 4)
