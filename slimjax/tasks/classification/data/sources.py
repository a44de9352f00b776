"""Where encoded examples come from: the common form, tfds builders, and the choice by name."""

from collections.abc import Mapping
from typing import Protocol

import ml_collections

from slimjax.tasks.classification.data.folder import FolderSource
from slimjax.tasks.classification.data.prepare import find_builder, open_builder
from slimjax.tasks.classification.data.splits import ExampleRange
from slimjax.tensorflow_import import silent_tfds, tf, tfds

Example = Mapping[str, tf.Tensor]


class Source(Protocol):
    """A data set whose images are still encoded, so that skipping an example costs next to nothing."""

    class_names: tuple[str, ...]
    splits: tfds.core.SplitDict

    def references(self, ranges: tuple[ExampleRange, ...], seed: tf.Tensor | None) -> tf.data.Dataset:
        """The examples of the ranges, each exactly once.

        Args:
          ranges: which examples.
          seed: int64 scalar that decides a coarse order, the same one each time; None keeps the stored order.

        Returns:
          A data set of what `read` turns into examples.
        """

    def read(self, reference: Example) -> Example:
        """`image`: encoded string scalar, `label`: int64 scalar."""


class TfdsSource:
    """The examples of a prepared tfds builder."""

    def __init__(self, builder: tfds.core.DatasetBuilder) -> None:
        self._builder = builder
        self.class_names = tuple(builder.info.features["label"].names)
        self.splits = builder.info.splits

    def references(self, ranges: tuple[ExampleRange, ...], seed: tf.Tensor | None) -> tf.data.Dataset:
        """See `Source`. The coarse order is the order of the files."""
        instructions = [tfds.core.ReadInstruction(part.split, part.start, part.stop, unit="abs") for part in ranges]
        in_stored_order = seed is None or self._builder.info.disable_shuffling
        with silent_tfds():
            return self._builder.as_dataset(
                split=sum(instructions[1:], start=instructions[0]),
                shuffle_files=not in_stored_order,
                read_config=tfds.ReadConfig(
                    shuffle_seed=seed, shuffle_reshuffle_each_iteration=False, try_autocache=False, skip_prefetch=True
                ),
                decoders=tfds.decode.PartialDecoding(
                    {"image": True, "label": True}, decoders={"image": tfds.decode.SkipDecoding()}
                ),
            )

    def read(self, reference: Example) -> Example:
        """The references are the examples."""
        return reference


def open_source(dataset_config: ml_collections.ConfigDict) -> Source:
    """Opens the data set that the config names, and prepares it if that needs nobody's help.

    Raises:
      UserError: if there is no such data set, it has no images and labels, or it is not there and cannot be fetched.
    """
    if dataset_config.name == "folder":
        return FolderSource(dataset_config.data_dir)
    return TfdsSource(open_builder(dataset_config.name, dataset_config.data_dir))


def class_names(dataset_config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The classes of the data set that the config names. Only those of an image folder need its files.

    Raises:
      UserError: if there is no such data set, or it has no images and labels.
    """
    if dataset_config.name == "folder":
        return open_source(dataset_config).class_names
    return tuple(find_builder(dataset_config.name, dataset_config.data_dir).info.features["label"].names)
