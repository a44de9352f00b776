"""Data sets of several files, in both formats, against scikit-learn's arrays."""

import collections
import pathlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from slimjax.tasks.classification.data.digits import Digits
from slimjax.tasks.classification.data.records import ArrayRecordSource, TfRecordSource
from slimjax.tasks.classification.data.splits import ExampleRange
from slimjax.tensorflow_import import silent_tfds, tf, tfds

SOURCES = {"tfrecord": TfRecordSource, "array_record": ArrayRecordSource}
NUM_FILES = 5


@pytest.fixture(scope="module", params=SOURCES)
def source(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> TfRecordSource | ArrayRecordSource:
    builder = Digits(data_dir=tmp_path_factory.mktemp(request.param))
    download_config = tfds.download.DownloadConfig(num_shards=NUM_FILES)
    with silent_tfds():
        builder.download_and_prepare(download_config=download_config, file_format=request.param)
    assert len(builder.info.splits["train"].filepaths) == NUM_FILES
    return SOURCES[request.param](builder)


def examples(
    source: TfRecordSource | ArrayRecordSource, ranges: tuple[ExampleRange, ...], seed: int | None
) -> list[tuple[str, int, int, bytes]]:
    """File, record, label and pixels of each."""
    seed = None if seed is None else tf.constant(seed, tf.int64)
    found = []
    # In a graph, as a stream does it.
    for example in source.references(ranges, seed).map(lambda reference: {**reference, **source.read(reference)}):
        pixels = tf.io.decode_png(example["image"]).numpy().tobytes()
        file = pathlib.Path(example["file"].numpy().decode()).name
        found.append((file, int(example["record"]), int(example["label"]), pixels))
    return found


def test_every_example_is_read_once(source: TfRecordSource | ArrayRecordSource) -> None:
    whole = tuple(ExampleRange(name, 0, split.num_examples) for name, split in source.splits.items())
    found = examples(source, whole, seed=None)
    digits = load_digits()
    pixels = np.rint(digits.images * 255 / 16).astype(np.uint8)
    expected = collections.Counter((label, image.tobytes()) for label, image in zip(digits.target, pixels, strict=True))
    assert collections.Counter((label, image) for _, _, label, image in found) == expected
    assert len({(file, record) for file, record, _, _ in found}) == len(found)


def test_ranges_across_files_are_what_they_say(source: TfRecordSource | ArrayRecordSource) -> None:
    everything = examples(source, (ExampleRange("train", 0, 1442),), seed=None)
    # In the order of files and of records, whatever order they were read in.
    by_place = sorted(everything)
    ranges = (ExampleRange("train", 200, 900), ExampleRange("train", 3, 5))
    assert sorted(examples(source, ranges, seed=None)) == sorted(by_place[200:900] + by_place[3:5])


def test_a_seed_orders_the_same_examples(source: TfRecordSource | ArrayRecordSource) -> None:
    ranges = (ExampleRange("train", 100, 1000),)
    stored = examples(source, ranges, seed=None)
    first, again, other = (examples(source, ranges, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first != stored
    assert sorted(first) == sorted(other) == sorted(stored)
