"""Order, shares and counts of the batches, on the real digits."""

import collections
import itertools

import ml_collections
import numpy as np
import pytest
from sklearn.datasets import load_digits

from slimjax.tasks.classification import data
from slimjax.tasks.dataset_info import DatasetInfo

NUM_TRAIN, NUM_EVAL = 1442, 355


def grey_levels(images: np.ndarray) -> np.ndarray:
    """The one channel [batch, 8, 8] that all three have to be."""
    np.testing.assert_array_equal(images, images[..., :1].repeat(3, axis=-1))
    return images[..., 0]


def count_examples(images: np.ndarray, labels: np.ndarray) -> collections.Counter:
    """How often each labelled picture occurs."""
    return collections.Counter((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True))


def count_batches(batches: list[data.Batch]) -> collections.Counter:
    images = np.concatenate([batch["image"] for batch in batches])
    labels = np.concatenate([batch["label"] for batch in batches])
    return count_examples(grey_levels(images), labels)


@pytest.fixture(scope="module")
def all_digits() -> collections.Counter:
    digits = load_digits()
    return count_examples(np.rint(digits.images * 255 / 16).astype(np.uint8), digits.target)


def test_info_of_digits(dataset_config: ml_collections.ConfigDict) -> None:
    info = data.load_info(dataset_config)
    assert info == DatasetInfo("digits", 10, NUM_TRAIN, NUM_EVAL, tuple("0123456789"))


def test_info_counts_slices_and_sums(dataset_config: ml_collections.ConfigDict) -> None:
    dataset_config.train_split, dataset_config.eval_split = "train[:90%]+test[5:10]", "train[90%:]"
    info = data.load_info(dataset_config)
    assert info.num_train_examples == round(0.9 * NUM_TRAIN) + 5
    assert info.num_eval_examples == NUM_TRAIN - round(0.9 * NUM_TRAIN)


def test_batches_depend_on_seed_and_step_alone(dataset_config: ml_collections.ConfigDict) -> None:
    dataset_config.update(augmentation="mobile", flip=True, color_jitter=0.4, pca_noise=0.1)
    whole = list(itertools.islice(data.train_batches(dataset_config, batch_size=100, seed=3), 30))
    # Steps 14 and 28 hold the ends of epochs; 7 and 20 lie within them.
    for start_step in (7, 14, 20, 28):
        resumed = data.train_batches(dataset_config, batch_size=100, seed=3, start_step=start_step)
        for expected, batch in zip(whole[start_step : start_step + 2], resumed, strict=False):
            for key in ("image", "noise", "label"):
                np.testing.assert_array_equal(batch[key], expected[key])


def test_each_host_resumes_exactly(dataset_config: ml_collections.ConfigDict) -> None:
    dataset_config.update(augmentation="basic")
    hosts = {"process_index": 1, "process_count": 2}
    whole = list(itertools.islice(data.train_batches(dataset_config, batch_size=200, seed=3, **hosts), 10))
    resumed = next(data.train_batches(dataset_config, batch_size=200, seed=3, start_step=9, **hosts))
    np.testing.assert_array_equal(resumed["image"], whole[9]["image"])


def test_seeds_differ(dataset_config: ml_collections.ConfigDict) -> None:
    first, second = (next(data.train_batches(dataset_config, batch_size=64, seed=seed)) for seed in (0, 1))
    assert not np.array_equal(first["label"], second["label"])


def test_augmentation_of_an_example_changes_with_the_epoch(dataset_config: ml_collections.ConfigDict) -> None:
    dataset_config.update(train_split="train[:1]", pca_noise=0.1)
    noise = next(data.train_batches(dataset_config, batch_size=20, seed=0))["noise"]
    assert len({colour.tobytes() for colour in noise}) == 20


def test_batches_are_what_jax_wants(dataset_config: ml_collections.ConfigDict) -> None:
    dataset_config.image_size = dataset_config.eval_resize = 20
    train = next(data.train_batches(dataset_config, batch_size=64, seed=0, process_count=2))
    evaluation = next(data.eval_batches(dataset_config, batch_size=64, process_count=2))
    for batch in (train, evaluation):
        assert (batch["image"].shape, batch["image"].dtype) == ((32, 20, 20, 3), np.uint8)
        assert (batch["label"].shape, batch["label"].dtype) == ((32,), np.int32)
    assert (evaluation["mask"].shape, evaluation["mask"].dtype) == ((32,), np.float32)


