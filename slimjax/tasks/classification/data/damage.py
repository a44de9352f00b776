"""What is done about examples that cannot be read or decoded: an error that names one, or a count."""

import sys
from typing import Any

import ml_collections
import numpy as np

from slimjax.errors import UserError

_MAX_NAMED = 20


class Damage:
    """The damaged examples of one pass over a split, as `dataset.skip_damaged` wants them dealt with.

    Attributes:
      skips: whether they are left out, named on stderr and counted, rather than an error.
      count: those that were met so far; one that comes again in another epoch counts again.
    """

    def __init__(self, dataset_config: ml_collections.ConfigDict) -> None:
        self.skips: bool = dataset_config.skip_damaged
        self.count = 0
        self._dataset_name = dataset_config.name
        self._named: set[str] = set()

    def meet(self, marked_batch: dict[str, Any]) -> None:
        """Deals with the damaged examples of a batch.

        Args:
          marked_batch: `is_damaged` [batch] bool, `file` [batch] bytes and `record` [batch] int64.

        Raises:
          UserError: that names the first, unless they are skipped.
        """
        damaged = np.flatnonzero(marked_batch["is_damaged"])
        names = [place_name(marked_batch["file"][index], int(marked_batch["record"][index])) for index in damaged]
        if names and not self.skips:
            raise UserError(
                f"an example of data set {self._dataset_name!r} is damaged: {names[0]} cannot be read or decoded; "
                "replace it, or set dataset.skip_damaged=True to go on without it"
            )
        for name in names:
            self.count += 1
            self._tell(name)

    def _tell(self, name: str) -> None:
        """Names the first few, once each, since all come again in every epoch; tells the count when it has doubled."""
        if name not in self._named and len(self._named) < _MAX_NAMED:
            self._named.add(name)
            print(f"skipping a damaged example of {self._dataset_name!r}: {name}", file=sys.stderr)
        if self.count > 1 and self.count & (self.count - 1) == 0:
            print(f"{self.count} damaged examples of {self._dataset_name!r} skipped so far", file=sys.stderr)


def place_name(file: bytes, record: int) -> str:
    """Where an example is stored; records count from 0, and a negative one means the whole file."""
    path = file.decode(errors="replace")
    return path if record < 0 else f"record {record} of {path}"


def fill_damaged(batch: dict[str, np.ndarray], is_damaged: np.ndarray, share_size: int) -> dict[str, np.ndarray]:
    """Puts the nearest sound example before it, in a circle within its share, in each damaged one's stead.

    So the batch keeps its size and every other example its place and augmentation, and what a step sees stays a
    function of (seed, step), however devices are spread over processes.

    Args:
      batch: arrays [batch, ...].
      is_damaged: [batch] bool.
      share_size: examples of one device.

    Raises:
      UserError: if all examples of a share are damaged.
    """
    if not is_damaged.any():
        return batch
    sources = np.arange(len(is_damaged))
    for first in range(0, len(is_damaged), share_size):
        sound = first + np.flatnonzero(~is_damaged[first : first + share_size])
        if not len(sound):
            raise UserError(f"all {share_size} examples of one device's batch are damaged; mend the data set")
        for index in first + np.flatnonzero(is_damaged[first : first + share_size]):
            sources[index] = sound[np.searchsorted(sound, index) - 1]
    return {key: value[sources] for key, value in batch.items()}
