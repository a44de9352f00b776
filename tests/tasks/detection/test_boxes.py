"""Boxes and anchors against loops over plain numbers."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from slimjax.tasks.detection.anchors import anchors_of_level
from slimjax.tasks.detection.boxes import (
    areas,
    clip,
    decode,
    encode,
    intersections_over_areas,
    intersections_over_unions,
)

STDS = (0.1, 0.1, 0.2, 0.2)


@pytest.fixture
def boxes(rng):
    corners = rng.uniform(0, 80, (12, 2))
    found = np.concatenate([corners, corners + rng.uniform(0, 40, (12, 2))], 1).astype(np.float32)
    found[3] = found[2]
    found[4, 2:] = found[4, :2]
    found[5, 2] = found[5, 0] - 3
    return found


def plain_area(box):
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def plain_intersection(a, b):
    return plain_area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def test_overlaps_are_those_of_plain_numbers(boxes):
    ious, shares = intersections_over_unions(boxes, boxes[:7]), intersections_over_areas(boxes, boxes[:7])
    for i, a in enumerate(boxes.tolist()):
        for j, b in enumerate(boxes[:7].tolist()):
            common = plain_intersection(a, b)
            union = plain_area(a) + plain_area(b) - common
            assert ious[i, j] == pytest.approx(common / union if union else 0, abs=1e-5)
            assert shares[i, j] == pytest.approx(common / plain_area(a) if plain_area(a) else 0, abs=1e-5)
    np.testing.assert_allclose(areas(boxes), [plain_area(box) for box in boxes], rtol=1e-5)


def test_boxes_without_a_size_overlap_with_nothing(boxes):
    ious = intersections_over_unions(boxes[4:6], boxes)
    assert not np.any(ious)
    assert np.all(np.isfinite(encode(boxes[4:6], boxes[:2], STDS)))
    assert np.all(np.isfinite(encode(boxes[:2], boxes[4:6], STDS)))


def test_codes_are_those_of_the_paper_and_decode_to_the_boxes(boxes):
    targets, references = boxes[:4], boxes[6:10]
    codes = encode(targets, references, STDS)
    for code, box, reference in zip(codes, targets.tolist(), references.tolist(), strict=True):
        width, height = reference[2] - reference[0], reference[3] - reference[1]
        expected = (
            ((box[0] + box[2]) / 2 - (reference[0] + reference[2]) / 2) / width / 0.1,
            ((box[1] + box[3]) / 2 - (reference[1] + reference[3]) / 2) / height / 0.1,
            math.log((box[2] - box[0]) / width) / 0.2,
            math.log((box[3] - box[1]) / height) / 0.2,
        )
        np.testing.assert_allclose(code, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(decode(codes, references, STDS), targets, atol=1e-3)


def test_a_wild_regression_stays_finite():
    (box,) = decode(jnp.array([[0.0, 0.0, 1e6, 50.0]]), jnp.array([[0.0, 0.0, 16.0, 16.0]]), (1.0,) * 4)
    np.testing.assert_allclose(box, [8 - 500, 8 - 500, 8 + 500, 8 + 500], rtol=1e-5)


def test_boxes_are_clipped_to_their_image():
    boxes = jnp.array([[-5.0, -1.0, 200.0, 50.0], [120.0, 90.0, 130.0, 95.0]])
    np.testing.assert_array_equal(clip(boxes, 60, 100), [[0, 0, 100, 50], [100, 60, 100, 60]])


def test_anchors_of_a_grid_written_out():
    anchors = anchors_of_level(2, 3, stride=16, scale=8, ratios=(0.5, 1.0, 2.0)).reshape(2, 3, 3, 4)
    for row in range(2):
        for column in range(3):
            for number, ratio in enumerate((0.5, 1.0, 2.0)):
                left, top, right, bottom = anchors[row, column, number]
                assert (left + right) / 2 == pytest.approx(16 * column)
                assert (top + bottom) / 2 == pytest.approx(16 * row)
                assert (bottom - top) / (right - left) == pytest.approx(ratio)
                assert (bottom - top) * (right - left) == pytest.approx(128**2, rel=1e-5)
