"""The tf.data graphs: endless and augmented for training, once through for evaluation."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_collections

from slimjax.errors import UserError
from slimjax.tasks.classification.data import augmentation, decoding
from slimjax.tasks.classification.data.config import CROP_AREAS
from slimjax.tasks.classification.data.damage import Damage
from slimjax.tasks.classification.data.sources import Example, Source
from slimjax.tasks.classification.data.splits import ExampleRange, count_examples
from slimjax.tensorflow_import import tf

_PREFETCHED_BATCHES = 2
_MIN_THREADS = 8

ExampleFn = Callable[[tf.Tensor, Example], dict[str, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Share:
    """A part of the training split, the examples of one device, which are shuffled among themselves.

    Attributes:
      ranges: the examples.
      first_example: the place of the first one in an epoch of all shares.
      examples_per_epoch: of all shares.
    """

    ranges: tuple[ExampleRange, ...]
    first_example: int
    examples_per_epoch: int


def train_stream(
    source: Source,
    shares: Sequence[Share],
    dataset_config: ml_collections.ConfigDict,
    *,
    seed: int,
    start_step: int,
    share_batch_size: int,
    marked: bool = False,
) -> tf.data.Dataset:
    """Augmented examples without end: of each step the examples of the first share, then those of the next.

    An example's order and augmentation follow from the seed, the epoch and its place in the epoch, never from a
    generator's state. So a stream that starts in the middle shuffles and skips that epoch's encoded examples, and
    then goes on as if it had run from the beginning.

    Args:
      source: where the examples come from.
      shares: those of this host's devices.
      dataset_config: the `dataset` section.
      seed: any integer.
      start_step: the step of the first examples.
      share_batch_size: examples of one share in a step.
      marked: whether damaged examples come marked, instead of ending the stream; see `_marked`.
    """

    def example(counter: tf.Tensor, reference: Example) -> dict[str, tf.Tensor]:
        encoded = source.read(reference)
        own_seed = tf.stack([tf.constant(seed, tf.int64), counter])
        augmented = _augmented(encoded["image"], dataset_config, seed=own_seed)
        return {**augmented, "label": tf.cast(encoded["label"], tf.int32)}

    start = start_step * share_batch_size
    streams = [_references(source, share, seed, start, dataset_config.shuffle_buffer) for share in shares]
    references = streams[0]
    if len(streams) > 1:
        turns = tf.data.Dataset.range(tf.int64.max).map(lambda place: place // share_batch_size % len(streams))
        references = tf.data.Dataset.choose_from_datasets(streams, turns)
    return _map(references, example, marked)


def _references(source: Source, share: Share, seed: int, start: int, shuffle_buffer: int) -> tf.data.Dataset:
    """The share's references, numbered over all epochs and shares, epoch after epoch in another order."""
    start_epoch, start_offset = divmod(start, count_examples(share.ranges))

    # AutoGraph would warn that it cannot look into tfds, and nothing here needs it.
    @tf.autograph.experimental.do_not_convert
    def epoch_references(epoch: tf.Tensor) -> tf.data.Dataset:
        order_seeds = tf.random.stateless_uniform([2], [seed, epoch], None, None, tf.int64, alg="philox")
        references = source.references(share.ranges, order_seeds[0])
        references = references.shuffle(shuffle_buffer, order_seeds[1], reshuffle_each_iteration=False)
        references = references.enumerate(start=epoch * share.examples_per_epoch + share.first_example)
        return references.skip(tf.where(epoch == start_epoch, tf.constant(start_offset, tf.int64), 0))

    return tf.data.Dataset.range(start_epoch, tf.int64.max).flat_map(epoch_references)


def eval_stream(
    source: Source,
    ranges: tuple[ExampleRange, ...],
    dataset_config: ml_collections.ConfigDict,
    *,
    start: int = 0,
    marked: bool = False,
) -> tf.data.Dataset:
    """The examples of the ranges once, without the first `start`; `marked` as in `train_stream`."""

    def example(_: tf.Tensor, reference: Example) -> dict[str, tf.Tensor]:
        encoded = source.read(reference)
        image = augmentation.to_image(_eval_columns(encoded["image"], dataset_config))
        return {"image": image, "label": tf.cast(encoded["label"], tf.int32)}

    return _map(source.references(ranges, seed=None).enumerate().skip(start), example, marked)


