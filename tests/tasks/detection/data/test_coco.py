"""Data sets in COCO's format: the generated one, and what training and evaluation read of it in batches."""

import shutil
from itertools import islice

import numpy as np
import pytest
from coco_files import SPLITS, config_of
from pycocotools.coco import COCO

from slimjax.errors import UserError
from slimjax.tasks.builders import prepare
from slimjax.tasks.detection.data.annotations import read_annotations
from slimjax.tasks.detection.data.coco import GROUPS, group_of
from slimjax.tasks.detection.data.opening import open_data
from slimjax.tasks.detection.data.shapes import CATEGORIES
from slimjax.tasks.detection.task import example_settings


def test_shapes_are_annotated_as_coco_does(official):
    """pycocotools reads the file, and finds in its masks what the annotations say."""
    api = COCO(official / "annotations" / "instances_train2017.json")
    entries = list(api.anns.values())
    assert {
        "polygons": any(isinstance(entry["segmentation"], list) for entry in entries),
        "runs": any(isinstance(entry["segmentation"], dict) and not entry["iscrowd"] for entry in entries),
        "crowds": any(entry["iscrowd"] for entry in entries),
    } == {"polygons": True, "runs": True, "crowds": True}
    for entry in entries:
        mask = api.annToMask(entry)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
        assert entry["bbox"] == box
        assert entry["area"] == mask.sum()
    found = read_annotations(official / "annotations" / "instances_train2017.json")
    assert not found.problems.lines()
    assert {group_of(image) for image in found.images} >= set(GROUPS[::2])


def rows_of(boxes, labels, crowds):
    """Objects as sorted rows."""
    return np.array(sorted([*box, label, crowd] for box, label, crowd in zip(boxes, labels, crowds, strict=True)))


def test_every_image_comes_once_with_the_objects_of_its_file(official, data):
    assert data.info.class_names == CATEGORIES
    images = read_annotations(official / "annotations" / "instances_val2017.json").images
    stored = sorted(images, key=lambda image: GROUPS.index(group_of(image)))
    seen = []
    for batch in data.eval_batches(0, 1):
        for place in np.flatnonzero(batch["mask"]).tolist():
            seen.append(int(batch["index"][place]))
            image, there = stored[seen[-1]], batch["there"][place]
            height, width = batch["size"][place]
            assert max(height, width) == 128
            scales = np.array([width / image.width, height / image.height] * 2)
            corners = [np.add(a.bbox, [0, 0, *a.bbox[:2]]) for a in image.annotations]
            expected = [(box * scales, a.label, a.is_crowd) for box, a in zip(corners, image.annotations, strict=True)]
            found = rows_of(*(batch[name][place][there] for name in ("boxes", "labels", "crowds")))
            np.testing.assert_allclose(
                found, rows_of(*zip(*expected, strict=True)) if expected else found[:0], rtol=1e-5
            )
    assert sorted(seen) == list(range(SPLITS["val2017"]))


def test_an_epoch_of_training_has_no_image_twice_and_none_without_objects(data):
    """A mirrored image has the same sum as itself."""
    seen = []
    for batch in islice(data.train_batches(0, 0, 1), data.info.num_train_examples // 4):
        assert batch["image"].shape[0] == 4
        assert batch["there"].any(1).all()
        seen += batch["image"].sum((1, 2, 3), np.int64).tolist()
    assert len(set(seen)) == data.info.num_train_examples


def test_images_without_objects_are_trained_on_where_asked_for(prepared, official):
    config = config_of(prepared)
    config.detection.with_empty, config.batch_size = True, 1
    data = open_data(config, example_settings(config))
    assert data.info.num_train_examples == SPLITS["train2017"]
    batches = list(islice(data.train_batches(0, 0, 1), SPLITS["train2017"]))
    images = read_annotations(official / "annotations" / "instances_train2017.json").images
    empty = [batch for batch in batches if not batch["there"].any()]
    assert len(empty) == sum(not image.annotations for image in images) > 0
    for batch in empty:
        assert batch.keys() == batches[0].keys()
        assert batch["image"].any()
        for name in ("boxes", "labels", "crowds", "masks", "keypoints"):
            assert batch[name].shape == batches[0][name].shape
            assert not batch[name].any()


def test_a_stream_goes_on_where_another_one_was(data):
    whole = list(islice(data.train_batches(0, 0, 1), 12))
    for batch, expected in zip(islice(data.train_batches(9, 0, 1), 3), whole[9:], strict=True):
        for name, values in expected.items():
            np.testing.assert_array_equal(batch[name], values, err_msg=name)


def test_two_hosts_share_what_one_has(data):
    whole, first, second = (next(data.train_batches(3, *process)) for process in ((0, 1), (0, 2), (1, 2)))
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([first[name], second[name]]), values, err_msg=name)


@pytest.mark.parametrize(("flip", "num_keypoints", "lines"), [(True, 4, 1), (False, 4, 0), (True, 0, 0)])
def test_keypoints_that_stay_themselves_in_mirrors_are_told(official, tmp_path, capsys, flip, num_keypoints, lines):
    """Once when the data set is written, and once when a training with mirrored images begins."""
    folder = shutil.copytree(official, tmp_path / "files")
    for path in (folder / "annotations").iterdir():
        path.write_text(path.read_text().replace('"left"', '"west"'))
    prepare("coco/instances", str(tmp_path / "data"), str(folder), "array_record")
    told = "none of the 4 keypoints changes places in a mirror"
    assert capsys.readouterr().err.count(told) == 1
    config = config_of(tmp_path / "data")
    config.dataset.flip, config.detection.num_keypoints = flip, num_keypoints
    data = open_data(config, example_settings(config))
    assert told not in capsys.readouterr().err
    data.train_batches(0, 0, 2)
    data.train_batches(0, 1, 2)
    assert capsys.readouterr().err.count(f"dataset.flip=True, and {told}") == lines


def test_keypoints_that_change_places_are_named_once(official, tmp_path, capsys):
    prepare("coco/instances", str(tmp_path), str(official), "array_record")
    assert "keypoints that change places in a mirror: right and left\n" in capsys.readouterr().err
    config = config_of(tmp_path)
    open_data(config, example_settings(config)).train_batches(0, 0, 1)
    assert "mirror" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dataset.name", "digits", "dataset.name='digits' is not of detection; choose shapes, coco/instances"),
        ("dataset.name", "coco/panoptic", "coco/panoptic"),
        ("dataset.name", "coco/person_keypoints", "must be fetched by hand: put the files into a folder DIR"),
        ("dataset.eval_split", "test", "dataset.eval_split='test' does not exist"),
        ("detection.num_keypoints", 17, "objects of data set 'coco/instances' have 4; set it to that, or to 0"),
        ("batch_size", 500, "fill no batch of batch_size=500; give a smaller one"),
    ],
)
def test_mistakes_in_the_configuration_are_named(prepared, key, value, message):
    config = config_of(prepared)
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError) as caught:
        open_data(config, example_settings(config))
    assert message in str(caught.value)
