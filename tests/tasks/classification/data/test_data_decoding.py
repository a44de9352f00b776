"""Crops and decoding of real encoded images against NumPy."""

import functools
import io

import numpy as np
import pytest
from PIL import Image

from slimjax.tasks.classification.data import decoding
from slimjax.tensorflow_import import tf


def smooth_image(height: int, width: int) -> np.ndarray:
    """Waves, uint8 [height, width, 3]: something that JPEG and resampling change little."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 17 + y / 29), np.cos(y / 23), np.sin((x - y) / 31)]
    return np.rint(127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def encode(image: np.ndarray | Image.Image, image_format: str) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, image_format, **({"quality": 95} if image_format == "JPEG" else {}))
    return buffer.getvalue()


def resize_axis(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes the first axis with a triangle filter as wide as the output's pixels."""
    scale = image.shape[0] / size
    centers = (np.arange(size)[:, np.newaxis] + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(image.shape[0]) - centers) / max(scale, 1))
    return np.tensordot(weights / weights.sum(axis=1, keepdims=True), image, axes=1)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return resize_axis(resize_axis(image.astype(np.float64), height).swapaxes(0, 1), width).swapaxes(0, 1)


def decode_square(encoded: tf.Tensor, window_fn: decoding.WindowFn, size: int) -> np.ndarray:
    """The decoded columns as an image [size, size, 3] in 0..1."""
    return decoding.decode_square(encoded, window_fn, size).numpy().transpose(2, 0, 1) / np.float32(255)


def whole(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    return tf.stack([0, 0, height, width])


@pytest.mark.parametrize("window", [(0, 0, 120, 160), (11, 23, 64, 64), (57, 3, 63, 157), (100, 140, 1, 1)])
def test_crop_on_decode_equals_decode_then_crop(window: tuple[int, int, int, int]) -> None:
    encoded = encode(smooth_image(120, 160), "JPEG")
    top, left, height, width = window
    expected = tf.io.decode_jpeg(encoded, channels=3).numpy()[top : top + height, left : left + width]
    cropped = decoding._decode_jpeg(tf.constant(encoded), lambda *_: tf.constant(window)).numpy()
    # libjpeg interpolates colour across what it decodes, so the crop's rim may differ by a few levels.
    np.testing.assert_allclose(cropped.astype(int), expected.astype(int), atol=4)
    np.testing.assert_array_equal(cropped[2:-2, 2:-2], expected[2:-2, 2:-2])


@pytest.mark.parametrize(("height", "width"), [(120, 160), (200, 90)])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_evaluation_resizes_and_crops_the_centre(height: int, width: int, image_format: str) -> None:
    encoded = encode(smooth_image(height, width), image_format)
    image = tf.io.decode_image(encoded, channels=3).numpy()
    window_fn = functools.partial(decoding.center_window, image_size=56, eval_resize=64)
    square = decode_square(tf.constant(encoded), window_fn, 56)
    shorter = min(height, width)
    resized = resize(image, round(height * 64 / shorter), round(width * 64 / shorter))
    top, left = (resized.shape[0] - 56) // 2, (resized.shape[1] - 56) // 2
    difference = np.abs(square * 255 - resized[top : top + 56, left : left + 56])
    # The crop is taken before the resizing, to whole pixels, which may move it by half a pixel: of waves this steep,
    # by up to some 8 levels.
    assert difference.max() < 10
    assert difference.mean() < 2


def test_resizing_is_antialiased() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    square = decode_square(tf.constant(encode(image, "PNG")), whole, 20)
    np.testing.assert_allclose(square * 255, resize(image, 20, 20), atol=0.01)


@pytest.mark.parametrize(("height", "width", "size"), [(328, 328, 224), (61, 143, 32), (40, 30, 64), (1, 7, 16)])
def test_resizing_equals_tensorflows(height: int, width: int, size: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = tf.image.resize(image, [size, size], antialias=True).numpy()
    np.testing.assert_array_equal(decoding._resized_columns(tf.constant(image), size), expected.transpose(1, 2, 0))


@pytest.mark.parametrize(("height", "width", "size"), [(328, 328, 224), (61, 143, 32), (40, 30, 64)])
def test_resizing_is_pillows(height: int, width: int, size: int) -> None:
    """The published recipes were trained on images that Pillow resized."""
    image = Image.fromarray(smooth_image(height, width))
    expected = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), np.float32)
    resized = decoding._resized_columns(tf.constant(np.asarray(image)), size).numpy().transpose(2, 0, 1)
    # Pillow rounds to whole levels after each of two passes.
    assert np.abs(resized - expected).max() < 1.1


def test_plain_evaluation_of_a_square_is_the_image() -> None:
    image = smooth_image(32, 32)
    window_fn = functools.partial(decoding.center_window, image_size=32, eval_resize=32)
    square = decode_square(tf.constant(encode(image, "PNG")), window_fn, 32)
    np.testing.assert_array_equal(square, image.astype(np.float32) / 255)


@pytest.mark.parametrize("area_range", [(0.08, 1.0), (0.25, 1.0)])
def test_random_windows_cover_the_allowed_range(area_range: tuple[float, float]) -> None:
    sample = tf.function(functools.partial(decoding.random_window, area_range=area_range))
    height, width = tf.constant(300), tf.constant(400)
    windows = np.array([sample(height, width, seed=tf.constant([5, index], tf.int64)) for index in range(1000)])
    top, left, heights, widths = windows.T
    assert min(top.min(), left.min()) == 0
    assert (top + heights).max() <= 300
    assert (left + widths).max() <= 400
    areas, ratios = heights * widths / (300 * 400), widths / heights
    assert area_range[0] - 0.01 < areas.min() < area_range[0] + 0.03
    assert areas.max() > 0.9
    assert 3 / 4 - 0.02 < ratios.min() < 0.77
    assert 1.3 < ratios.max() < 4 / 3 + 0.02
    # Below the areas that may not fit, areas are uniform: the median of those under .7 lies in the middle.
    small = areas[areas < 0.7]
    assert abs(np.median(small) - (area_range[0] + 0.7) / 2) < 0.04


@pytest.mark.parametrize(("height", "width", "expected"), [(8, 1000, (0, 494, 8, 11)), (1000, 8, (494, 0, 11, 8))])
def test_a_window_that_never_fits_falls_back_to_the_centre(
    height: int, width: int, expected: tuple[int, int, int, int]
) -> None:
    window = decoding.random_window(
        tf.constant(height), tf.constant(width), area_range=(0.25, 1.0), seed=tf.constant([0, 0], tf.int64)
    )
    assert tuple(window.numpy()) == expected


def test_every_colour_model_becomes_rgb() -> None:
    image = Image.fromarray(smooth_image(40, 40))
    expected = np.asarray(image, np.float32)
    grey = np.asarray(image.convert("L"), np.float32)[..., np.newaxis].repeat(3, axis=-1)
    for encoded, reference in [
        (encode(image, "JPEG"), expected),
        (encode(image.convert("CMYK"), "JPEG"), expected),
        (encode(image.convert("RGBA"), "PNG"), expected),
        (encode(image, "BMP"), expected),
        (encode(image.convert("L"), "JPEG"), grey),
        (encode(image.convert("L"), "PNG"), grey),
        (encode(image.convert("L"), "GIF"), grey),
    ]:
        square = decode_square(tf.constant(encoded), whole, 40)
        assert np.abs(square * 255 - reference).mean() < 3
