"""From a keypoint head's maps to points."""

import jax
import jax.numpy as jnp

from slimjax.tasks.detection.boxes import sizes


def keypoints_of(logits: jax.Array, boxes: jax.Array) -> jax.Array:
    """The likeliest place of every keypoint, to a fraction of a bin.

    The peak lies where the parabola through the best bin and its neighbours has its top, along each axis by itself.
    (Detectron enlarges every map to its box instead, whose shape is not static.)

    Args:
      logits: [regions, size, size, keypoints].
      boxes: of the regions, [regions, 4] pixels.

    Returns:
      [regions, keypoints, 3]: x and y in pixels, and the logit of the best bin.
    """
    count, size, _, keypoints = logits.shape
    maps = jnp.moveaxis(logits, -1, 1).reshape(count * keypoints, size, size)
    best = jnp.argmax(maps.reshape(len(maps), -1), axis=-1)
    rows, columns = best // size, best % size
    each = jnp.arange(len(maps))
    of_rows, of_columns = maps[each, :, columns], maps[each, rows, :]
    places = jnp.stack([columns + _top(of_columns, columns), rows + _top(of_rows, rows)], -1) + 0.5
    scores = jnp.max(maps, axis=(1, 2))
    sides = jnp.stack(sizes(boxes), -1)[:, None]
    points = boxes[:, None, :2] + places.reshape(count, keypoints, 2) / size * sides
    return jnp.concatenate([points, scores.reshape(count, keypoints, 1)], -1)


def _top(values: jax.Array, best: jax.Array) -> jax.Array:
    """How far from the best of values [n, size] the parabola through its neighbours is highest: [n], at most half."""
    last = values.shape[1] - 1

    def at(places: jax.Array) -> jax.Array:
        return jnp.take_along_axis(values, jnp.clip(places, 0, last)[:, None], axis=1)[:, 0]

    before, here, after = at(best - 1), at(best), at(best + 1)
    curvature = before - 2.0 * here + after
    shift = 0.5 * (before - after) / jnp.where(curvature < 0, curvature, -1.0)
    return jnp.where((best > 0) & (best < last) & (curvature < 0), jnp.clip(shift, -0.5, 0.5), 0.0)