def test_each_epoch_sees_each_example_once(
    dataset_config: ml_collections.ConfigDict, all_digits: collections.Counter
) -> None:
    batches = data.train_batches(dataset_config, batch_size=NUM_TRAIN, seed=0)
    first, second = next(batches), next(batches)
    assert count_batches([first]) == count_batches([second])
    assert not np.array_equal(first["label"], second["label"])
    evaluation = list(data.eval_batches(dataset_config, batch_size=NUM_EVAL))
    assert len(evaluation) == 1
    assert count_batches([first]) + count_batches(evaluation) == all_digits
    # The split is stratified: a fifth of every class, less a rest.
    assert np.array_equal(np.bincount(evaluation[0]["label"]), np.bincount(load_digits().target) // 5)


def test_hosts_share_an_epoch_without_overlap(
    dataset_config: ml_collections.ConfigDict,
) -> None:
    whole = count_batches([next(data.train_batches(dataset_config, batch_size=NUM_TRAIN, seed=0))])
    shares = collections.Counter()
    for index in range(3):
        share = data.train_batches(dataset_config, batch_size=1440, seed=0, process_index=index, process_count=3)
        shares += count_batches([next(share)])
    assert shares.total() == 1440
    assert shares <= whole


def test_a_step_is_the_same_whatever_hosts_the_devices_belong_to(dataset_config: ml_collections.ConfigDict) -> None:
    dataset_config.update(augmentation="basic", pca_noise=0.1)

    def step(process_index: int, process_count: int) -> data.Batch:
        hosts = {"process_index": process_index, "process_count": process_count}
        batches = data.train_batches(
            dataset_config, batch_size=80, seed=3, start_step=17, devices_per_process=4 // process_count, **hosts
        )
        next(batches)
        return next(batches)

    whole = step(0, 1)
    for process_count in (2, 4):
        parts = [step(index, process_count) for index in range(process_count)]
        for key in whole:
            np.testing.assert_array_equal(np.concatenate([part[key] for part in parts]), whole[key])


def test_devices_share_an_epoch_without_overlap(dataset_config: ml_collections.ConfigDict) -> None:
    whole = count_batches([next(data.train_batches(dataset_config, batch_size=NUM_TRAIN, seed=0))])
    # 1442 examples are 360 for each of four devices, and two that are left out.
    shared = count_batches([next(data.train_batches(dataset_config, batch_size=1440, seed=0, devices_per_process=4))])
    assert shared.total() == 1440
    assert shared <= whole


def test_fewer_examples_than_a_batch(dataset_config: ml_collections.ConfigDict) -> None:
    dataset_config.train_split = "train[:10]"
    counts = count_batches([next(data.train_batches(dataset_config, batch_size=64, seed=0))])
    assert sorted(counts.values()) == [6] * 6 + [7] * 4


@pytest.mark.parametrize(
    ("eval_split", "batch_size", "process_count"),
    [
        ("test", 64, 1),
        ("test", 355, 1),
        ("test", 1000, 1),
        ("test", 50, 2),
        ("test", 30, 3),
        ("test", 71 * 5, 5),
        ("test[:10]+test[20:33]", 12, 4),
        ("test[:5]", 8, 8),
    ],
)
def test_evaluation_counts_each_example_once(
    dataset_config: ml_collections.ConfigDict, eval_split: str, batch_size: int, process_count: int
) -> None:
    dataset_config.eval_split = eval_split
    hosts = [
        list(data.eval_batches(dataset_config, batch_size=batch_size, process_index=index, process_count=process_count))
        for index in range(process_count)
    ]
    assert len({len(batches) for batches in hosts}) == 1
    counts = collections.Counter()
    for batch in itertools.chain(*hosts):
        assert len(batch["label"]) == len(batch["image"]) == len(batch["mask"]) == batch_size // process_count
        real = batch["mask"] == 1
        assert not any(batch[key][~real].any() for key in ("image", "label", "mask"))
        if real.any():
            counts += count_examples(grey_levels(batch["image"][real]), batch["label"][real])
    num_examples = data.load_info(dataset_config).num_eval_examples
    expected = next(data.eval_batches(dataset_config, batch_size=num_examples))
    assert expected["mask"].all()
    assert counts == count_batches([expected])
