"""One prepared copy of the digits for the whole directory, and a plain config on it."""

import pathlib

import ml_collections
import pytest


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Where the digits are prepared, on first use."""
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture
def dataset_config(digits_dir: pathlib.Path) -> ml_collections.ConfigDict:
    """The digits at their own size, with no augmentation."""
    return ml_collections.ConfigDict(
        {
            "name": "digits",
            "data_dir": str(digits_dir),
            "train_split": "train",
            "eval_split": "test",
            "image_size": 8,
            "eval_resize": 8,
            "augmentation": "none",
            "flip": False,
            "color_jitter": 0.0,
            "pca_noise": 0.0,
            "shuffle_buffer": 500,
        }
    )
