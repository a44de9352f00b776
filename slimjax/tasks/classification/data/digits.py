"""scikit-learn's handwritten digits as a tfds data set: real images that need no download."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from slimjax.tensorflow_import import tfds

_MAX_VALUE = 16
_TEST_EVERY = 5


class Digits(tfds.core.GeneratorBasedBuilder):
    """1,797 grey images of 8x8 pixels: 1,442 to train on, 355 to test on.

    The last of every five examples of a class, in scikit-learn's order, is for testing: stratified, and the same with
    every version of every library.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "The 1,797 digits of sklearn.datasets.load_digits."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Optical recognition of handwritten digits (UCI), as carried by scikit-learn.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.rint(digits.images * (255 / _MAX_VALUE)).astype(np.uint8)[..., np.newaxis]
        is_test = np.zeros(len(images), bool)
        for digit in range(10):
            is_test[np.flatnonzero(digits.target == digit)[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
        return {
            "train": self._generate_examples(images, digits.target, np.flatnonzero(~is_test)),
            "test": self._generate_examples(images, digits.target, np.flatnonzero(is_test)),
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, indices: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in indices.tolist():
            yield index, {"image": images[index], "label": int(labels[index])}
