"""Images are made upright as Pillow does, whatever else is in their tags."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from slimjax.tasks.detection.data.decoding import decoded

_RESOLUTION = 0x011A


def jpeg(orientation):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:5, :10], pixels[10:] = (255, 0, 0), (0, 0, 255)
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112], exif[_RESOLUTION] = orientation, 72.0
    Image.fromarray(pixels).save(file, "jpeg", exif=exif)
    return file


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_made_upright_as_pillow_does(orientation):
    file = jpeg(orientation)
    with Image.open(file) as stored:
        expected = ImageOps.exif_transpose(stored)
    np.testing.assert_array_equal(decoded(file), expected)
    np.testing.assert_array_equal(decoded(file, (expected.height, expected.width)), expected)


def test_a_size_that_only_the_stored_image_has_keeps_it_as_stored():
    assert decoded(jpeg(6)).size == (20, 30)
    assert decoded(jpeg(6), annotated_size=(20, 30)).size == (30, 20)
    assert decoded(jpeg(6), annotated_size=(25, 25)).size == (20, 30)


def test_damage_in_another_tag_costs_nothing():
    """The resolution is of a type that Pillow cannot write again, which its own function for turning images does."""
    content = jpeg(6).getvalue()
    entry = _RESOLUTION.to_bytes(2, "big")
    assert content.count(entry) == 1
    place = content.index(entry) + 2
    damaged = content[:place] + (2).to_bytes(2, "big") + content[place + 2 :]
    assert decoded(io.BytesIO(damaged)).size == (20, 30)


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_grey_images_of_16_bits_are_scaled(mode):
    grey = np.array([[0, 257 * 3, 30000, 65535]], np.uint16 if mode == "I;16" else np.int32)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG" if mode == "I;16" else "TIFF")
    pixels = np.asarray(decoded(io.BytesIO(file.getvalue())))
    np.testing.assert_array_equal(pixels[0], np.repeat([[0], [3], [117], [255]], 3, axis=1))
