"""One prepared copy of the digits for the whole directory, and a plain config on it."""

import pathlib
import shutil

import ml_collections
import pytest
from miniature_imagenet import write_tars


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
            "skip_damaged": False,
        }
    )


@pytest.fixture(scope="session")
def imagenet_tars(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of a miniature ImageNet's tar files."""
    folder = tmp_path_factory.mktemp("tars")
    write_tars(folder)
    return folder


@pytest.fixture(scope="session")
def imagenet_dirs(imagenet_tars: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """The miniature ImageNet as tfds's own builder writes it, by file format."""
    from slimjax.tasks.builders import prepare

    folders = {file_format: tmp_path_factory.mktemp(file_format) for file_format in ("tfrecord", "array_record")}
    for file_format, folder in folders.items():
        prepare("imagenet2012", str(folder), str(imagenet_tars), file_format)
    return folders


@pytest.fixture(params=["tfrecord", "array_record"])
def imagenet_config(
    dataset_config: ml_collections.ConfigDict,
    imagenet_dirs: dict[str, pathlib.Path],
    request: pytest.FixtureRequest,
    tmp_path: pathlib.Path,
) -> ml_collections.ConfigDict:
    """A copy of the miniature ImageNet, to be damaged at will, with the published rows' augmentation."""
    folder = tmp_path / "tfds"
    shutil.copytree(imagenet_dirs[request.param], folder)
    dataset_config.update(
        name="imagenet2012",
        data_dir=str(folder),
        eval_split="validation",
        image_size=32,
        eval_resize=36,
        augmentation="mobile",
        flip=True,
        shuffle_buffer=16,
    )
    return dataset_config
