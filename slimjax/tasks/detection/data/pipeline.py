"""Batches of a detection data set for the train step and for evaluation."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from slimjax.tasks.detection.data.examples import Example, ExampleSettings, example_of
from slimjax.tasks.detection.data.order import Picked, TrainOrder, eval_order
from slimjax.tasks.detection.data.source import Split

_BATCHES_AHEAD = 2


def train_order(split: Split, batch_size: int, seed: int, with_empty: bool) -> TrainOrder:
    """The order of training; see TrainOrder for what it raises."""
    wide, tall = (split.indices(is_wide, with_empty) for is_wide in (True, False))
    return TrainOrder(wide, tall, batch_size, seed)


def train_batches(
    split: Split, order: TrainOrder, settings: ExampleSettings, *, seed: int, start_step: int, process: tuple[int, int]
) -> Iterator[Example]:
    """Endless batches of one host, a function of (seed, step) alone.

    Args:
      split: to train on.
      order: of its images.
      settings: of the layout.
      seed: decides which images are mirrored, and the sampling.
      start_step: the step of the first batch; starting there gives the very batches that starting at 0 would.
      process: this host's number, and the number of hosts.

    Returns:
      Batches of what `example_of` gives, [batch / hosts, ...], with `seed` [batch / hosts] uint32 for the sampling.
    """

    def prepared(step: int, place: int, picked: Picked) -> Example:
        mirrors, sampling = np.random.default_rng((seed, step, place)).integers(0, 2**32, 2, np.uint32)
        record = split.record(int(picked.indices[place]))
        return {
            **example_of(record, settings, picked.wide, settings.flip and bool(mirrors % 2)),
            "seed": np.uint32(sampling),
        }

    def steps() -> Iterator[tuple[int, Picked]]:
        step = start_step
        while True:
            yield step, order.batch(step)
            step += 1

    return _batches(steps(), prepared, process)


def eval_batches(
    split: Split, settings: ExampleSettings, batch_size: int, process: tuple[int, int]
) -> Iterator[Example]:
    """Every image of a split once over all hosts: as `train_batches`, none mirrored.

    Instead of `seed` there is `index` [batch / hosts] int32, of the image in the split, and `mask`, 0 for padding.
    """

    def prepared(_: int, place: int, picked: Picked) -> Example:
        index = int(picked.indices[place])
        # Padding is an image of the batch again, masked.
        record = split.record(index if index >= 0 else int(picked.indices[0]))
        example = example_of(record, settings, picked.wide, mirrored=False)
        return {**example, "index": np.int32(max(index, 0)), "mask": np.float32(index >= 0)}

    wide, tall = (split.indices(is_wide, with_empty=True) for is_wide in (True, False))
    order = eval_order(wide, tall, batch_size)
    return _batches(iter(enumerate(order)), prepared, process)


def num_eval_batches(split: Split, batch_size: int) -> int:
    """Of one evaluation."""
    return sum(-(-len(split.indices(wide, with_empty=True)) // batch_size) for wide in (True, False))


def _batches(
    picked: Iterator[tuple[int, Picked]], prepared: Callable[[int, int, Picked], Example], process: tuple[int, int]
) -> Iterator[Example]:
    """Batches in order, prepared by threads, which decode and resize outside of Python's lock."""
    number, count = process
    under_way: deque[list[Future[Any]]] = deque()
    with ThreadPoolExecutor(thread_name_prefix="examples") as pool:
        for step, batch in picked:
            share = len(batch.indices) // count
            places = range(number * share, (number + 1) * share)
            under_way.append([pool.submit(prepared, step, place, batch) for place in places])
            if len(under_way) > _BATCHES_AHEAD:
                yield _stacked(under_way.popleft())
        while under_way:
            yield _stacked(under_way.popleft())


def _stacked(futures: list[Future[Any]]) -> Example:
    examples = [future.result() for future in futures]
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}
