"""A miniature ImageNet in the true format, as tfds's own builder writes it, in both file formats."""

import collections
import itertools
import pathlib
import re

import ml_collections
import numpy as np
import pytest
from array_record.python import array_record_data_source, array_record_module
from miniature_imagenet import IMAGES_PER_SYNSET, NUM_VALIDATION, SYNSETS, encode, train_level, validation_level

from slimjax.errors import UserError
from slimjax.tasks.builders import prepare
from slimjax.tasks.classification import data
from slimjax.tensorflow_import import tf, tfds

TRAIN_LEVELS = {
    train_level(synset, index): label for synset, label in SYNSETS.items() for index in range(IMAGES_PER_SYNSET)
}


def levels(images: np.ndarray) -> np.ndarray:
    """The grey level [batch] of one-coloured images, which they have to be."""
    assert np.ptp(images, axis=(1, 2, 3)).max() < 4
    return images.mean(axis=(1, 2, 3))


def nearest(level: float, known: list[int]) -> int:
    """The known grey level that was meant: JPEG and CMYK move it by a little."""
    return min(known, key=lambda other: abs(other - level))


def record_files(config: ml_collections.ConfigDict, split: str) -> list[pathlib.Path]:
    return sorted(pathlib.Path(config.data_dir).glob(f"imagenet2012/*/*-{split}.*-of-*"))


def test_info(imagenet_config: ml_collections.ConfigDict) -> None:
    info = data.load_info(imagenet_config)
    assert (info.num_classes, info.num_train_examples, info.num_eval_examples) == (1000, 24, NUM_VALIDATION)
    assert [info.class_names[label] for label in SYNSETS.values()] == list(SYNSETS)


def test_what_is_prepared_is_not_prepared_again(imagenet_config: ml_collections.ConfigDict) -> None:
    file_format = record_files(imagenet_config, "train")[0].name.split(".")[1].split("-")[0]
    other = {"tfrecord": "array_record", "array_record": "tfrecord"}[file_format]
    data_set, is_new = prepare("imagenet2012", imagenet_config.data_dir, "", file_format)
    assert (data_set.info.file_format.value, is_new) == (file_format, False)
    with pytest.raises(
        UserError, match=f"as {file_format} already; remove it, or give another --data_dir for .*={other}"
    ):
        prepare("imagenet2012", imagenet_config.data_dir, "", other)


def test_tar_files_that_are_missing_or_cut_short(imagenet_tars: pathlib.Path, tmp_path: pathlib.Path) -> None:
    names = ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"]
    (tmp_path / names[1]).write_bytes((imagenet_tars / names[1]).read_bytes())
    with pytest.raises(UserError, match=rf"'imagenet2012' needs {names[0]} in {tmp_path}: manual_dir should contain"):
        prepare("imagenet2012", str(tmp_path / "tfds"), str(tmp_path), "tfrecord")
    (tmp_path / names[0]).write_bytes((imagenet_tars / names[0]).read_bytes()[:20000])
    with pytest.raises(UserError, match=r"'imagenet2012' cannot be written to .*: .*unexpected end of data") as raised:
        prepare("imagenet2012", str(tmp_path / "tfds"), str(tmp_path), "tfrecord")
    assert "\n" not in str(raised.value)


def test_an_epoch_shows_every_image_in_its_colour(imagenet_config: ml_collections.ConfigDict) -> None:
    batches = list(itertools.islice(data.train_batches(imagenet_config, batch_size=8, seed=0), 6))
    epochs = [batches[:3], batches[3:]]
    for epoch in epochs:
        seen = levels(np.concatenate([batch["image"] for batch in epoch]))
        labels = np.concatenate([batch["label"] for batch in epoch])
        meant = [nearest(level, list(TRAIN_LEVELS)) for level in seen]
        assert sorted(meant) == sorted(TRAIN_LEVELS)
        assert np.abs(seen - meant).max() < 3
        assert [TRAIN_LEVELS[level] for level in meant] == labels.tolist()
    assert not np.array_equal(batches[0]["label"], batches[3]["label"])