def _map(references: tf.data.Dataset, example: ExampleFn, marked: bool) -> tf.data.Dataset:
    function = functools.partial(_marked, example) if marked else example
    return references.map(function, num_parallel_calls=num_threads(), deterministic=True)


def _marked(example: ExampleFn, counter: tf.Tensor, reference: Example) -> dict[str, tf.Tensor]:
    """An example with its `file` and `record`; if making it raises, it is all zeros and `is_damaged`.

    A graph cannot catch an operation's error, but a data set can ignore one: this is a data set of a single example,
    and of the zeros behind it.
    """
    attempt = tf.data.Dataset.from_tensors((counter, reference)).map(example).ignore_errors()
    zeros = {key: tf.zeros(spec.shape, spec.dtype) for key, spec in attempt.element_spec.items()}
    sound = attempt.map(lambda made: {**made, "is_damaged": False})
    damaged = tf.data.Dataset.from_tensors({**zeros, "is_damaged": True})
    made = sound.concatenate(damaged).take(1).get_single_element()
    return {**made, "file": reference["file"], "record": reference["record"]}


def iterate(batches_from: Callable[[int, bool], tf.data.Dataset], damage: Damage) -> Iterator[dict[str, Any]]:
    """Runs a graph ahead of the caller and hands out its memory as read-only arrays, without a copy.

    Marking takes time, so without `damage.skips` a graph that has failed is built once more to name the example.

    Args:
      batches_from: makes the batches from a number on, with their damaged examples marked or not.
      damage: is told of what is damaged.

    Raises:
      UserError: from the iterator, at the first example that is damaged, unless those are skipped.
    """
    batches = _run(batches_from(0, damage.skips))
    for number in itertools.count():
        try:
            batch = next(batches, None)
        except tf.errors.OpError as error:
            if not damage.skips:
                damage.meet(next(_run(batches_from(number, True))))
            reason = next(iter(error.message.splitlines()), "")
            raise UserError(f"the data set cannot be read on: {reason}") from error
        if batch is None:
            return
        if damage.skips:
            damage.meet(batch)
        yield batch


def _run(batches: tf.data.Dataset) -> Iterator[dict[str, Any]]:
    options = tf.data.Options()
    # As `tensorflow_import` has it for all operations, unless TensorFlow was started before.
    options.threading.max_intra_op_parallelism = 1
    # The operations of small images wait for each other more than they compute: on two cores eight threads prepared
    # more digits a second than the shared pool's two (tried while it was written, and not recorded).
    options.threading.private_threadpool_size = num_threads()
    # Nothing is left to tune, and TensorFlow's tuner can miss that its graph is over: closing a graph, as every
    # evaluation does at its end, then waits until the tuner looks again, which it does once a minute.
    options.autotune.enabled = False
    return batches.prefetch(_PREFETCHED_BATCHES).with_options(options).as_numpy_iterator()


def num_threads() -> int:
    """Images that are prepared at the same time."""
    return max(_MIN_THREADS, os.cpu_count() or 1)


def _augmented(encoded: tf.Tensor, dataset_config: ml_collections.ConfigDict, *, seed: tf.Tensor) -> Example:
    """Decodes and augments; each kind of augmentation draws from a seed of its own."""
    crop_seed, flip_seed, jitter_seed, pca_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    if dataset_config.augmentation in CROP_AREAS:
        window_fn = functools.partial(
            decoding.random_window, area_range=CROP_AREAS[dataset_config.augmentation], seed=crop_seed
        )
        columns = decoding.decode_square(encoded, window_fn, dataset_config.image_size)
    else:
        columns = _eval_columns(encoded, dataset_config)
    if dataset_config.augmentation == "basic":
        columns = augmentation.random_shift(columns, seed=crop_seed)
    if dataset_config.flip:
        columns = augmentation.random_flip(columns, seed=flip_seed)
    if dataset_config.color_jitter:
        columns = augmentation.color_jitter(columns, strength=dataset_config.color_jitter, seed=jitter_seed)
    augmented = {"image": augmentation.to_image(columns)}
    if dataset_config.pca_noise:
        augmented["noise"] = augmentation.pca_noise(stddev=dataset_config.pca_noise, seed=pca_seed)
    return augmented


def _eval_columns(encoded: tf.Tensor, dataset_config: ml_collections.ConfigDict) -> tf.Tensor:
    window_fn = functools.partial(
        decoding.center_window, image_size=dataset_config.image_size, eval_resize=dataset_config.eval_resize
    )
    return decoding.decode_square(encoded, window_fn, dataset_config.image_size)
