"""Images of files as they are meant to be looked at, and what is drawn on them."""

import jax
import numpy as np
from PIL import Image

from slimjax.tasks.detection.data.examples import ExampleSettings
from slimjax.tasks.detection.finding import found_in
from slimjax.tasks.detection.pictures import drawn_on


def test_a_camera_that_was_turned_is_turned_back(detector, variables, tmp_path, rng):
    """Exif's orientation 6: what is stored has to be turned clockwise."""
    pixels = rng.integers(0, 255, (96, 64, 3), np.uint8)
    upright, turned = tmp_path / "upright.png", tmp_path / "turned.png"
    Image.fromarray(pixels).save(upright)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(pixels)).save(turned, exif=exif)
    settings = ExampleSettings(64, 96, most_objects=4, mask_size=0, num_keypoints=0)
    (_, (one, found)), (_, (other, same)) = found_in([upright, turned], detector, variables, settings, (0.5,))
    np.testing.assert_array_equal(np.asarray(one), pixels)
    np.testing.assert_array_equal(np.asarray(other), pixels)
    jax.tree.map(np.testing.assert_array_equal, found, same)


def test_keypoints_that_are_no_numbers_are_not_drawn():
    """An annotated object has some that nobody annotated."""
    detections = {
        "there": np.array([True]),
        "scores": np.array([1.0]),
        "labels": np.array([0]),
        "boxes": np.array([[100.0, 100, 200, 200]]),
        "keypoints": np.array([[[np.nan, np.nan, 0], [150, 150, 2]]]),
    }
    black = Image.new("RGB", (240, 240))
    drawn = np.asarray(drawn_on(black, detections, ["person"], least_score=0.5))
    assert not drawn[:80].any()
    assert drawn[150, 150].any()


def test_names_are_not_written_over_each_other(monkeypatch):
    """Two objects at one place: below the better one's name is the other's, in its own colour."""
    monkeypatch.setattr("slimjax.tasks.detection.pictures.COLOURS", ["red", "blue"])
    detections = {
        "there": np.array([True, True]),
        "scores": np.array([0.9, 0.8]),
        "labels": np.array([0, 1]),
        "boxes": np.array([[40.0, 70, 200, 200], [42, 70, 200, 200]]),
    }
    black = Image.new("RGB", (240, 240))
    drawn = np.asarray(drawn_on(black, detections, ["circle", "square"], least_score=0.5)).astype(int)
    # Rows in which there is much of a name's background.
    best, other = (
        np.flatnonzero((drawn[:, 45:85] == colour).all(-1).mean(1) > 0.3) for colour in ([255, 0, 0], [0, 0, 255])
    )
    assert len(best) > 5
    assert len(other) > 5
    assert not set(best) & set(other)


def test_names_stay_in_the_picture():
    detections = {
        "there": np.array([True]),
        "scores": np.array([1.0]),
        "labels": np.array([0]),
        "boxes": np.array([[230.0, 200, 239, 239]]),
    }
    black = Image.new("RGB", (240, 240))
    drawn, named = (
        np.asarray(drawn_on(black, detections, [name], least_score=0.5)).any(-1) for name in ("i", "a long name")
    )
    assert named.sum() > drawn.sum() + 100
