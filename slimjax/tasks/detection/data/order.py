"""Which images a batch holds: a function of the seed and the step alone, whatever the number of hosts."""

from dataclasses import dataclass

import numpy as np

from slimjax.errors import UserError


@dataclass(frozen=True)
class Picked:
    """The images of a batch.

    Attributes:
      indices: [batch] into the split; -1 is padding.
      wide: whether they are padded as wide images.
    """

    indices: np.ndarray
    wide: bool


class TrainOrder:
    """Endless batches of images of one orientation, each epoch in another order.

    An epoch leaves out the images of each orientation that do not fill a batch; which ones is another matter each time.
    """

    def __init__(self, wide: np.ndarray, tall: np.ndarray, batch_size: int, seed: int) -> None:
        """Takes the indices of the wide and of the tall images that are trained on.

        Raises:
          UserError: if none of them fill a batch.
        """
        self._groups, self._batch_size, self._seed = {True: wide, False: tall}, batch_size, seed
        self._epoch: tuple[int, list[Picked]] | None = None
        self.batches_per_epoch = sum(len(group) // batch_size for group in self._groups.values())
        if not len(wide) + len(tall):
            raise UserError(
                "no image of the training split has an object to learn from; annotate some, or set "
                "detection.with_empty=True to learn from images of nothing"
            )
        if not self.batches_per_epoch:
            raise UserError(
                f"{len(wide)} wide and {len(tall)} tall images fill no batch of batch_size={batch_size}; "
                "give a smaller one"
            )

    def batch(self, step: int) -> Picked:
        """The batch of a step."""
        epoch, place = divmod(step, self.batches_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self._batches_of(epoch)
        return self._epoch[1][place]

    def _batches_of(self, epoch: int) -> list[Picked]:
        rng = np.random.default_rng((self._seed, epoch))
        batches = []
        for wide, group in self._groups.items():
            count = len(group) // self._batch_size
            shuffled = rng.permutation(group)[: count * self._batch_size].reshape(count, self._batch_size)
            batches += [Picked(indices, wide) for indices in shuffled]
        return [batches[place] for place in rng.permutation(len(batches))]


def eval_order(wide: np.ndarray, tall: np.ndarray, batch_size: int) -> list[Picked]:
    """Batches that hold every image once, padded by -1."""
    batches = []
    for is_wide, group in ((True, wide), (False, tall)):
        for first in range(0, len(group), batch_size):
            indices = group[first : first + batch_size]
            batches.append(Picked(np.pad(indices, (0, batch_size - len(indices)), constant_values=-1), is_wide))
    return batches
