"""The tf.data graphs: endless and augmented for training, once through for evaluation."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence

import ml_collections
import numpy as np

from slimjax.errors import UserError
from slimjax.tasks.classification.data import augmentation, decoding
from slimjax.tasks.classification.data.config import CROP_AREAS
from slimjax.tasks.classification.data.sources import Example, Source
from slimjax.tasks.classification.data.splits import ExampleRange, count_examples
from slimjax.tensorflow_import import tf

_PREFETCHED_BATCHES = 2
_MIN_THREADS = 8


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
    """

    def example(counter: tf.Tensor, reference: Example) -> dict[str, tf.Tensor]:
        encoded = source.read(reference)
        image = _train_image(encoded["image"], dataset_config, seed=tf.stack([tf.constant(seed, tf.int64), counter]))
        return {"image": image, "label": tf.cast(encoded["label"], tf.int32)}

    start = start_step * share_batch_size
    streams = [_references(source, share, seed, start, dataset_config.shuffle_buffer) for share in shares]
    references = streams[0]
    if len(streams) > 1:
        turns = tf.data.Dataset.range(tf.int64.max).map(lambda place: place // share_batch_size % len(streams))
        references = tf.data.Dataset.choose_from_datasets(streams, turns)
    return references.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


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
    source: Source, ranges: tuple[ExampleRange, ...], dataset_config: ml_collections.ConfigDict
) -> tf.data.Dataset:
    """The examples of the ranges once, in stored order."""

    def example(reference: Example) -> dict[str, tf.Tensor]:
        encoded = source.read(reference)
        image = augmentation.normalize(_eval_image(encoded["image"], dataset_config))
        return {"image": image, "label": tf.cast(encoded["label"], tf.int32)}

    references = source.references(ranges, seed=None)
    return references.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def iterate(batches: tf.data.Dataset, dataset_config: ml_collections.ConfigDict) -> Iterator[dict[str, np.ndarray]]:
    """Runs the graph ahead of the caller and hands out its memory as read-only arrays, without a copy."""
    options = tf.data.Options()
    # The images are processed in parallel, so an operation on one of them gains nothing from more threads.
    options.threading.max_intra_op_parallelism = 1
    # The operations of small images wait for each other more than they compute: on two busy cores eight threads gave
    # 1.2 to 2.8 times the images per second of the shared pool's two (digits at 16 pixels, each augmentation).
    options.threading.private_threadpool_size = max(_MIN_THREADS, os.cpu_count() or 1)
    iterator = batches.prefetch(_PREFETCHED_BATCHES).with_options(options).as_numpy_iterator()
    while True:
        try:
            batch = next(iterator, None)
        except tf.errors.InvalidArgumentError as error:
            reason = next(iter(error.message.splitlines()), "")
            raise UserError(
                f"an image of data set {dataset_config.name!r} cannot be decoded: {reason}; replace or remove it"
            ) from error
        if batch is None:
            return
        yield batch


def _train_image(encoded: tf.Tensor, dataset_config: ml_collections.ConfigDict, *, seed: tf.Tensor) -> tf.Tensor:
    """Decodes and augments; each kind of augmentation draws from a seed of its own."""
    crop_seed, flip_seed, jitter_seed, pca_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    if dataset_config.augmentation in CROP_AREAS:
        window_fn = functools.partial(
            decoding.random_window, area_range=CROP_AREAS[dataset_config.augmentation], seed=crop_seed
        )
        image = decoding.decode_square(encoded, window_fn, dataset_config.image_size)
    else:
        image = _eval_image(encoded, dataset_config)
    if dataset_config.augmentation == "basic":
        image = augmentation.random_shift(image, seed=crop_seed)
    if dataset_config.flip:
        image = augmentation.random_flip(image, seed=flip_seed)
    if dataset_config.color_jitter:
        image = augmentation.color_jitter(image, strength=dataset_config.color_jitter, seed=jitter_seed)
    if dataset_config.pca_noise:
        image = augmentation.pca_noise(image, stddev=dataset_config.pca_noise, seed=pca_seed)
    return augmentation.normalize(image)


def _eval_image(encoded: tf.Tensor, dataset_config: ml_collections.ConfigDict) -> tf.Tensor:
    window_fn = functools.partial(
        decoding.center_window, image_size=dataset_config.image_size, eval_resize=dataset_config.eval_resize
    )
    return decoding.decode_square(encoded, window_fn, dataset_config.image_size)
