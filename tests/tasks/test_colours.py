"""How networks see images, against one pixel at a time."""

import jax
import numpy as np

from slimjax.tasks import colours


def seen_by_hand(batch, place):
    """What a network sees of the value at [image, row, column, colour]."""
    image, row, column, colour = place
    if "size" in batch and (row >= batch["size"][image][0] or column >= batch["size"][image][1]):
        return 0.0
    value = float(batch["image"][place]) + (float(batch["noise"][image][colour]) if "noise" in batch else 0.0)
    return (value / 255 - (0.485, 0.456, 0.406)[colour]) / (0.229, 0.224, 0.225)[colour]


def test_images_are_normalised_on_the_host_and_on_devices_alike(rng):
    images = rng.integers(0, 256, (3, 4, 5, 3), np.uint8)
    noise = rng.normal(size=(3, 3)).astype(np.float32)
    sizes = np.array([[4, 5], [2, 5], [3, 1]], np.float32)
    for batch in ({"image": images}, {"image": images, "noise": noise}, {"image": images, "size": sizes}):
        expected = np.array([seen_by_hand(batch, place) for place in np.ndindex(images.shape)]).reshape(images.shape)
        for normalised in (colours.normalised(batch), jax.jit(colours.normalised)(batch)):
            assert normalised.dtype == np.float32
            np.testing.assert_allclose(normalised, expected, rtol=1e-5, atol=1e-6)


def test_noise_of_less_than_a_grey_level_is_not_lost():
    batch = {"image": np.full((1, 2, 2, 3), 100, np.uint8)}
    noisy = colours.normalised(batch | {"noise": np.full((1, 3), 0.25, np.float32)})
    np.testing.assert_allclose((noisy - colours.normalised(batch)) * colours.STDDEV * 255, 0.25, rtol=1e-3)
