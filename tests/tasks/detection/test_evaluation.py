"""From what a network finds to results in the pixels of stored images, and what COCO's tools say to them."""

import numpy as np
import pytest
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from slimjax.tasks.detection.evaluation import (
    Categories,
    GroundTruth,
    Stored,
    in_stored_pixels,
    pasted_mask,
    results_of,
)
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


PEOPLE = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip


class People:
    """A split of images of 100 x 100 pixels with a person each; the last one's keypoints are not annotated."""

    def __init__(self, rng, order):
        self.keypoints = np.concatenate([rng.integers(10, 90, (8, 17, 2)), rng.integers(1, 3, (8, 17, 1))], -1)[
            :, order
        ]
        self.keypoints[-1] = 0
        self.size, self.bbox = np.array([100, 100]), [10, 10, 80, 80]

    def __len__(self):
        return 8

    def record(self, index):
        stored = self.keypoints[index] + np.where(self.keypoints[index][:, 2:] > 0, [0.5, 0.5, 0], 0)
        objects = {
            "bbox": [self.bbox],
            "label": [0],
            "area": [3000.0],
            "is_crowd": [False],
            "segmentation": [b""],
        }
        return {
            "image/id": index + 1,
            "image/size": self.size,
            "objects": {**objects, "keypoints": [stored.reshape(-1)]},
        }

    @staticmethod
    def image_size(record):
        return tuple(record["image/size"].tolist())


def official_keypoint_ap(people, results, sigmas=None):
    """Of pycocotools with its default parameters, in percent."""
    truth = COCO()
    truth.dataset = {
        "images": [{"id": index + 1} for index in range(8)],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {"id": index + 1, "image_id": index + 1, "category_id": 1, "bbox": [10, 10, 80, 80], "area": 3000.0,
             "iscrowd": 0, "keypoints": keypoints.reshape(-1).tolist(), "num_keypoints": np.sum(keypoints[:, 2] > 0)}
            for index, keypoints in enumerate(people.keypoints)
        ],
    }  # fmt: skip
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
    if sigmas is not None:
        evaluation.params.kpt_oks_sigmas = sigmas
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return 100 * evaluation.stats[0]


def keypoint_results(people, seed=3):
    """Everyone is found, some better than others; where nothing is annotated something is found as well."""
    rng = np.random.default_rng(seed)
    return [
        {"image_id": index + 1, "category_id": 1, "score": float(rng.uniform()), "bbox": [10, 10, 80, 80],
         "keypoints": np.append(keypoints[:, :2] + distance, np.ones((17, 1)), 1).reshape(-1).tolist()}
        for index, (keypoints, distance) in enumerate(zip(people.keypoints, range(8), strict=True))
    ]  # fmt: skip


@pytest.mark.parametrize("order", [np.arange(17), np.random.default_rng(5).permutation(17)])
def test_keypoints_of_people_have_cocos_sigmas_in_whatever_order(order):
    expected = People(np.random.default_rng(4), np.arange(17))
    people = People(np.random.default_rng(4), order)
    truth = GroundTruth(people, Categories(("person",), (1,), tuple(PEOPLE[index] for index in order)), ["keypoints"])
    ap = truth.figures(keypoint_results(people))["keypoint_ap"]
    assert ap == pytest.approx(official_keypoint_ap(expected, keypoint_results(expected)), abs=1e-9)
    assert 20 < ap < 90


def test_17_keypoints_of_something_else_have_not(rng):
    people = People(rng, np.arange(17))
    names = tuple(f"corner_{number}" for number in range(17))
    ap = GroundTruth(people, Categories(("star",), (1,), names), ["keypoints"]).figures(keypoint_results(people))
    of_others = official_keypoint_ap(people, keypoint_results(people), sigmas=np.full(17, 0.05))
    assert ap["keypoint_ap"] == pytest.approx(of_others, abs=1e-9)
    assert abs(of_others - official_keypoint_ap(people, keypoint_results(people))) > 1


def test_whose_keypoints_are_not_annotated_is_neither_missed_nor_a_mistake(rng):
    people = People(rng, np.arange(17))
    truth = GroundTruth(people, Categories(("person",), (1,), PEOPLE), ["keypoints"])
    results = keypoint_results(people)
    for result in results[:7]:
        result["keypoints"] = np.append(people.keypoints[result["image_id"] - 1][:, :2], np.ones((17, 1)), 1).reshape(
            -1
        )
        result["keypoints"] = result["keypoints"].tolist()
    results[7] |= {"keypoints": [50.0, 50.0, 1.0] * 17, "score": 1.0}
    assert truth.figures(results)["keypoint_ap"] == pytest.approx(100)
    assert truth.figures(results[:7])["keypoint_ap"] == pytest.approx(100)


def test_boxes_are_judged_in_the_files_precision(rng):
    """Half of .1 is half of it to the bit, and less than half of what float32 makes of .1."""
    people = People(rng, np.arange(17))
    people.bbox = [0.0, 0.0, 0.1, 7.0]
    truth = GroundTruth(people, Categories(("person",), (1,), PEOPLE), ["bbox"])
    results = [
        {"image_id": index + 1, "category_id": 1, "score": 1.0, "bbox": [0.0, 0.0, 0.05, 7.0]} for index in range(8)
    ]
    assert truth.figures(results)["box_ap50"] == pytest.approx(100)
    people.bbox = np.float32(people.bbox)
    assert GroundTruth(people, Categories(("person",), (1,), PEOPLE), ["bbox"]).figures(results)["box_ap50"] == 0
