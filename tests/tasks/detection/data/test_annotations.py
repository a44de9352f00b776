"""Annotation files: what is right is read, what is wrong is named, counted and left out, or refused."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_masks

from slimjax.errors import UserError
from slimjax.tasks.detection.data.annotations import compressed_mask, cut_boxes, read_annotations

IMAGES = [
    {"id": 7, "file_name": "a.jpg", "height": 60, "width": 80},
    {"id": 9, "file_name": "b.jpg", "height": 5, "width": 5},
]
CATEGORIES = [{"id": 3, "name": "cup", "keypoints": ["left_rim", "right_rim"]}, {"id": 1, "name": "dog"}]
GOOD = {
    "id": 1,
    "image_id": 7,
    "category_id": 1,
    "bbox": [10, 20, 30, 25],
    "area": 700.0,
    "iscrowd": 0,
    "segmentation": [[10, 20, 40, 20, 40, 45]],
    "keypoints": [12, 22, 2, 30, 21, 1],
}


@pytest.fixture
def read(tmp_path):
    def write_and_read(*annotations, **content):
        path = tmp_path / "instances_train.json"
        whole = {"images": IMAGES, "categories": CATEGORIES, "annotations": list(annotations)} | content
        path.write_text(json.dumps(whole))
        return read_annotations(path)

    return write_and_read


def test_what_is_right_is_read(read):
    found = read(GOOD)
    assert not found.problems.lines()
    assert (found.category_names, found.category_ids) == (("cup", "dog"), (3, 1))
    assert found.keypoint_names == ("left_rim", "right_rim")
    first, empty = found.images
    assert (first.id, first.file_name, first.height, first.width) == (7, "a.jpg", 60, 80)
    assert empty.annotations == ()
    (annotation,) = first.annotations
    assert annotation.bbox == (10, 20, 30, 25)
    assert (annotation.label, annotation.area, annotation.is_crowd) == (1, 700.0, False)
    # The file has numbers of pixels, of which the middles are meant.
    np.testing.assert_array_equal(annotation.keypoints, [[12.5, 22.5, 2], [30.5, 21.5, 1]])
    mask = coco_masks.decode({"size": [60, 80], "counts": annotation.segmentation})
    assert abs(int(mask.sum()) - 30 * 25 / 2) < 30, "the triangle's half of its box"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"image_id": 8}, "annotations of images that are not listed (the first: annotation 1 of image 8)"),
        ({"category_id": 2}, "annotations of categories that are not listed (the first: annotation 1 of category 2)"),
        ({"bbox": [10, 20, -30, 25]}, "annotations without a sound image, category, box"),
        ({"bbox": [10, 20, 1e300, 25]}, "annotations without a sound image, category, box"),
        ({"image_id": float("inf")}, "annotations without a sound image, category, box"),
        ({"iscrowd": "maybe"}, "annotations without a sound image, category, box"),
        ({"segmentation": [[0, 0, 1e10, 0, 1e10, 1e10]]}, "objects without a mask that can be read"),
        ({"bbox": [float("nan"), 20, 30, 25]}, "annotations without a sound image, category, box"),
        (
            {"bbox": [10, 20, 30]},
            "annotations without a sound image, category, box, area or iscrowd (the first: annotation 1)",
        ),
        ({"area": None}, "annotations without a sound image, category, box, area or iscrowd"),
        ({"area": -700.0}, "annotations without a sound image, category, box, area or iscrowd"),
        ({"bbox": None}, "annotations without a sound image, category, box"),
        (
            {"segmentation": [[10, 20, 40, 20]]},
            "objects without a mask that can be read (the first: annotation 1: no polygon has three points)",
        ),
        ({"segmentation": [[10, 20, 40, 20, 40]]}, "a polygon of 5 coordinates"),
        ({"segmentation": [["a"] * 6]}, "objects without a mask that can be read"),
        ({"segmentation": {"size": [6, 8], "counts": [48]}}, "run lengths of [6, 8], the image has [60, 80]"),
        ({"segmentation": {"size": [60, 80], "counts": [10, 20]}}, "run lengths of 30 pixels in an image of 4800"),
        (
            {"segmentation": {"size": [60, 80]}},
            "objects without a mask that can be read (the first: annotation 1: 'counts')",
        ),
        ({"segmentation": {"size": [60, 80], "counts": ["a"]}}, "objects without a mask that can be read"),
        ({"segmentation": {"size": [60, 80], "counts": "abc"}}, "run lengths that are cut off"),
        ({"segmentation": {"size": [60, 80], "counts": "11"}}, "run lengths of 2 pixels in an image of 4800"),
        ({"segmentation": {"size": [60, 80], "counts": "0"}}, "run lengths of 0 pixels in an image of 4800"),
        ({"segmentation": {"size": [60, 80], "counts": "~~"}}, "cut off, or no text of COCO's"),
        ({"segmentation": 1}, "objects without a mask that can be read"),
    ],
)
def test_what_is_wrong_is_named_counted_and_left_out(read, change, problem):
    found = read(GOOD | change, GOOD | {"id": 2, "area": 5.0})
    (line,) = found.problems.lines()
    assert line.startswith("1 left out: ")
    assert problem in line
    assert [annotation.area for annotation in found.images[0].annotations] == [5.0]


@pytest.mark.parametrize("keypoints", [[1, 2, 2], [1, 2, 2] * 3, [1, 2] * 3 + [2], ["a"] * 6, [float("nan")] * 6, 7])
def test_keypoints_that_are_none_cost_an_object_these_alone(read, keypoints):
    found = read(GOOD | {"keypoints": keypoints})
    (line,) = found.problems.lines()
    assert (
        "keypoints that are not 2 with three numbers each, of objects that are kept (the first: annotation 1)" in line
    )
    (annotation,), (good,) = found.images[0].annotations, read(GOOD).images[0].annotations
    np.testing.assert_array_equal(annotation.keypoints, np.zeros((2, 3)))
    assert (annotation.bbox, annotation.area, annotation.segmentation) == (good.bbox, good.area, good.segmentation)


@pytest.mark.parametrize("bbox", [[90, 20, 30, 25], [10, 20, 0, 25], [79.5, 20, 30, 25]])
def test_boxes_without_a_size_in_their_image_are_counted_and_evaluated_alone(read, bbox):
    found = read(GOOD | {"bbox": bbox})
    (line,) = found.problems.lines()
    assert "boxes of less than a pixel within their image, of training alone" in line
    (annotation,) = found.images[0].annotations
    assert not cut_boxes(np.array([annotation.bbox]), 60, 80)[1].any()


def test_boxes_are_cut_at_their_image():
    cut, are_learnable = cut_boxes(np.array([[-5.0, 50, 205, 30], [10, 10, 2, 1.5], [10, 10, 0.5, 20]]), 60, 80)
    assert cut.tolist() == [[0, 50, 80, 60], [10, 10, 12, 11.5], [10, 10, 10.5, 30]]
    assert are_learnable.tolist() == [True, True, False]


def test_a_short_polygon_beside_a_good_one_is_counted(read):
    found = read(GOOD | {"segmentation": [GOOD["segmentation"][0], [1, 1, 2, 2]]})
    assert found.problems.lines() == [
        "1 left out: polygons with fewer than three points, of objects that have others (the first: annotation 1)"
    ]
    assert found.images[0].annotations[0].segmentation == read(GOOD).images[0].annotations[0].segmentation


def test_an_image_that_is_listed_twice_counts_once(read):
    found = read(GOOD, images=[*IMAGES, {"id": 7, "file_name": "c.jpg", "height": 60, "width": 80}])
    assert [image.file_name for image in found.images] == ["a.jpg", "b.jpg"]
    assert found.problems.lines() == ["1 left out: images whose id another one has (the first: image 7, c.jpg)"]


def test_keypoints_that_no_category_names_are_left_out_and_told(read):
    found = read(GOOD, categories=[{"id": 1, "name": "dog"}])
    assert found.problems.lines() == [
        "1 left out: keypoints, for their category names none, of objects that are kept (the first: annotation 1)"
    ]
    assert found.images[0].annotations[0].keypoints.shape == (0, 3)


def test_files_without_a_single_usable_object_are_refused(read):
    with pytest.raises(UserError, match="none of its 1 annotations is usable; 1 left out: annotations of images"):
        read(GOOD | {"image_id": 8})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, "lists 0 images and 2 categories; there is nothing to learn"),
        ({"categories": []}, "lists 2 images and 0 categories"),
        ({"images": [{"id": 1}]}, "is no annotation file of COCO's format (KeyError: 'height')"),
        ({"images": [IMAGES[0] | {"height": 0}]}, "image 7 has 0 x 80 pixels"),
        ({"images": None}, "is no annotation file of COCO's format (TypeError"),
        ({"annotations": 5}, "is no annotation file of COCO's format (TypeError"),
        ({"images": [IMAGES[0] | {"id": float("inf")}]}, "is no annotation file of COCO's format (OverflowError"),
        ({"categories": [CATEGORIES[0], CATEGORIES[0]]}, "two of its categories have the same id"),
        (
            {"categories": [CATEGORIES[0], CATEGORIES[1] | {"keypoints": ["nose"]}]},
            "its categories have different keypoints",
        ),
    ],
)
def test_files_of_another_kind_are_refused(read, content, message):
    with pytest.raises(UserError) as caught:
        read(**content)
    assert message in str(caught.value)


def test_files_that_are_not_there_or_no_json(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_annotations(tmp_path / "nothing.json")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(UserError, match="is no annotation file"):
        read_annotations(tmp_path / "text.json")


def test_masks_of_polygons_and_run_lengths_are_those_of_pycocotools(rng):
    mask = np.asfortranarray(rng.integers(0, 2, (30, 40)), np.uint8)
    compressed = coco_masks.encode(mask)["counts"]
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(np.diff(flat.astype(int))) + 1
    runs = np.diff([0, *changes, flat.size]).tolist()
    plain = {"size": [30, 40], "counts": [0, *runs] if flat[0] else runs}
    assert compressed_mask(plain, 30, 40) == (compressed, 0)
    assert compressed_mask({"size": [30, 40], "counts": compressed.decode()}, 30, 40) == (compressed, 0)
    two = [[1, 1, 9, 1, 9, 9], [20, 5, 30, 5, 30, 20, 20, 20]]
    decoded = coco_masks.decode({"size": [30, 40], "counts": compressed_mask(two, 30, 40)[0]})
    assert decoded[10, 25]
    assert decoded[3, 7]
    assert not decoded[3, 15]
