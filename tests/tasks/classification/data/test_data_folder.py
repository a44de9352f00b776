"""Image folders with real files."""

import pathlib

import ml_collections
import numpy as np
import pytest
from PIL import Image

from slimjax.errors import UserError
from slimjax.tasks.classification import data
from slimjax.tasks.dataset_info import DatasetInfo


@pytest.fixture
def folder_config(dataset_config: ml_collections.ConfigDict, tmp_path: pathlib.Path) -> ml_collections.ConfigDict:
    """Two classes, told apart by colour: each file has its own shade; `b` is missing from the evaluation's folder."""
    for split, name, count in [("train", "a", 7), ("train", "b", 5), ("validation", "a", 3)]:
        folder = tmp_path / split / name
        folder.mkdir(parents=True)
        for index in range(count):
            colour = (20 * index + 10, 0, 0) if name == "a" else (0, 0, 20 * index + 10)
            Image.new("RGB", (12, 10), colour).save(folder / f"{index}.{('png', 'JPG', 'jpeg')[index % 3]}")
    (tmp_path / "train" / "a" / "notes.txt").write_text("not an image")
    dataset_config.update(name="folder", data_dir=str(tmp_path), eval_split="validation")
    return dataset_config


def shades(images: np.ndarray) -> np.ndarray:
    """The nearest shade, red and blue [batch, 2], of one-coloured images."""
    levels = images[:, 4, 4]
    return np.rint((levels[:, [0, 2]] - 10) / 20).astype(int)


def test_info_of_a_folder(folder_config: ml_collections.ConfigDict) -> None:
    assert data.load_info(folder_config) == DatasetInfo("folder", 2, 12, 3, ("a", "b"))


def test_every_device_trains_on_all_classes(folder_config: ml_collections.ConfigDict, tmp_path: pathlib.Path) -> None:
    for name, colour in (("a", 10), ("b", 90)):
        for index in range(100, 128):
            Image.new("RGB", (12, 10), (colour, 0, 0)).save(tmp_path / "train" / name / f"{index}.png")
    labels = [
        next(data.train_batches(folder_config, batch_size=64, seed=0, process_index=index, process_count=4))["label"]
        for index in range(4)
    ]
    assert all(set(of_device) == {0, 1} for of_device in labels), labels


def test_epochs_of_a_folder(folder_config: ml_collections.ConfigDict) -> None:
    batches = data.train_batches(folder_config, batch_size=12, seed=0)
    epochs = [next(batches) for _ in range(3)]
    assert len({tuple(shades(epoch["image"])[:, 0] * 10 + epoch["label"]) for epoch in epochs}) == 3
    for epoch in epochs:
        red, blue = shades(epoch["image"]).T
        assert sorted(red[epoch["label"] == 0]) == list(range(7))
        assert sorted(blue[epoch["label"] == 1]) == list(range(5))


def test_a_folder_resumes_exactly_without_a_shuffle_buffer(folder_config: ml_collections.ConfigDict) -> None:
    folder_config.update(shuffle_buffer=1, augmentation="inception")
    whole = data.train_batches(folder_config, batch_size=5, seed=0)
    expected = [next(whole) for _ in range(5)][4]
    resumed = next(data.train_batches(folder_config, batch_size=5, seed=0, start_step=4))
    np.testing.assert_array_equal(resumed["image"], expected["image"])
    # Full permutation: even without a buffer the classes are mixed.
    assert 0 < expected["label"].mean() < 1 or 0 < next(whole)["label"].mean() < 1


def test_evaluation_of_a_folder(folder_config: ml_collections.ConfigDict) -> None:
    (batch,) = data.eval_batches(folder_config, batch_size=4)
    np.testing.assert_array_equal(batch["mask"], [1, 1, 1, 0])
    np.testing.assert_array_equal(sorted(shades(batch["image"][:3])[:, 0]), [0, 1, 2])


def test_slices_of_a_folder(folder_config: ml_collections.ConfigDict) -> None:
    folder_config.update(train_split="train[:50%]", eval_split="train[50%:]+validation")
    info = data.load_info(folder_config)
    assert (info.num_train_examples, info.num_eval_examples) == (6, 9)


def test_a_broken_file_is_a_user_error(folder_config: ml_collections.ConfigDict, tmp_path: pathlib.Path) -> None:
    (tmp_path / "validation" / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xffnothing")
    with pytest.raises(UserError, match=r"is damaged: .*/a/broken.jpg cannot be read or decoded; replace it"):
        list(data.eval_batches(folder_config, batch_size=4))


def test_missing_and_empty_folders(folder_config: ml_collections.ConfigDict, tmp_path: pathlib.Path) -> None:
    folder_config.data_dir = str(tmp_path / "absent")
    with pytest.raises(UserError, match=r"absent' is not a folder; dataset.name='folder' wants SPLIT/CLASS/FILE"):
        data.load_info(folder_config)
    (tmp_path / "empty" / "train" / "a").mkdir(parents=True)
    folder_config.data_dir = str(tmp_path / "empty")
    with pytest.raises(UserError, match=r"empty' holds no images"):
        data.load_info(folder_config)
    folder_config.data_dir = ""
    with pytest.raises(UserError, match=r"dataset.data_dir='' with dataset.name='folder'; give the folder"):
        data.load_info(folder_config)
