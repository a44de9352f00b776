"""The public functions: from a `dataset` config to NumPy batches.

TensorFlow is imported when one of them is called, not before.
"""

import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ml_collections
import numpy as np

from slimjax.errors import UserError
from slimjax.tasks.classification.data.config import check_dataset_config, per_process_batch_size
from slimjax.tasks.classification.data.damage import Damage, fill_damaged
from slimjax.tasks.dataset_info import DatasetInfo

if TYPE_CHECKING:
    from slimjax.tasks.classification.data.stream import Share

Batch = dict[str, np.ndarray]


def load_info(dataset_config: ml_collections.ConfigDict) -> DatasetInfo:
    """Opens the data set, prepares it if need be, and says what is in it.

    Raises:
      UserError: if the config is wrong, or the data set is missing and cannot be fetched.
    """
    check_dataset_config(dataset_config)
    from slimjax.tasks.classification.data.sources import open_source
    from slimjax.tasks.classification.data.splits import count_examples, parse_split

    source = open_source(dataset_config)
    return DatasetInfo(
        name=dataset_config.name,
        num_classes=len(source.class_names),
        num_train_examples=count_examples(parse_split("train_split", dataset_config.train_split, source.splits)),
        num_eval_examples=count_examples(parse_split("eval_split", dataset_config.eval_split, source.splits)),
        class_names=source.class_names,
    )


def count_classes(dataset_config: ml_collections.ConfigDict) -> int:
    """The number of classes, without fetching or preparing anything.

    Raises:
      UserError: if the config is wrong, there is no such data set, or it is not of image classification.
    """
    check_dataset_config(dataset_config)
    from slimjax.tasks.classification.data.sources import class_names

    return len(class_names(dataset_config))


def train_batches(
    dataset_config: ml_collections.ConfigDict,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    devices_per_process: int = 1,
) -> Iterator[Batch]:
    """Augmented batches without end, a function of (seed, step) and the number of devices alone.

    Every device goes through its own share of the split, each epoch in another order, whichever host it belongs to; the
    examples that the devices cannot share evenly, fewer than there are devices, are left out. Batches run on across the
    end of an epoch.

    Args:
      dataset_config: the `dataset` section.
      batch_size: of all hosts together.
      seed: decides order and augmentation.
      start_step: the step of the first batch; starting there gives the very batches that starting at 0 would.
      process_index: this host.
      process_count: hosts.
      devices_per_process: of each host.

    Returns:
      Batches of `image` [b, image_size, image_size, 3] uint8, `label` [b] int32 and, where the configuration asks for
      it, `noise` [b, 3] float32, see `slimjax.tasks.colours.normalised`; with b = batch_size // process_count. All are
      read-only, and the examples of a device lie together.

    Raises:
      UserError: as `load_info`, and if the devices cannot share the batch or the split; from the iterator, if an
        example is damaged. With `skip_damaged` a damaged one's place is taken by the sound one before it in its
        device's batch (see `fill_damaged`).
    """
    check_dataset_config(dataset_config)
    local_batch_size = per_process_batch_size(batch_size, process_index, process_count, devices_per_process)
    share_batch_size = local_batch_size // devices_per_process
    from slimjax.tasks.classification.data.sources import open_source
    from slimjax.tasks.classification.data.stream import iterate, train_stream

    source = open_source(dataset_config)
    shares = _train_shares(dataset_config, source.splits, process_count * devices_per_process)
    own = slice(process_index * devices_per_process, (process_index + 1) * devices_per_process)

    def batches_from(number: int, marked: bool) -> Any:
        stream = train_stream(
            source,
            shares[own],
            dataset_config,
            seed=seed,
            start_step=start_step + number,
            share_batch_size=share_batch_size,
            marked=marked,
        )
        return stream.batch(local_batch_size, drop_remainder=True)

    batches = iterate(batches_from, Damage(dataset_config))
    return (_without_damage(batch, share_batch_size) for batch in batches)


