"""Splits as ranges of examples, and the even share of every host."""

import dataclasses

from slimjax.errors import UserError
from slimjax.tensorflow_import import tf, tfds

WHOLE_FILE = -1
"""The record's number where a file is one example."""


@dataclasses.dataclass(frozen=True)
class ExampleRange:
    """Examples `start` .. `stop - 1` of one named split."""

    split: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def parse_split(key: str, spec: str, splits: tfds.core.SplitDict) -> tuple[ExampleRange, ...]:
    """The examples that a split such as "train", "train[:90%]" or "train+test" stands for.

    Args:
      key: the config key, for the error line.
      spec: in tfds's slicing language.
      splits: the data set's splits.

    Raises:
      UserError: if the data set has no such split, or no example is in it.
    """
    known = ", ".join(f"{name} ({split.num_examples} examples)" for name, split in splits.items())
    try:
        instructions = tfds.core.ReadInstruction.from_spec(spec).to_absolute(splits)
    except (ValueError, KeyError, AssertionError) as error:
        raise UserError(
            f"dataset.{key}={spec!r} is not a split of this data set; it has {known}, also sliced as in 'train[:90%]'"
        ) from error
    ranges = tuple(
        # tfds writes None for either end of a whole split.
        ExampleRange(
            part.splitname, part.from_ or 0, splits[part.splitname].num_examples if part.to is None else part.to
        )
        for part in instructions
    )
    if not count_examples(ranges):
        raise UserError(f"dataset.{key}={spec!r} holds no example; the data set has {known}")
    return ranges


def count_examples(ranges: tuple[ExampleRange, ...]) -> int:
    """The number of examples in all ranges."""
    return sum(len(part) for part in ranges)


def places(count: int, seed: tf.Tensor | None) -> tf.data.Dataset:
    """The numbers 0 .. count - 1, in order or permuted by a seed, int64 scalar, in constant memory."""
    numbers = tf.data.Dataset.range(count)
    if seed is None:
        return numbers
    last = tf.constant(count - 1, tf.int64)
    return numbers.map(lambda index: tf.random.experimental.index_shuffle(index, tf.bitcast(seed, tf.uint32), last))


def select_examples(ranges: tuple[ExampleRange, ...], start: int, stop: int) -> tuple[ExampleRange, ...]:
    """Positions `start` .. `stop - 1` of the ranges laid end to end.

    Stands where `tfds.even_splits` would: that one drops a remainder for every part of a sum of splits, warns on the
    terminal each time it is asked, and knows nothing of image folders.
    """
    selected = []
    first = 0
    for part in ranges:
        lower, upper = max(start - first, 0), min(stop - first, len(part))
        if lower < upper:
            selected.append(ExampleRange(part.split, part.start + lower, part.start + upper))
        first += len(part)
    return tuple(selected)