def test_evaluation_has_the_published_labels(imagenet_config: ml_collections.ConfigDict) -> None:
    published = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
    names = data.load_info(imagenet_config).class_names
    batches = list(data.eval_batches(imagenet_config, batch_size=4))
    mask = np.concatenate([batch["mask"] for batch in batches]) == 1
    assert mask.sum() == NUM_VALIDATION
    seen = levels(np.concatenate([batch["image"] for batch in batches])[mask])
    labels = np.concatenate([batch["label"] for batch in batches])[mask]
    known = [validation_level(index) for index in range(NUM_VALIDATION)]
    found = {known.index(nearest(level, known)): names[label] for level, label in zip(seen, labels, strict=True)}
    assert found == dict(enumerate(published[:NUM_VALIDATION]))


def test_hosts_share_the_images(imagenet_config: ml_collections.ConfigDict) -> None:
    seen = collections.Counter()
    for index in range(3):
        share = data.train_batches(imagenet_config, batch_size=24, seed=0, process_index=index, process_count=3)
        seen.update(nearest(level, list(TRAIN_LEVELS)) for level in levels(next(share)["image"]))
    assert seen == collections.Counter(TRAIN_LEVELS.keys())


def test_resuming_is_exact(imagenet_config: ml_collections.ConfigDict) -> None:
    imagenet_config.update(color_jitter=0.4, pca_noise=0.1)
    whole = list(itertools.islice(data.train_batches(imagenet_config, batch_size=7, seed=1), 12))
    for step in (1, 4, 11):
        resumed = next(data.train_batches(imagenet_config, batch_size=7, seed=1, start_step=step))
        for key in resumed:
            np.testing.assert_array_equal(resumed[key], whole[step][key])


@pytest.fixture
def damaged_config(imagenet_config: ml_collections.ConfigDict) -> tuple[ml_collections.ConfigDict, int]:
    """One training image has lost its end, and nothing else has changed; with the image's grey level."""
    level = train_level("n15075141", 3)
    _replace_record(imagenet_config, encode(level, 3, "RGB"), encode(level, 3, "RGB")[:200])
    return imagenet_config, level


def _replace_record(config: ml_collections.ConfigDict, old: bytes, new: bytes) -> None:
    """Writes the training file anew with an image's bytes replaced."""
    (path,) = record_files(config, "train")
    is_array = "array_record" in path.name
    if is_array:
        records = list(array_record_data_source.ArrayRecordDataSource(str(path)))
    else:
        records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    examples = [tf.train.Example.FromString(record) for record in records]
    (damaged,) = [e for e in examples if e.features.feature["image"].bytes_list.value[0] == old]
    damaged.features.feature["image"].bytes_list.value[0] = new
    path.unlink()
    writer = (
        array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        if is_array
        else tf.io.TFRecordWriter(str(path))
    )
    for example in examples:
        writer.write(example.SerializeToString())
    writer.close()


def test_a_damaged_image_is_named(damaged_config: tuple[ml_collections.ConfigDict, int]) -> None:
    config, _ = damaged_config
    (path,) = record_files(config, "train")
    line = rf"an example of data set 'imagenet2012' is damaged: record \d+ of {re.escape(str(path))} cannot be read or"
    with pytest.raises(UserError, match=line) as raised:
        list(itertools.islice(data.train_batches(config, batch_size=8, seed=0), 3))
    assert "\n" not in str(raised.value)
    config.eval_split = "train"
    with pytest.raises(UserError, match=line):
        list(data.eval_batches(config, batch_size=8))


