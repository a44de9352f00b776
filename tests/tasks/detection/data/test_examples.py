"""Examples: images and objects are resized, mirrored and padded together."""

import io

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from slimjax.errors import UserError
from slimjax.tasks.detection.data.examples import ExampleSettings, example_of
from slimjax.tasks.detection.data.order import TrainOrder, eval_order

SETTINGS = ExampleSettings(64, 100, most_objects=4, mask_size=20, num_keypoints=2, mirrored_keypoints=(1, 0))
HEIGHT, WIDTH = 40, 50


@pytest.fixture(scope="module")
def record():
    """A dark image with two bright boxes, and a crowd that is larger than both."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[10:30, 5:25], pixels[20:36, 30:48] = 255, 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    masks = np.zeros((3, HEIGHT, WIDTH), np.uint8)
    masks[0, 10:30, 5:15], masks[1, 20:36, 30:48], masks[2, :, :] = 1, 1, 1
    return {
        "image": file.getvalue(),
        "image/id": 5,
        "image/size": np.array([HEIGHT, WIDTH]),
        "objects": {
            "id": np.arange(3),
            "bbox": np.array([[5, 10, 20, 20], [30, 20, 18, 16], [0, 0, 50, 40]], float),
            "label": np.array([2, 0, 1]),
            "area": np.array([200, 288, 2000]),
            "is_crowd": np.array([False, False, True]),
            "segmentation": [coco_masks.encode(np.asfortranarray(mask))["counts"] for mask in masks],
            "keypoints": [[6, 12, 2, 20, 13, 1], [0, 0, 0, 40, 30, 2], [0] * 6],
        },
    }


@pytest.mark.parametrize("mirrored", [False, True])
def test_objects_stay_where_their_pixels_are(record, mirrored):
    example = example_of(record, SETTINGS, wide=True, mirrored=mirrored)
    assert example["image"].shape == (64, 128, 3)
    np.testing.assert_array_equal(example["size"], [64, 80])
    light = example["image"] > 127
    for index, label in enumerate((2, 0)):
        left, top, right, bottom = np.round(example["boxes"][index]).astype(int)
        assert light[top + 2 : bottom - 2, left + 2 : right - 2].all()
        assert not light[top - 3, left - 3 : right + 3].any()
        assert not light[top:bottom, left - 3].any()
        assert example["labels"][index] == label
    assert not np.any(example["image"][:, 80:])
    first = example["masks"][0]
    half = first[:, 10:] if mirrored else first[:, :10]
    assert half.all()
    assert first.sum() == half.sum(), "the first object fills the left half of its box"
    assert example["masks"][1].all()
    assert not example["masks"][2:].any(), "nobody asks for a crowd's mask"
    np.testing.assert_array_equal(example["there"], [True, True, True, False])
    np.testing.assert_array_equal(example["crowds"], [False, False, True, False])


def test_keypoints_change_sides_in_a_mirror(record):
    plain = example_of(record, SETTINGS, wide=True, mirrored=False)["keypoints"]
    mirrored = example_of(record, SETTINGS, wide=True, mirrored=True)["keypoints"]
    np.testing.assert_allclose(plain[0], [[9.6, 19.2, 2], [32, 20.8, 1]], rtol=1e-5)
    np.testing.assert_allclose(mirrored[0], [[80 - 32, 20.8, 1], [80 - 9.6, 19.2, 2]], rtol=1e-5)


def test_the_largest_objects_are_kept_and_crowds_go_first(record):
    settings = ExampleSettings(64, 100, most_objects=1, mask_size=0, num_keypoints=0)
    example = example_of(record, settings, wide=True, mirrored=False)
    assert example["labels"].tolist() == [2]
    assert set(example) == {"image", "size", "boxes", "labels", "there", "crowds"}


def test_an_image_without_objects(record):
    none = {"id": [], "bbox": [], "label": [], "area": [], "is_crowd": [], "segmentation": [], "keypoints": []}
    example = example_of({**record, "objects": none}, SETTINGS, wide=True, mirrored=True)
    assert not example["there"].any()
    assert example["masks"].shape == (4, 20, 20)


@pytest.mark.parametrize("orientation", [3, 6])
def test_images_of_turned_cameras_are_upright_like_their_annotations(record, orientation):
    """And lie as they are stored where only that is as large as annotated; of 180 degrees no size can tell."""
    expected = example_of(record, SETTINGS, wide=True, mirrored=False)["image"].astype(float)
    upright = Image.open(io.BytesIO(record["image"]))
    lying = upright.transpose({3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation])
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    lying.save(file, "jpeg", exif=exif, quality=98, subsampling=0)
    turned = {**record, "image": file.getvalue()}
    found = example_of(turned, SETTINGS, wide=True, mirrored=False)["image"]
    assert np.abs(found - expected).mean() < 2.8
    if orientation == 6:
        as_stored = {**turned, "image/size": np.array([lying.height, lying.width])}
        found = example_of(as_stored, SETTINGS, wide=False, mirrored=False)
        assert found["size"].tolist() == [80, 64]
        stretched = np.rot90(expected[:64, :80])
        assert np.abs(found["image"][:80, :64] - stretched).mean() < 2.8


def test_a_damaged_image_is_named(record):
    with pytest.raises(UserError, match="image 5 of the data set cannot be decoded"):
        example_of({**record, "image": record["image"][:60]}, SETTINGS, wide=True, mirrored=False)


def test_scales_keep_both_limits():
    settings = ExampleSettings(800, 1333, 1, 0, 0)
    assert settings.scale(480, 640) == pytest.approx(800 / 480)
    assert settings.scale(640, 480) == pytest.approx(800 / 480)
    assert settings.scale(300, 900) == pytest.approx(1333 / 900)
    assert settings.padded_size(wide=True) == (800, 1344)
    assert settings.padded_size(wide=False) == (1344, 800)


def test_an_epoch_has_every_image_at_most_once_in_batches_of_one_orientation():
    wide, tall = np.arange(0, 23), np.arange(100, 110)
    order = TrainOrder(wide, tall, batch_size=4, seed=3)
    assert order.batches_per_epoch == 5 + 2
    first = [order.batch(step) for step in range(7)]
    indices = np.concatenate([picked.indices for picked in first])
    assert len(set(indices.tolist())) == 28
    assert all(np.all(np.isin(picked.indices, wide if picked.wide else tall)) for picked in first)
    assert {picked.wide for picked in first[:4]} == {True, False}, "orientations are mixed, with this seed"
    again = TrainOrder(wide, tall, batch_size=4, seed=3).batch(6)
    np.testing.assert_array_equal(again.indices, first[6].indices)
    second = np.concatenate([order.batch(step).indices for step in range(7, 14)])
    assert second.tolist() != indices.tolist()


def test_a_split_without_an_object_to_learn_from_is_named():
    with pytest.raises(UserError, match=r"no image of the training split has an object .* detection\.with_empty=True"):
        TrainOrder(np.array([], int), np.array([], int), batch_size=2, seed=0)


def test_evaluation_has_every_image_once():
    batches = eval_order(np.arange(5), np.arange(5, 7), batch_size=2)
    indices = np.concatenate([picked.indices for picked in batches])
    assert sorted(indices[indices >= 0].tolist()) == list(range(7))
    assert [len(picked.indices) for picked in batches] == [2, 2, 2, 2]
