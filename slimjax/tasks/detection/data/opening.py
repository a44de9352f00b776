"""From a configuration to a data set that is ready to be read, prepared if that needs nobody's help."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from slimjax.errors import UserError
from slimjax.tasks.builders import check_detection, open_builder
from slimjax.tasks.dataset_info import DatasetInfo
from slimjax.tasks.detection.data.examples import Example, ExampleSettings
from slimjax.tasks.detection.data.mirroring import mirrored_keypoints, told_pairs
from slimjax.tasks.detection.data.pipeline import eval_batches, num_eval_batches, train_batches, train_order
from slimjax.tasks.detection.data.source import Split
from slimjax.tasks.detection.evaluation import Categories, GroundTruth, all_results, write_results
from slimjax.tasks.task import Figures
from slimjax.tensorflow_import import tfds


class DetectionData:
    """The splits that a run trains and is evaluated on.

    Attributes:
      info: of the data set, for this batch size.
      num_eval_batches: of one evaluation.
    """

    def __init__(
        self, config: ConfigDict, settings: ExampleSettings, categories: Categories, train: Split, evaluation: Split
    ) -> None:
        """Puts together what `open_data` has opened.

        Args:
          config: a whole configuration, see configs/default.py.
          settings: of the layout of examples.
          categories: of the data set.
          train: the split to train on.
          evaluation: the split to evaluate on.

        Raises:
          UserError: if the images that are trained on fill no batch.
        """
        self._config, self._settings, self._categories = config, settings, categories
        self._train, self._evaluation = train, evaluation
        self._order = train_order(train, config.batch_size, config.seed, config.detection.with_empty)
        self.num_eval_batches = num_eval_batches(evaluation, config.batch_size)
        self.info = DatasetInfo(
            name=config.dataset.name,
            num_classes=len(categories.names),
            num_train_examples=self._order.batches_per_epoch * config.batch_size,
            num_eval_examples=len(evaluation),
            class_names=categories.names,
            class_ids=categories.ids,
        )

    def train_batches(self, start_step: int, process_index: int, process_count: int) -> Iterator[Example]:
        """Endless batches of a host from a step on.

        Where keypoints are learned from mirrored images without changing places, as those of objects without sides may
        and all others must not, the first host says so on stderr.
        """
        settings, names = self._settings, self._categories.keypoints
        flips_keypoints = settings.flip and settings.num_keypoints > 0
        if process_index == 0 and flips_keypoints and settings.mirrored_keypoints == tuple(range(len(names))):
            print(f"dataset.flip=True, and {told_pairs(names)}", file=sys.stderr)
        process = process_index, process_count
        return train_batches(
            self._train, self._order, self._settings, seed=self._config.seed, start_step=start_step, process=process
        )

    def eval_batches(self, process_index: int, process_count: int) -> Iterator[Example]:
        """Every image of the evaluation split once over all hosts."""
        return eval_batches(self._evaluation, self._settings, self._config.batch_size, (process_index, process_count))

    def eval_file_name(self, index: int) -> str:
        """Of an image of the evaluation split, below the folder of its images."""
        return self._evaluation.file_name(index)

    def figures(self, batches: Sequence[Mapping[str, Any]], results: epath.Path | None = None) -> Figures:
        """Average precisions of what was found in all images.

        Args:
          batches: see `slimjax.tasks.detection.metrics.Found`.
          results: how the names of the files begin that it is written to, see `write_results`; None writes none.
        """
        truth = self._truth
        found = all_results(batches, truth.images, self._categories.ids)
        if results is not None:
            write_results(found, self._parts, results)
        return truth.figures(found)

    @property
    def _parts(self) -> tuple[str, ...]:
        section = self._config.detection
        return ("bbox", *(("segm",) if section.masks else ()), *(("keypoints",) if section.num_keypoints else ()))

    @cached_property
    def _truth(self) -> GroundTruth:
        return GroundTruth(self._evaluation, self._categories, self._parts)


def categories_of(dataset_config: ConfigDict) -> Categories:
    """What the objects of a data set are; UserError as `open_data`."""
    return _categories(open_builder(dataset_config.name, dataset_config.data_dir, check_detection))


def _categories(builder: tfds.core.DatasetBuilder) -> Categories:
    metadata = builder.info.metadata
    return Categories(*(tuple(metadata[key]) for key in ("category_names", "category_ids", "keypoint_names")))


def open_data(config: ConfigDict, settings: ExampleSettings) -> DetectionData:
    """Opens the data set that a configuration names.

    Args:
      config: a whole configuration, see configs/default.py.
      settings: of the layout of examples.

    Raises:
      UserError: if there is no such data set, it is of another kind, it is not there, has no such split, or other
        keypoints than asked for.
    """
    dataset = config.dataset
    builder = open_builder(dataset.name, dataset.data_dir, check_detection)
    categories = _categories(builder)
    count = len(categories.keypoints)
    if config.detection.num_keypoints not in (0, count):
        raise UserError(
            f"detection.num_keypoints={config.detection.num_keypoints}, but objects of data set {dataset.name!r} have "
            f"{count}; set it to that, or to 0"
        )
    settings = replace(settings, mirrored_keypoints=tuple(mirrored_keypoints(categories.keypoints)))
    train, evaluation = (Split(builder, key, dataset[key]) for key in ("train_split", "eval_split"))
    return DetectionData(config, settings, categories, train, evaluation)