def test_skipping_a_damaged_image_in_training_moves_nothing(
    imagenet_config: ml_collections.ConfigDict, capfd: pytest.CaptureFixture[str]
) -> None:
    imagenet_config.update(color_jitter=0.4, pca_noise=0.1, skip_damaged=True)
    hosts = {"batch_size": 8, "seed": 0, "devices_per_process": 2}
    sound = list(itertools.islice(data.train_batches(imagenet_config, **hosts), 6))
    assert not capfd.readouterr().err
    level = train_level("n15075141", 3)
    _replace_record(imagenet_config, encode(level, 3, "RGB"), b"not an image")
    batches = list(itertools.islice(data.train_batches(imagenet_config, **hosts), 6))
    differing = []
    for step, (batch, expected) in enumerate(zip(batches, sound, strict=True)):
        for row in range(8):
            source = row
            if not np.array_equal(batch["image"][row], expected["image"][row]):
                differing.append((step, row))
                source = row // 4 * 4 + (row - 1) % 4
            # What takes its place is the whole example, with the noise that is added to its image on the devices.
            for key in ("image", "noise", "label"):
                np.testing.assert_array_equal(batch[key][row], expected[key][source])
    # Once an epoch, and named once.
    assert len(differing) == 2
    named = [line for line in capfd.readouterr().err.splitlines() if line.startswith("skipping a damaged example")]
    assert len(named) == 1
    # A run that resumes at it sees the same.
    step = differing[0][0]
    resumed = next(data.train_batches(imagenet_config, start_step=step, **hosts))
    for key in ("image", "noise", "label"):
        np.testing.assert_array_equal(resumed[key], batches[step][key])


def test_what_is_skipped_on_resuming_is_not_decoded(damaged_config: tuple[ml_collections.ConfigDict, int]) -> None:
    config, _ = damaged_config
    config.skip_damaged = True
    steps = itertools.islice(data.train_batches(config, batch_size=4, seed=0), 12)
    first, second = (step for step, batch in enumerate(steps) if len({i.tobytes() for i in batch["image"]}) < 4)
    assert first + 1 < second, "this seed leaves something between the two epochs' damaged steps"
    config.skip_damaged = False
    resumed = data.train_batches(config, batch_size=4, seed=0, start_step=first + 1)
    assert len(list(itertools.islice(resumed, second - first - 1))) == second - first - 1
    with pytest.raises(UserError, match="is damaged: record"):
        next(resumed)


def test_evaluation_masks_what_is_damaged(
    damaged_config: tuple[ml_collections.ConfigDict, int], capfd: pytest.CaptureFixture[str]
) -> None:
    config, level = damaged_config
    config.update(eval_split="train", skip_damaged=True)
    batches = list(data.eval_batches(config, batch_size=10))
    assert [len(batch["mask"]) for batch in batches] == [10, 10, 10]
    mask = np.concatenate([batch["mask"] for batch in batches]) == 1
    seen = levels(np.concatenate([batch["image"] for batch in batches])[mask])
    assert sorted(nearest(value, list(TRAIN_LEVELS)) for value in seen) == sorted(set(TRAIN_LEVELS) - {level})
    for batch in batches:
        assert not batch["image"][batch["mask"] == 0].any()
    # libjpeg has a line of its own before.
    err = capfd.readouterr().err.splitlines()
    assert err[-2].startswith("skipping a damaged example of 'imagenet2012': record ")
    assert err[-1] == "1 damaged of 24 evaluation examples, left out of the figures"


def test_a_truncated_file_is_named_and_its_rest_skipped(imagenet_config: ml_collections.ConfigDict) -> None:
    imagenet_config.eval_split = "train"
    whole = list(data.eval_batches(imagenet_config, batch_size=24))
    (path,) = record_files(imagenet_config, "train")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    line = rf"is damaged: record \d+ of {re.escape(str(path))} cannot be read"
    for batches in (
        data.eval_batches(imagenet_config, batch_size=24),
        data.train_batches(imagenet_config, batch_size=24, seed=0),
    ):
        with pytest.raises(UserError, match=line):
            next(batches)
    imagenet_config.skip_damaged = True
    (batch,) = data.eval_batches(imagenet_config, batch_size=24)
    kept = batch["mask"] == 1
    # An ArrayRecord file without its end has lost the index to all of it.
    assert 0 < kept.sum() < 24 if "tfrecord" in path.name else not kept.any()
    np.testing.assert_array_equal(batch["image"][kept], whole[0]["image"][kept])


def test_a_split_that_is_not_there(imagenet_config: ml_collections.ConfigDict) -> None:
    imagenet_config.eval_split = "test"
    with pytest.raises(UserError, match=r"'test' is not a split .* train \(24 examples\), validation \(9 examples\)"):
        data.load_info(imagenet_config)
