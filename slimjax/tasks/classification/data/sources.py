"""Where encoded examples come from: the common form, and the choice by name and file format."""

from collections.abc import Callable, Mapping
from typing import Protocol

import ml_collections

from slimjax.buckets import check_bucket
from slimjax.errors import UserError
from slimjax.tasks.builders import check_classification, find_builder, open_builder
from slimjax.tasks.classification.data.folder import FolderSource
from slimjax.tasks.classification.data.records import ArrayRecordSource, TfRecordSource
from slimjax.tasks.classification.data.splits import ExampleRange
from slimjax.tensorflow_import import tf, tfds

Example = Mapping[str, tf.Tensor]


class Source(Protocol):
    """A data set whose images are still encoded, so that skipping an example costs next to nothing."""

    class_names: tuple[str, ...]
    splits: tfds.core.SplitDict

    def references(self, ranges: tuple[ExampleRange, ...], seed: tf.Tensor | None) -> tf.data.Dataset:
        """The examples of the ranges, each exactly once, also those that turn out to be damaged.

        Args:
          ranges: which examples.
          seed: int64 scalar that decides a coarse order, the same one each time; None is an order of its own.

        Returns:
          A data set of what `read` turns into examples; of each, `file` is where it is stored, string scalar, and
          `record` its number in there, int64 scalar, WHOLE_FILE if the file has no other.
        """

    def read(self, reference: Example) -> Example:
        """`image`: encoded string scalar, `label`: int64 scalar. What cannot be read is empty, or raises."""


_FORMATS: dict[str, Callable[[tfds.core.DatasetBuilder], Source]] = {
    "tfrecord": TfRecordSource,
    "array_record": ArrayRecordSource,
}


def open_source(dataset_config: ml_collections.ConfigDict) -> Source:
    """Opens the data set that the config names, and prepares it if that needs nobody's help.

    Raises:
      UserError: if there is no such data set, it has no images and labels, it is not there and cannot be fetched, or
        its files are of a format that is not read here.
    """
    if dataset_config.name == "folder":
        check_bucket(dataset_config.data_dir, "dataset.data_dir")
        return FolderSource(dataset_config.data_dir)
    builder = open_builder(dataset_config.name, dataset_config.data_dir, check_classification)
    file_format = builder.info.file_format.value
    if file_format not in _FORMATS:
        raise UserError(
            f"data set {dataset_config.name!r} in {builder.data_dir} has files of the format {file_format}; prepare it "
            f"as one of {', '.join(_FORMATS)}: python -m slimjax.prepare --file_format=..."
        )
    return _FORMATS[file_format](builder)


def class_names(dataset_config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The classes of the data set that the config names. Only those of an image folder need its files.

    Raises:
      UserError: if there is no such data set, or it has no images and labels.
    """
    if dataset_config.name == "folder":
        return open_source(dataset_config).class_names
    builder = find_builder(dataset_config.name, dataset_config.data_dir, check_classification)
    return tuple(builder.info.features["label"].names)
