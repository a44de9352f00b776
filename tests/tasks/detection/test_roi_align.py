"""RoIAlign against bilinear values taken one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slimjax.tasks.detection.roi_align import levels_of, roi_align


def value_at(grid, y, x):
    """Bilinear, as in the paper: beyond the last middles as they are, one cell outside nothing."""
    height, width, _ = grid.shape
    if y <= -1 or y >= height or x <= -1 or x >= width:
        return np.zeros(grid.shape[-1])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = grid[top, left] * (1 - dx) + grid[top, right] * dx
    lower = grid[below, left] * (1 - dx) + grid[below, right] * dx
    return upper * (1 - dy) + lower * dy


def level_of(box):
    side = np.sqrt(max(box[2] - box[0], 0) * max(box[3] - box[1], 0))
    return int(np.clip(np.floor(4 + np.log2(max(side, 1e-3) / 224 + 1e-6)), 2, 5))


def plain_roi_align(features, box, size):
    level = level_of(box)
    left, top, right, bottom = np.asarray(box, np.float64) / 2**level - 0.5
    bins = np.zeros((size, size, features[level].shape[-1]))
    for row in range(size):
        for column in range(size):
            for i in range(2):
                for j in range(2):
                    y = top + (row + (i + 0.5) / 2) * (bottom - top) / size
                    x = left + (column + (j + 0.5) / 2) * (right - left) / size
                    bins[row, column] += value_at(features[level], y, x) / 4
    return bins


@pytest.fixture
def features(rng):
    return {level: rng.normal(size=(768 // 2**level, 640 // 2**level, 3)).astype(np.float32) for level in (2, 3, 4, 5)}


BOXES = {
    "small": (10, 20, 50, 61),
    "on level 3": (40.3, 60.1, 200.7, 190.2),
    "on level 4": (3, 5, 330, 260),
    "the whole image": (0, 0, 640, 768),
    "long and thin": (2, 100, 636, 109),
    "beyond the image": (-60, -50, 70, 30),
    "outside": (800, 900, 860, 990),
    "without a size": (30, 40, 30, 40),
}


@pytest.mark.parametrize("size", [7, 14])
def test_bins_are_means_of_bilinear_values(features, size):
    boxes = np.array(list(BOXES.values()), np.float32)
    assert {level_of(box) for box in boxes} == {2, 3, 4, 5}
    pooled = jax.jit(lambda features, boxes: roi_align(features, boxes, size))(features, boxes)
    for name, found, box in zip(BOXES, pooled, boxes, strict=True):
        np.testing.assert_allclose(found, plain_roi_align(features, box, size), atol=2e-4, err_msg=name)


def test_levels_go_by_area():
    sides = np.array([1, 111, 112.5, 223, 225, 447, 449, 2000], np.float32)
    boxes = np.stack([0 * sides, 0 * sides, sides * 2, sides / 2], 1)
    assert levels_of(boxes, 2, 5).tolist() == [2, 2, 3, 3, 4, 4, 5, 5]


def test_gradients_go_where_the_values_came_from(features, rng):
    """Sums of bins are linear in the features: along any direction their derivative is the sum of its bins."""
    boxes = np.array([*BOXES.values(), BOXES["small"]], np.float32)
    weights = rng.normal(size=(len(boxes), 3, 3, 3)).astype(np.float32)

    def total(features):
        return jnp.sum(roi_align(features, boxes, 3) * weights)

    gradient = jax.jit(jax.grad(total))(features)
    for level, cells in features.items():
        others = {other: np.zeros_like(x) for other, x in features.items() if other != level}
        bins = [plain_roi_align({**others, level: cells}, box, 3) for box in boxes]
        assert float(np.vdot(gradient[level], cells)) == pytest.approx(float(np.vdot(bins, weights)), abs=1e-3)
    touched = np.argwhere(np.any(gradient[3], -1))
    left, top, right, bottom = np.array(BOXES["on level 3"]) / 2**3 - 0.5
    assert (touched.min(0) >= np.floor((top, left))).all()
    assert (touched.max(0) <= np.ceil((bottom, right))).all()


def test_gradients_of_a_batch_are_those_of_its_images(features, rng):
    boxes = np.array(list(BOXES.values()), np.float32)

    def total(features, boxes):
        return jnp.sum(jnp.square(roi_align(features, boxes, 3)))

    gradient = jax.jit(jax.grad(total))
    flipped = {level: cells[::-1] for level, cells in features.items()}
    both = {level: np.stack([cells, flipped[level]]) for level, cells in features.items()}
    batched = jax.jit(jax.vmap(jax.grad(total)))(both, np.stack([boxes, boxes[::-1]]))
    for image, (cells, regions) in enumerate([(features, boxes), (flipped, boxes[::-1])]):
        for level, expected in gradient(cells, regions).items():
            np.testing.assert_allclose(batched[level][image], expected, atol=1e-5)


def test_gradients_of_many_regions_add_up_in_float32(features):
    """In bfloat16 a sum of equal parts would stand still at 256 of them."""
    boxes = np.tile(np.array([BOXES["small"]], np.float32), (1000, 1))

    @jax.jit
    def gradient(features):
        return jax.grad(lambda features: jnp.sum(roi_align(features, boxes, 3).astype(jnp.float32)))(features)

    expected = gradient(features)[2]
    found = gradient({level: jnp.asarray(cells, jnp.bfloat16) for level, cells in features.items()})[2]
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(np.float32), expected, rtol=0.01)


def test_boxes_that_are_no_numbers_and_none_at_all(features):
    """As a training that diverges has them."""
    assert roi_align(features, np.zeros((0, 4), np.float32), 3).shape == (0, 3, 3, 3)
    boxes = np.array([[np.nan] * 4, BOXES["small"]], np.float32)
    pooled = jax.jit(lambda boxes: roi_align(features, boxes, 3))(boxes)
    np.testing.assert_allclose(pooled[1], plain_roi_align(features, BOXES["small"], 3), atol=2e-4)
