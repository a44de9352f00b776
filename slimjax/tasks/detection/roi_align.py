"""RoIAlign (He et al. 2017, arXiv:1703.06870, section 3) over the levels of a feature pyramid."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from slimjax.tasks.detection.boxes import areas

SAMPLES = 2
"""Points along each side of a bin, whose bilinear values are averaged."""

_REGIONS_AT_ONCE = 32
"""Of one image: what is gathered for so many is in memory at a time."""

FEW_CELLS = 2**14
"""Of all levels, up to which products with all of them take no longer on a CPU than a gather, whose gradient is a
scatter; with twice as many cells they do."""

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
    # In float32 also where the network computes in less: gradients of many regions add up in a cell.
    dtype = features[min(features)].dtype
    features = {level: cells.astype(jnp.float32) for level, cells in features.items()}
    count = sum(level.shape[0] * level.shape[1] for level in features.values())
    pooled = _from_all_cells(features, size) if count <= FEW_CELLS else _from_own_cells(features, size)
    regions = jax.lax.stop_gradient(boxes)
    at_once = min(_REGIONS_AT_ONCE, max(len(regions), 1))
    bins: jax.Array = jax.lax.map(jax.checkpoint(pooled), regions, batch_size=at_once)
    return bins.astype(dtype)


def _from_all_cells(features: Mapping[int, jax.Array], size: int) -> Callable[[jax.Array], jax.Array]:
    """Pools a box [4] by products with all cells of all levels, most weights of which are 0."""

    def pooled(box: jax.Array) -> jax.Array:
        own = levels_of(box, min(features), max(features))
        found = jnp.zeros(())
        for level, cells in features.items():
            scaled = box / 2.0**level - 0.5
            of_rows = _weights(scaled[1], scaled[3], cells.shape[0], size) * (own == level)
            of_columns = _weights(scaled[0], scaled[2], cells.shape[1], size)
            found += _interpolated(of_rows, cells, of_columns)
        return found

    return pooled


def _from_own_cells(features: Mapping[int, jax.Array], size: int) -> Callable[[jax.Array], jax.Array]:
    """Pools a box [4] from the cells that its samples lie between, gathered from its level."""
    levels = sorted(features)
    # One table of cells, so that a region of any level is a gather from it.
    table = jnp.concatenate([features[level].reshape(-1, features[level].shape[-1]) for level in levels])
    shapes = jnp.asarray([features[level].shape[:2] for level in levels])
    counts = shapes[:, 0] * shapes[:, 1]
    starts = jnp.cumsum(counts) - counts

    def pooled(box: jax.Array) -> jax.Array:
        level = levels_of(box, levels[0], levels[-1])
        (height, width), start = shapes[level - levels[0]], starts[level - levels[0]]
        scaled = box / jnp.exp2(level.astype(jnp.float32)) - 0.5
        rows, of_rows = _taps(scaled[1], scaled[3], height, size)
        columns, of_columns = _taps(scaled[0], scaled[2], width, size)
        cells = table[start + rows[:, None] * width + columns[None, :]]
        return _interpolated(of_rows, cells, of_columns)

    return pooled


def _interpolated(of_rows: jax.Array, cells: jax.Array, of_columns: jax.Array) -> jax.Array:
    """Of weights [bins, height] and [bins, width] and cells [height, width, channels]: [bins, bins, channels]."""
    # Accelerators would round the factors of products in float32, and the weights of a bin not sum to 1.
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("py,yxc,qx->pqc", of_rows, cells, of_columns, precision=exact)


def _weights(low: jax.Array, high: jax.Array, cells: int, size: int) -> jax.Array:
    """Along one axis the weights [size, cells] of all cells for every bin; see `_taps` for the arguments."""
    inside, there = _samples(low, high, cells, size)
    hats = jnp.maximum(1.0 - jnp.abs(inside[:, None] - jnp.arange(cells)), 0.0)
    return jnp.where(there[:, None], hats, 0.0).reshape(size, SAMPLES, cells).mean(1)


def _samples(low: jax.Array, high: jax.Array, cells: jax.Array | int, size: int) -> tuple[jax.Array, jax.Array]:
    """Along one axis where the samples are, in cells, and whether there is something: [size * SAMPLES]."""
    samples = size * SAMPLES
    places = low + (jnp.arange(samples) + 0.5) * (high - low) / samples
    return jnp.clip(places, 0.0, cells - 1.0), (places > -1.0) & (places < cells)


def _taps(low: jax.Array, high: jax.Array, cells: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Along one axis: the cells that all samples need, and their weights for every bin.

    Bilinear values are products of what is needed along the two axes, so these can be computed apart.

    Args:
      low: of the region, in cells.
      high: of the region, in cells.
      cells: of the grid.
      size: bins.

    Returns:
      indices [size * SAMPLES * 2] and weights [size, size * SAMPLES * 2], those of each bin summing to 1 if all of its
      samples are on the grid.
    """
    inside, there = _samples(low, high, cells, size)
    first = jnp.floor(inside).astype(jnp.int32)
    share = inside - first
    indices = jnp.stack([first, jnp.minimum(first + 1, cells - 1)], -1).reshape(-1)
    weights = jnp.where(there[:, None], jnp.stack([1.0 - share, share], -1), 0.0) / SAMPLES
    own_bin = jnp.arange(size)[:, None] == (jnp.arange(size * SAMPLES) // SAMPLES)[None, :]
    return indices, (own_bin[:, :, None] * weights[None]).reshape(size, -1)
