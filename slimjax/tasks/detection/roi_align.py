"""RoIAlign (He et al. 2017, arXiv:1703.06870, section 3) over the levels of a feature pyramid."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from slimjax.tasks.detection.boxes import areas

SAMPLES = 2
"""Points along each side of a bin, whose bilinear values are averaged."""

_CANONICAL_SIDE, _CANONICAL_LEVEL = 224.0, 4
"""A region of the side of ImageNet's images is pooled where it would be without a pyramid (Lin et al. 2017)."""


def levels_of(boxes: jax.Array, lowest: int, highest: int) -> jax.Array:
    """The level of the pyramid that each of boxes [..., 4] is pooled from (arXiv:1612.03144, equation 1): [...]."""
    sides = jnp.sqrt(jnp.maximum(areas(boxes), 1e-6))
    levels = jnp.floor(_CANONICAL_LEVEL + jnp.log2(sides / _CANONICAL_SIDE + 1e-6))
    return jnp.clip(levels, lowest, highest).astype(jnp.int32)


def roi_align(features: Mapping[int, jax.Array], boxes: jax.Array, size: int) -> jax.Array:
    """Pools regions of one image to squares of `size` by `size` bins, each from the level of its area.

    A cell's value is that of its middle, half a cell from its corner. Beyond the outermost middles values go on as they
    are up to one cell outside, and from there on there is nothing.

    Args:
      features: by level l, on grids of steps of 2**l pixels, [height, width, channels].
      boxes: [regions, 4] pixels of the image.
      size: bins along each side.

    Returns:
      [regions, size, size, channels]. Gradients flow to the features, not to the boxes.
    """
    dtype = features[min(features)].dtype
    levels = sorted(features)
    shapes = jnp.asarray([features[level].shape[:2] for level in levels])
    counts = shapes[:, 0] * shapes[:, 1]
    starts = jnp.cumsum(counts) - counts

    def taps(box: jax.Array) -> tuple[_Taps, _Taps]:
        level = levels_of(box, levels[0], levels[-1])
        (height, width), start = shapes[level - levels[0]], starts[level - levels[0]]
        scaled = box / jnp.exp2(level.astype(jnp.float32)) - 0.5
        rows = _taps(scaled[1], scaled[3], height, size)
        return _Taps(start + rows.cells * width, rows.weights), _taps(scaled[0], scaled[2], width, size)

    # One table of cells, so that a region of any level is a gather from it. In float32 also where the network computes
    # in less: gradients of many regions add up in a cell.
    table = jnp.concatenate([features[level].reshape(-1, features[level].shape[-1]) for level in levels])
    return _weighted_sums(table.astype(jnp.float32), *jax.vmap(taps)(jax.lax.stop_gradient(boxes))).astype(dtype)


class _Taps(NamedTuple):
    """What bins read along one axis. A bilinear value weighs a cell by the product of its weights along the two."""

    cells: jax.Array
    """[..., size, SAMPLES * 2]: where they are."""
    weights: jax.Array
    """Likewise; those of a bin sum to 1 if all of its samples are on the grid."""


def _taps(low: jax.Array, high: jax.Array, cells: jax.Array, size: int) -> _Taps:
    """Along one axis the taps of a region from `low` to `high`, in cells of a grid of so many."""
    places = low + (jnp.arange(size * SAMPLES) + 0.5) * (high - low) / (size * SAMPLES)
    there = (places > -1.0) & (places < cells)
    inside = jnp.clip(places, 0.0, cells - 1.0)
    first = jnp.floor(inside).astype(jnp.int32)
    share = inside - first
    both = jnp.stack([first, jnp.minimum(first + 1, cells - 1)], -1)
    weights = jnp.where(there[:, None], jnp.stack([1.0 - share, share], -1), 0.0) / SAMPLES
    return _Taps(both.reshape(size, -1), weights.reshape(size, -1))


@jax.custom_vjp
def _weighted_sums(table: jax.Array, rows: _Taps, columns: _Taps) -> jax.Array:
    """Of cells [cells, channels], by taps of regions: [regions, size, size, channels].

    Tap by tap: XLA:CPU makes one loop of these sums, which reads a cell where it needs it and stores nothing but bins.
    """
    found = jnp.zeros(())
    for row, column in itertools.product(range(rows.cells.shape[-1]), range(columns.cells.shape[-1])):
        cells, weights = _tap(rows, columns, row, column)
        found += weights[..., None] * table[cells]
    return found


def _tap(rows: _Taps, columns: _Taps, row: jax.Array | int, column: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """Cells and weights [regions, size, size] of one of the taps along each axis."""
    cells = rows.cells[:, :, None, row] + columns.cells[:, None, :, column]
    return cells, rows.weights[:, :, None, row] * columns.weights[:, None, :, column]


def _forward(table: jax.Array, rows: _Taps, columns: _Taps) -> tuple[jax.Array, tuple[int, _Taps, _Taps]]:
    return _weighted_sums(table, rows, columns), (table.shape[0], rows, columns)


def _backward(residuals: tuple[int, _Taps, _Taps], of_bins: jax.Array) -> tuple[jax.Array, None, None]:
    """Adds to the cells in place, tap after tap; what autodiff makes of the sums adds up a table of every tap."""
    count, rows, columns = residuals
    along_columns = columns.cells.shape[-1]

    def add(tap: jax.Array, of_table: jax.Array) -> jax.Array:
        cells, weights = _tap(rows, columns, tap // along_columns, tap % along_columns)
        return of_table.at[cells].add(weights[..., None] * of_bins)

    of_table = jnp.zeros((count, of_bins.shape[-1]), of_bins.dtype)
    return jax.lax.fori_loop(0, rows.cells.shape[-1] * along_columns, add, of_table), None, None


_weighted_sums.defvjp(_forward, _backward)
