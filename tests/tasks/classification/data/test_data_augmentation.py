"""Pixel augmentations against NumPy."""

import numpy as np
import pytest

from slimjax.tasks import colours
from slimjax.tasks.classification.data import augmentation
from slimjax.tensorflow_import import tf

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.1, 0.9, (16, 16, 3)).astype(np.float32)


def to_columns(image: np.ndarray) -> tf.Tensor:
    """What augmentation works on: [width, 3, height] in 0..255."""
    return tf.constant(image.transpose(1, 2, 0) * np.float32(255))


def from_columns(columns: tf.Tensor) -> np.ndarray:
    return columns.numpy().transpose(2, 0, 1) / 255


def seeds(count: int) -> list[tf.Tensor]:
    return [tf.constant([7, index], tf.int64) for index in range(count)]


def test_flip_mirrors_half_of_the_images(image: np.ndarray) -> None:
    is_flipped = []
    for seed in seeds(200):
        flipped = augmentation.random_flip(to_columns(image), seed=seed)
        is_flipped.append(np.array_equal(flipped, to_columns(image[:, ::-1])))
        assert is_flipped[-1] or np.array_equal(flipped, to_columns(image))
    assert 70 < sum(is_flipped) < 130


def test_shift_reaches_every_offset_of_the_padded_image(image: np.ndarray) -> None:
    padded = np.pad(image, [(2, 2), (2, 2), (0, 0)])
    windows = {
        to_columns(padded[top : top + 16, left : left + 16]).numpy().tobytes(): (top, left)
        for top in range(5)
        for left in range(5)
    }
    shifted = (augmentation.random_shift(to_columns(image), seed=seed).numpy() for seed in seeds(300))
    assert {windows[shift.tobytes()] for shift in shifted} == set(windows.values())


def test_color_jitter_is_brightness_contrast_saturation(image: np.ndarray) -> None:
    for seed in seeds(20):
        brightness, contrast, saturation = tf.random.stateless_uniform([3], seed, 0.6, 1.4, alg="philox").numpy()
        expected = np.clip(image * brightness, 0, 1)
        expected = np.clip((expected @ LUMA).mean() * (1 - contrast) + expected * contrast, 0, 1)
        expected = np.clip((expected @ LUMA)[..., np.newaxis] * (1 - saturation) + expected * saturation, 0, 1)
        jittered = from_columns(augmentation.color_jitter(to_columns(image), strength=0.4, seed=seed))
        np.testing.assert_allclose(jittered, expected, atol=1e-5)


def test_color_jitter_of_plain_grey_shows_the_range_of_brightness() -> None:
    grey = tf.fill([4, 3, 4], 127.5)
    levels = [from_columns(augmentation.color_jitter(grey, strength=0.4, seed=seed)) for seed in seeds(300)]
    assert all(np.ptp(level) < 1e-6 for level in levels)
    means = np.array([level.mean() for level in levels])
    assert 0.3 <= means.min() < 0.32
    assert 0.68 < means.max() <= 0.7


def test_pca_noise_is_a_colour_of_the_right_spread() -> None:
    added = [augmentation.pca_noise(stddev=0.1, seed=seed) for seed in seeds(1000)]
    noise = np.stack(added) / 255
    assert (np.abs(noise).max(axis=1) > 1e-5).all()
    # Less than one grey level at times: on 8-bit images such noise would be lost.
    assert (np.abs(noise).max(axis=1) < 1 / 255).any()
    vectors, values = np.array(colours.EIGENVECTORS), np.array(colours.EIGENVALUES)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=2e-3)
    expected_covariance = vectors @ np.diag((0.1 * values) ** 2) @ vectors.T
    np.testing.assert_allclose(np.cov(noise.T), expected_covariance, rtol=0.15)
    assert (np.abs(noise.mean(axis=0)) < 4 * np.sqrt(np.diag(expected_covariance) / 1000)).all()


def test_images_are_whole_grey_levels() -> None:
    columns = np.random.default_rng(0).uniform(0, 255, (5, 3, 7)).astype(np.float32)
    columns[0, 0, :2] = 0, 255
    image = augmentation.to_image(tf.constant(columns)).numpy()
    np.testing.assert_array_equal(image, np.floor(columns.transpose(2, 0, 1) + 0.5).astype(np.uint8))


@pytest.mark.parametrize("size", [1, 7, 16])
@pytest.mark.parametrize(("value", "level"), [(-1.4, 0), (-0.4, 0), (255.4, 255), (256.0, 255)])
def test_what_is_slightly_out_of_range_is_clipped(size: int, value: float, level: int) -> None:
    """In few values as in many: TensorFlow's cast clips those that it takes together, and wraps what is left over."""
    image = augmentation.to_image(tf.fill([size, 3, size], value)).numpy()
    np.testing.assert_array_equal(image, np.full((size, size, 3), level, np.uint8))
