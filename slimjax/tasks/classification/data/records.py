"""Prepared tfds data sets: TFRecord files, read in sequence, and ArrayRecord files, read at any place."""

import os
import resource
from collections.abc import Mapping

import numpy as np

# tfds depends on it where there are builds of it, which is on Linux.
try:
    from array_record.python.array_record_data_source import ArrayRecordDataSource
except ImportError:
    ArrayRecordDataSource = None

from slimjax.errors import UserError
from slimjax.tasks.classification.data.splits import ExampleRange, count_examples, places
from slimjax.tensorflow_import import tf, tfds

Reference = Mapping[str, tf.Tensor]

# As tfds reads: enough files at once for storage that is far away, in runs long enough for a disk.
_FILES_AT_ONCE = 16
_RECORDS_AT_ONCE = 16
_BUFFER_BYTES = 8 << 20
_OTHER_OPEN_FILES = 512


class TfRecordSource:
    """The examples of a tfds data set in TFRecord files."""

    def __init__(self, builder: tfds.core.DatasetBuilder) -> None:
        self.class_names = tuple(builder.info.features["label"].names)
        self.splits = builder.info.splits

    def references(self, ranges: tuple[ExampleRange, ...], seed: tf.Tensor | None) -> tf.data.Dataset:
        """See `Source`: the records themselves. Files take turns; their order is the coarse one."""
        files = _files_of(self.splits, ranges)
        dataset = tf.data.Dataset.from_tensor_slices(
            {
                "file": [os.fspath(file.filename) for file in files],
                "first": np.array([file.skip for file in files], np.int64),
                "count": np.array([file.take for file in files], np.int64),
            }
        )
        if seed is not None:
            dataset = dataset.shuffle(len(files), seed, reshuffle_each_iteration=False)
        return dataset.interleave(
            _records_of_file,
            cycle_length=_FILES_AT_ONCE,
            block_length=_RECORDS_AT_ONCE,
            num_parallel_calls=_FILES_AT_ONCE,
            deterministic=True,
        )

    def read(self, reference: Reference) -> dict[str, tf.Tensor]:
        """Takes the record apart."""
        return _parse(reference["content"])


class ArrayRecordSource:
    """The examples of a tfds data set in ArrayRecord files, of which nothing is read before it is wanted."""

    def __init__(self, builder: tfds.core.DatasetBuilder) -> None:
        """Opens no file yet.

        Raises:
          UserError: where the package array-record is missing.
        """
        if ArrayRecordDataSource is None:
            raise UserError(
                f"data set {builder.name!r} in {builder.data_dir} is in ArrayRecord files, which need the package "
                "array-record; install it, or prepare the data set with --file_format=tfrecord"
            )
        self.class_names = tuple(builder.info.features["label"].names)
        self.splits = builder.info.splits
        self._readers: dict[str, ArrayRecordDataSource] = {}

    def references(self, ranges: tuple[ExampleRange, ...], seed: tf.Tensor | None) -> tf.data.Dataset:
        """See `Source`: places in files. The order by seed is a full permutation, in constant memory."""
        files = _files_of(self.splits, ranges)
        _allow_open_files(len({file.filename for file in files}))
        with tf.init_scope():
            paths = tf.constant([os.fspath(file.filename) for file in files])
            firsts = tf.constant([file.skip for file in files], tf.int64)
            ends = tf.constant(np.cumsum([file.take for file in files]), tf.int64)

        def reference(place: tf.Tensor) -> dict[str, tf.Tensor]:
            file = tf.searchsorted(ends, place[tf.newaxis], side="right")[0]
            before = tf.where(file == 0, tf.constant(0, tf.int64), ends[file - 1])
            return {"file": paths[file], "record": firsts[file] + place - before}

        return places(count_examples(ranges), seed).map(reference)

    def read(self, reference: Reference) -> dict[str, tf.Tensor]:
        """Reads the record and takes it apart."""
        content = tf.numpy_function(self._content, [reference["file"], reference["record"]], tf.string)
        return _parse(tf.ensure_shape(content, []))

    def _content(self, file: bytes, record: np.int64) -> bytes:
        """The record's bytes; none where they cannot be read."""
        path = file.decode()
        try:
            if path not in self._readers:
                self._readers[path] = ArrayRecordDataSource(path)
            return self._readers[path][int(record)]
        # Whatever a damaged file makes of the reader, the example is one that cannot be read.
        except Exception:
            return b""


def _files_of(
    splits: tfds.core.SplitDict, ranges: tuple[ExampleRange, ...]
) -> list[tfds.core.utils.shard_utils.FileInstruction]:
    """The files that hold the ranges, in order, each with the records wanted of it."""
    return [file for part in ranges for file in splits[f"{part.split}[{part.start}:{part.stop}]"].file_instructions]


def _allow_open_files(count: int) -> None:
    """Raises this process's limit of open files where that many would not fit: every file read stays open.

    Raises:
      UserError: if the system does not allow as many.
    """
    wanted = count + _OTHER_OPEN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise UserError(
                f"{count} ArrayRecord files are more than this process may open ({hard}); raise `ulimit -n` to "
                f"{wanted}, or prepare the data set with --file_format=tfrecord"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _records_of_file(file: Reference) -> tf.data.Dataset:
    """The records wanted of a file, as many as it should hold: empty ones stand for those that cannot be read.

    So a damaged file leaves every other example in its place.
    """
    first, count = file["first"], file["count"]
    contents = tf.data.TFRecordDataset(file["file"], buffer_size=_BUFFER_BYTES).skip(first).ignore_errors()
    contents = contents.concatenate(tf.data.Dataset.from_tensors("").repeat()).take(count)
    records = tf.data.Dataset.range(first, first + count)
    return tf.data.Dataset.zip(contents, records).map(
        lambda content, record: {"file": file["file"], "record": record, "content": content}
    )


def _parse(content: tf.Tensor) -> dict[str, tf.Tensor]:
    """Image and label as tfds stores them; an empty image where there is no content."""
    features = {
        "image": tf.io.FixedLenFeature([], tf.string, default_value=""),
        "label": tf.io.FixedLenFeature([], tf.int64, default_value=0),
    }
    return tf.io.parse_single_example(content, features)