def _without_damage(batch: dict[str, Any], share_size: int) -> Batch:
    """What the network is given of every example, damaged ones replaced."""
    given = ("image", "noise", "label")
    images = {key: array for key, array in batch.items() if key in given}
    return fill_damaged(images, batch["is_damaged"], share_size) if "is_damaged" in batch else images


def _train_shares(dataset_config: ml_collections.ConfigDict, splits: Any, device_count: int) -> list["Share"]:
    """The training split in equal shares, one for each device.

    Raises:
      UserError: if there are fewer examples than devices.
    """
    from slimjax.tasks.classification.data.splits import count_examples, parse_split, select_examples
    from slimjax.tasks.classification.data.stream import Share

    ranges = parse_split("train_split", dataset_config.train_split, splits)
    size = count_examples(ranges) // device_count
    if not size:
        raise UserError(
            f"dataset.train_split={dataset_config.train_split!r} holds {count_examples(ranges)} examples for "
            f"{device_count} devices; give a split with at least one example for each"
        )
    return [
        Share(select_examples(ranges, first, first + size), first, size * device_count)
        for first in range(0, size * device_count, size)
    ]


def eval_batches(
    dataset_config: ml_collections.ConfigDict, *, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """Every example of the evaluation split exactly once over all hosts, not augmented.

    Args:
      dataset_config: the `dataset` section.
      batch_size: of all hosts together.
      process_index: this host.
      process_count: hosts.

    Returns:
      The same number of batches on every host: `image` [b, image_size, image_size, 3] uint8, `label` [b] int32 and
      `mask` [b] float32, 1 for an example and 0 for padding, with b = batch_size // process_count. With `skip_damaged`
      a damaged example is padding as well, and how many there were is told on stderr at the end.

    Raises:
      UserError: as `train_batches`.
    """
    check_dataset_config(dataset_config)
    local_batch_size = per_process_batch_size(batch_size, process_index, process_count)
    from slimjax.tasks.classification.data.sources import open_source
    from slimjax.tasks.classification.data.splits import count_examples, parse_split, select_examples
    from slimjax.tasks.classification.data.stream import eval_stream, iterate

    source = open_source(dataset_config)
    ranges = parse_split("eval_split", dataset_config.eval_split, source.splits)
    count = count_examples(ranges)
    share = select_examples(
        ranges, count * process_index // process_count, count * (process_index + 1) // process_count
    )
    largest_share = -(-count // process_count)
    damage = Damage(dataset_config)

    def batches_from(number: int, marked: bool) -> Any:
        stream = eval_stream(source, share, dataset_config, start=number * local_batch_size, marked=marked)
        return stream.batch(local_batch_size)

    # There is nothing to read for a host beyond the last example.
    batches = iterate(batches_from, damage) if share else iter(())
    num_batches = -(-largest_share // local_batch_size)
    padded = _pad(batches, num_batches, local_batch_size, dataset_config.image_size)
    return itertools.chain(padded, _tell_count(damage, count_examples(share)))


def _tell_count(damage: Damage, num_examples: int) -> Iterator[Batch]:
    """No batch; says, when it is asked for one, how many examples have been damaged."""
    if damage.count:
        print(f"{damage.count} damaged of {num_examples} evaluation examples, left out of the figures", file=sys.stderr)
    yield from ()


def _pad(batches: Iterator[dict[str, Any]], num_batches: int, batch_size: int, image_size: int) -> Iterator[Batch]:
    """Fills up the last batch with zeros, and the number of batches with empty ones; adds the mask."""
    nothing: Batch = {
        "image": np.zeros((0, image_size, image_size, 3), np.uint8),
        "label": np.zeros((0,), np.int32),
    }
    for _ in range(num_batches):
        batch = next(batches, nothing)
        num_examples = len(batch["label"])
        is_sound = np.logical_not(batch.get("is_damaged", np.zeros(num_examples, bool)))
        padded = {"image": batch["image"], "label": batch["label"], "mask": is_sound.astype(np.float32)}
        if num_examples < batch_size:
            padded = {
                key: np.pad(value, [(0, batch_size - num_examples), *[(0, 0)] * (value.ndim - 1)])
                for key, value in padded.items()
            }
        yield padded
