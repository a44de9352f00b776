"""Every line that a user's mistake gives."""

import pathlib
import time
from typing import Any

import ml_collections
import pytest

from slimjax.errors import UserError
from slimjax.tasks.classification import data


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded, wherever the tests run: the proxy's port is closed."""
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"augmentation": "incepton"}, r"='incepton' does not exist; choose one of none, basic, .*mean 'inception'\?"),
        ({"image_size": 0}, r"dataset.image_size=0 is not a positive number"),
        ({"shuffle_buffer": 0}, r"dataset.shuffle_buffer=0 is not a positive number"),
        ({"image_size": 16}, r"dataset.eval_resize=8 is smaller than the crop .*; give dataset.image_size=16 or more"),
        ({"color_jitter": 1.5}, r"dataset.color_jitter=1.5 is outside 0..1"),
        ({"pca_noise": -0.1}, r"dataset.pca_noise=-0.1 is negative"),
        ({"name": "digit"}, r"dataset.name='digit' does not exist \(did you mean 'digits'"),
        ({"name": "cifar01"}, r"dataset.name='cifar01' does not exist \(did you mean 'cifar10'"),
        ({"name": "somebody:cifar10"}, r"dataset.name='somebody:cifar10' does not exist"),
        ({"name": "two words"}, r"dataset.name='two words' cannot be opened"),
        ({"name": "digits:2.0.0"}, r"dataset.name='digits:2.0.0' cannot be opened"),
        ({"name": "imagenet_resized/9x9"}, r"dataset.name='imagenet_resized/9x9' cannot be opened"),
        ({"name": "imdb_reviews"}, r"is not an image-classification data set: it has .*text: Text"),
        ({"name": "coco/instances"}, r"is not an image-classification data set: it has "),
        ({"train_split": "training"}, r"dataset.train_split='training' is not a split .* train \(1442 examples\)"),
        ({"train_split": "train[:"}, r"dataset.train_split='train\[:' is not a split"),
        ({"eval_split": "test[:0]"}, r"dataset.eval_split='test\[:0\]' holds no example"),
    ],
)
def test_config_errors(dataset_config: ml_collections.ConfigDict, changes: dict[str, Any], line: str) -> None:
    dataset_config.update(changes)
    with pytest.raises(UserError, match=line) as raised:
        data.load_info(dataset_config)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"batch_size": 10, "process_count": 4}, r"batch_size=10 cannot be shared by 4 processes; .* multiple of 4"),
        ({"batch_size": 0}, r"batch_size=0 cannot be shared by 1 processes"),
        ({"batch_size": 8, "process_index": 2, "process_count": 2}, r"process_index=2 is not one of 2 processes"),
    ],
)
def test_batch_errors(dataset_config: ml_collections.ConfigDict, arguments: dict[str, int], line: str) -> None:
    with pytest.raises(UserError, match=line):
        data.train_batches(dataset_config, seed=0, **arguments)
    with pytest.raises(UserError, match=line):
        data.eval_batches(dataset_config, **arguments)


def test_fewer_training_examples_than_hosts(dataset_config: ml_collections.ConfigDict) -> None:
    dataset_config.train_split = "train[:3]"
    with pytest.raises(UserError, match=r"dataset.train_split='train\[:3\]' holds 3 examples for 4 devices"):
        data.train_batches(dataset_config, batch_size=8, seed=0, process_count=4)


@pytest.mark.parametrize("name", ["imagenet2012", "folder"])
def test_a_bucket_without_a_network(dataset_config: ml_collections.ConfigDict, name: str) -> None:
    dataset_config.update(name=name, data_dir="gs://some-bucket/tfds")
    began = time.monotonic()
    with pytest.raises(UserError, match=r"data_dir=gs://some-bucket/tfds cannot be read: there is no connection"):
        data.load_info(dataset_config)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist"])
def test_a_data_set_that_cannot_be_downloaded(
    dataset_config: ml_collections.ConfigDict, tmp_path: pathlib.Path, name: str
) -> None:
    if name == "fashion_mnist" and pathlib.Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("this machine has Debian's files, from which the data set would be made")
    dataset_config.update(name=name, data_dir=str(tmp_path))
    start = time.monotonic()
    with pytest.raises(
        UserError,
        match=rf"data set '{name}' is not in .*no connection to .*`python -m slimjax.prepare --dataset={name} ",
    ) as raised:
        data.load_info(dataset_config)
    assert time.monotonic() - start < 20
    assert "\n" not in str(raised.value)
    assert ("apt install dataset-fashion-mnist" in str(raised.value)) == (name == "fashion_mnist")


def test_a_data_set_that_must_be_fetched_by_hand(
    dataset_config: ml_collections.ConfigDict, tmp_path: pathlib.Path
) -> None:
    dataset_config.update(name="imagenet2012", data_dir=str(tmp_path))
    line = (
        r"must be fetched by hand: put the files into a folder DIR \(.*ILSVRC2012_img_train.tar.*"
        r"`python -m slimjax.prepare --dataset=imagenet2012 --data_dir=.* --manual_dir=DIR`"
    )
    with pytest.raises(UserError, match=line) as raised:
        data.load_info(dataset_config)
    assert "\n" not in str(raised.value)


def test_a_data_dir_that_cannot_be_written(dataset_config: ml_collections.ConfigDict, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("in the way")
    dataset_config.data_dir = str(tmp_path / "file")
    with pytest.raises(UserError, match=r"file.*; (give|see) ") as raised:
        data.load_info(dataset_config)
    assert "\n" not in str(raised.value)
