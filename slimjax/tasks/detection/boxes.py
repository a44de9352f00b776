"""Boxes: areas, overlaps, and their coding against other boxes.

A box is (x1, y1, x2, y2) in pixels, float32, x to the right and y down; its width is x2 - x1. Nothing here fails on
boxes without a size: they overlap with nothing, and are coded as if they were very small.
"""

import math

import jax
import jax.numpy as jnp

MAX_LOG_RATIO = math.log(1000 / 16)
"""Of a decoded side over its reference's: a wild regression must not overflow the exponential."""

_SMALLEST = 1e-3
"""Pixels of a side that a box is coded with at least."""

_TINY = 1e-9


def sizes(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Widths and heights of boxes [..., 4]: two arrays [...], not negative."""
    return jnp.maximum(boxes[..., 2] - boxes[..., 0], 0.0), jnp.maximum(boxes[..., 3] - boxes[..., 1], 0.0)


def areas(boxes: jax.Array) -> jax.Array:
    """Square pixels of boxes [..., 4]: [...]."""
    widths, heights = sizes(boxes)
    return widths * heights


def intersections(boxes: jax.Array, others: jax.Array) -> jax.Array:
    """Square pixels that each of boxes [..., n, 4] has in common with each of others [..., m, 4]: [..., n, m]."""
    # Coordinate by coordinate: an array [n, m, 4] would be four times as large as what comes of it.
    left, top, right, bottom = (boxes[..., :, None, axis] for axis in range(4))
    other_left, other_top, other_right, other_bottom = (others[..., None, :, axis] for axis in range(4))
    widths = jnp.minimum(right, other_right) - jnp.maximum(left, other_left)
    heights = jnp.minimum(bottom, other_bottom) - jnp.maximum(top, other_top)
    return jnp.maximum(widths, 0.0) * jnp.maximum(heights, 0.0)


def intersections_over_unions(boxes: jax.Array, others: jax.Array) -> jax.Array:
    """IoU of each of boxes [..., n, 4] with each of others [..., m, 4]: [..., n, m], 0 where neither has a size."""
    common = intersections(boxes, others)
    unions = areas(boxes)[..., :, None] + areas(others)[..., None, :] - common
    return common / jnp.maximum(unions, _TINY)


def intersections_over_areas(boxes: jax.Array, others: jax.Array) -> jax.Array:
    """The share of each of boxes [..., n, 4] that lies in each of others [..., m, 4]: [..., n, m].

    COCO compares detections with crowds by this.
    """
    return intersections(boxes, others) / jnp.maximum(areas(boxes)[..., :, None], _TINY)


def encode(boxes: jax.Array, references: jax.Array, stds: tuple[float, ...]) -> jax.Array:
    """Boxes as regression targets (Girshick et al. 2014, arXiv:1311.2524, appendix C).

    Args:
      boxes: [..., 4].
      references: anchors or proposals, [..., 4].
      stds: of the four targets, by which they are divided.

    Returns:
      [..., 4]: shifts of the centre over the reference's sides, logarithms of the sides' ratios, over `stds`.
    """
    (widths, heights), (reference_widths, reference_heights) = _coded_sizes(boxes), _coded_sizes(references)
    shifts = (_centres(boxes) - _centres(references)) / jnp.stack([reference_widths, reference_heights], -1)
    ratios = jnp.stack([jnp.log(widths / reference_widths), jnp.log(heights / reference_heights)], -1)
    return jnp.concatenate([shifts, ratios], -1) / jnp.asarray(stds, jnp.float32)


def decode(deltas: jax.Array, references: jax.Array, stds: tuple[float, ...]) -> jax.Array:
    """Boxes from regressed targets: the inverse of `encode`, with sides of at most 62.5 times the reference's.

    Args:
      deltas: [..., 4].
      references: anchors or proposals, broadcastable to [..., 4].
      stds: as in `encode`.

    Returns:
      [..., 4].
    """
    deltas = deltas * jnp.asarray(stds, jnp.float32)
    sides = jnp.stack(_coded_sizes(references), -1)
    centres = _centres(references) + deltas[..., :2] * sides
    half = 0.5 * sides * jnp.exp(jnp.minimum(deltas[..., 2:], MAX_LOG_RATIO))
    return jnp.concatenate([centres - half, centres + half], -1)


def clip(boxes: jax.Array, heights: jax.Array, widths: jax.Array) -> jax.Array:
    """Boxes [..., 4] without what is outside of images of so many pixels, broadcastable to [...]."""
    limits = jnp.stack([widths, heights, widths, heights], -1).astype(boxes.dtype)
    return jnp.clip(boxes, 0.0, limits)


def _centres(boxes: jax.Array) -> jax.Array:
    return 0.5 * (boxes[..., :2] + boxes[..., 2:])


def _coded_sizes(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    widths, heights = sizes(boxes)
    return jnp.maximum(widths, _SMALLEST), jnp.maximum(heights, _SMALLEST)
