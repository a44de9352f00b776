"""From what a network finds to results in the pixels of stored images."""

import numpy as np
import pytest
from pycocotools import mask as coco_masks

from slimjax.tasks.detection.evaluation import Stored, in_stored_pixels, pasted_mask, results_of
from slimjax.tasks.detection.metrics import Found


def plainly_pasted(mask, box, image_size):
    """Pixel by pixel: the bilinear value between the middles of bins, beyond the outermost as they are."""
    size, (left, top, right, bottom) = len(mask), box
    whole = np.zeros(image_size, np.uint8)
    for y in range(image_size[0]):
        for x in range(image_size[1]):
            if not (left <= x + 0.5 < right and top <= y + 0.5 < bottom):
                continue
            row = np.clip((y + 0.5 - top) / (bottom - top) * size - 0.5, 0, size - 1)
            column = np.clip((x + 0.5 - left) / (right - left) * size - 0.5, 0, size - 1)
            r, c = int(row), int(column)
            below, beside = min(r + 1, size - 1), min(c + 1, size - 1)
            upper = mask[r, c] * (1 - (column - c)) + mask[r, beside] * (column - c)
            lower = mask[below, c] * (1 - (column - c)) + mask[below, beside] * (column - c)
            whole[y, x] = upper * (1 - (row - r)) + lower * (row - r) >= 0.5
    return whole


@pytest.mark.parametrize(
    "box",
    [(3, 4, 17, 20), (10.7, 5.2, 20.2, 9.9), (-4.5, -3, 12, 8), (25, 18, 40, 33), (5, 5, 5, 9), (7.2, 7.2, 7.4, 7.4)],
)
def test_masks_are_pasted_pixel_by_pixel(rng, box):
    mask = rng.uniform(0, 1, (7, 7))
    result = pasted_mask(mask, np.array(box, float), (24, 30))
    assert result["size"] == [24, 30]
    np.testing.assert_array_equal(coco_masks.decode(result), plainly_pasted(mask, box, (24, 30)))


def test_a_full_mask_fills_its_box_and_no_more():
    full = coco_masks.decode(pasted_mask(np.ones((28, 28)), np.array([10.7, 5.0, 20.2, 8.0]), (24, 30)))
    rows, columns = np.flatnonzero(full.any(1)), np.flatnonzero(full.any(0))
    assert (rows.tolist(), columns.tolist()) == ([5, 6, 7], list(range(11, 20)))


def test_places_go_back_by_what_each_side_was_scaled():
    """97 x 160 pixels scaled to a longer side of 128 are 78 x 128: .804 and .8."""
    found = {
        "boxes": np.array([[0, 0, 128, 78], [12.8, 7.8, 200, 90]], np.float32),
        "keypoints": np.array([[[64, 39, 3.0]], [[0, 78, 1.0]]], np.float32),
        "scores": np.array([0.9, 0.8]),
        "labels": np.array([1, 0]),
        "there": np.array([True, True]),
    }
    stored = Stored(2**40, 97, 160)
    back = in_stored_pixels(found, np.array([78, 128], np.float32), stored)
    np.testing.assert_allclose(back["boxes"], [[0, 0, 160, 97], [16, 9.7, 160, 97]], rtol=1e-6)
    np.testing.assert_allclose(back["keypoints"], [[[80, 48.5, 3]], [[0, 97, 1]]], rtol=1e-6)
    first, second = results_of(back, stored, (5, 70))
    assert (first["image_id"], first["category_id"], second["category_id"]) == (2**40, 70, 5)
    assert second["bbox"] == pytest.approx([16, 9.7, 144, 87.3])
    # A pixel's number stands for its middle.
    assert first["keypoints"] == pytest.approx([79.5, 48.0, 1.0])


def test_batches_are_kept_in_order():
    """And what was fetched stays so."""
    parts = [Found(({"mask": np.ones(2), "boxes": np.full((2, 3, 4), float(number))},)) for number in range(4)]
    merged = parts[0].merge(parts[1]).merge(parts[2]).merge(parts[3]).on_host()
    assert [float(batch["boxes"][0, 0, 0]) for batch in merged.batches] == [0, 1, 2, 3]
