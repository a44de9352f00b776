"""A split of a prepared data set in COCO's format, read at any place."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from slimjax.errors import UserError, did_you_mean
from slimjax.tasks.detection.data.coco import GROUPS, WIDE
from slimjax.tensorflow_import import tfds


class Split:
    """The images of one split, in the order in which they are stored."""

    def __init__(self, builder: tfds.core.DatasetBuilder, key: str, split: str) -> None:
        """Opens no file yet.

        Args:
          builder: of a prepared data set.
          key: of the configuration, for the error line.
          split: its name.

        Raises:
          UserError: if the data set has no such split.
        """
        splits = builder.info.splits
        if split not in splits:
            known = ", ".join(f"{name} ({found.num_examples} images)" for name, found in splits.items())
            raise UserError(f"dataset.{key}={split!r} does not exist{did_you_mean(split, splits)}; there is {known}")
        self._builder, self._split = builder, split
        counts = builder.info.metadata["group_counts"][split]
        ends = np.cumsum(counts)
        self._groups = {
            group: np.arange(end - count, end) for group, count, end in zip(GROUPS, counts, ends, strict=True)
        }

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def indices(self, wide: bool, with_empty: bool) -> np.ndarray:
        """Of the images of an orientation, those without objects only if asked for."""
        return np.concatenate(
            [
                indices
                for (orientation, is_empty), indices in self._groups.items()
                if (orientation == WIDE) == wide and (with_empty or not is_empty)
            ]
        )

    @cached_property
    def _records(self) -> Any:
        decoders = {"image": tfds.decode.SkipDecoding()}
        return self._builder.as_data_source(split=self._split, decoders=decoders)

    def record(self, index: int) -> Mapping[str, Any]:
        """An image, still encoded, with its objects; see `slimjax.tasks.detection.data.coco.Coco`."""
        return self._records[index]

    def file_name(self, index: int) -> str:
        """Of an image, below the folder of images."""
        name: bytes = self._records[index]["image/filename"]
        return name.decode()

    @staticmethod
    def image_size(record: Mapping[str, Any]) -> tuple[int, int]:
        """Height and width of a record's image, pixels."""
        height, width = record["image/size"].tolist()
        return height, width
