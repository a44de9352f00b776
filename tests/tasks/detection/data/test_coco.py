"""Data sets in COCO's format: generated, written as files, prepared by tfds, read in batches, evaluated."""

import json
import shutil
import zipfile
from itertools import islice

import numpy as np
import pytest
from etils import epath
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from slimjax.configs import shapes_keypoint_rcnn
from tensorflow_datasets.core import shuffle

from slimjax.errors import UserError
from slimjax.tasks.builders import check_detection, open_builder, prepare
from slimjax.tasks.detection.data.annotations import read_annotations
from slimjax.tasks.detection.data.coco import GROUPS, group_of
from slimjax.tasks.detection.data.opening import open_data
from slimjax.tasks.detection.data.shapes import CATEGORIES, write_shapes
from slimjax.tasks.detection.task import example_settings

SPLITS = {"train2017": 40, "val2017": 12}


def with_odd_ids(content):
    """Ids as data sets have them: with gaps, in no order, beyond 32 bits."""

    def of_image(id_):
        return 2**33 + (id_ * 7919) % 1009

    categories = [{**category, "id": {1: 90, 2: 3, 3: 17}[category["id"]]} for category in content["categories"]]
    images = [{**image, "id": of_image(image["id"])} for image in content["images"]]
    annotations = [
        {
            **entry,
            "id": 10 * entry["id"],
            "image_id": of_image(entry["image_id"]),
            "category_id": {1: 90, 2: 3, 3: 17}[entry["category_id"]],
        }
        for entry in content["annotations"]
    ]
    return {**content, "categories": categories, "images": images, "annotations": annotations}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """Files laid out as COCO's are, unpacked."""
    folder = tmp_path_factory.mktemp("official")
    write_shapes(folder, SPLITS, seed=1)
    for path in (folder / "annotations").iterdir():
        path.write_text(json.dumps(with_odd_ids(json.loads(path.read_text()))))
    return folder


@pytest.fixture(scope="module")
def prepared(official, tmp_path_factory):
    """Where the data set has been prepared from zip files."""
    zips = tmp_path_factory.mktemp("zips")
    with zipfile.ZipFile(zips / "annotations_trainval2017.zip", "w") as archive:
        for path in (official / "annotations").iterdir():
            archive.write(path, f"annotations/{path.name}")
    for split in SPLITS:
        with zipfile.ZipFile(zips / f"{split}.zip", "w") as archive:
            for path in sorted((official / split).iterdir()):
                archive.write(path, f"{split}/{path.name}")
    data_dir = tmp_path_factory.mktemp("data")
    _, is_new = prepare("coco/instances", str(data_dir), str(zips), "array_record")
    assert is_new
    _, is_new = prepare("coco/instances", str(data_dir), str(zips), "array_record")
    assert not is_new, "nothing is written twice"
    return data_dir


def config_of(prepared):
    config = shapes_keypoint_rcnn.get_config()
    config.detection.masks = True
    config.batch_size = 4
    config.dataset.name, config.dataset.data_dir = "coco/instances", str(prepared)
    config.dataset.train_split, config.dataset.eval_split = SPLITS
    return config


@pytest.fixture(scope="module")
def data(prepared):
    config = config_of(prepared)
    return open_data(config, example_settings(config))


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


def test_boxes_and_areas_are_stored_exactly(official, tmp_path, rng):
    folder = shutil.copytree(official, tmp_path / "files")
    path = folder / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    for entry in content["annotations"]:
        entry |= {"bbox": rng.uniform(5, 50, 4).tolist(), "area": float(rng.uniform(5, 50))}
    path.write_text(json.dumps(content))
    prepare("coco/instances", str(tmp_path / "data"), str(folder), "array_record")
    stored = open_builder("coco/instances", str(tmp_path / "data"), check_detection).as_data_source("val2017")
    for record in stored:
        own = [entry for entry in content["annotations"] if entry["image_id"] == record["image/id"]]
        np.testing.assert_array_equal(record["objects"]["bbox"], [entry["bbox"] for entry in own])
        np.testing.assert_array_equal(record["objects"]["area"], [entry["area"] for entry in own])


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


def found_everything(data):
    """Batches in which each object is found, and no crowd."""
    for batch in data.eval_batches(0, 1):
        single = batch["there"] & ~batch["crowds"]
        yield {
            **{name: batch[name] for name in ("index", "size", "mask", "boxes", "labels", "masks", "keypoints")},
            "there": single,
            "scores": np.where(single, 0.9, 0.0),
        }


def test_whoever_finds_everything_has_all_of_the_average_precision(data):
    batches = list(found_everything(data))
    assert sum(int(batch["mask"].sum()) for batch in batches) == SPLITS["val2017"]
    figures = data.figures(batches)
    assert figures["box_ap"] == pytest.approx(100)
    assert figures["mask_ap50"] == pytest.approx(100)
    assert figures["mask_ap"] > 85, "masks are kept at 28 by 28 pixels"
    assert figures["keypoint_ap"] == pytest.approx(100)


def test_mistakes_cost_what_coco_says(data):
    """One category is never found: two thirds of the mean over categories are left."""
    batches = [{**batch, "there": batch["there"] & (batch["labels"] != 1)} for batch in found_everything(data)]
    assert data.figures(batches)["box_ap50"] == pytest.approx(200 / 3)
    moved = [{**batch, "boxes": batch["boxes"] + 1000.0} for batch in found_everything(data)]
    assert data.figures(moved)["box_ap"] == 0
    nothing = [{**batch, "there": batch["there"] & False} for batch in found_everything(data)]
    assert set(data.figures(nothing).values()) == {0.0}


def test_what_is_found_in_an_image_without_objects_is_a_mistake_once(official, tmp_path):
    """With the best score of all it leaves n of n + 1 as the precision of a category of n objects, at every recall."""
    folder = shutil.copytree(official, tmp_path / "files")
    path = folder / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    emptied = content["images"][0]["id"]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != emptied]
    path.write_text(json.dumps(content))
    prepare("coco/instances", str(tmp_path / "data"), str(folder), "array_record")
    config = config_of(tmp_path / "data")
    config.batch_size = 8
    data = open_data(config, example_settings(config))
    batches, mistakes, padding = list(found_everything(data)), 0, 0
    for batch in batches:
        is_padding = batch["mask"] == 0
        empty = ~batch["there"].any(1) & ~is_padding
        mistakes, padding = mistakes + empty.sum(), padding + is_padding.sum()
        for place in np.flatnonzero(empty | is_padding):
            batch["there"][place, :3], batch["scores"][place, :3] = True, 1.0
            batch["labels"][place, :3], batch["boxes"][place, :3] = np.arange(3), [10.0, 10.0, 40.0, 40.0]
    assert mistakes == 1
    assert padding, "what is found there does not count"
    single = [entry["category_id"] for entry in content["annotations"] if not entry["iscrowd"]]
    counts = np.array([single.count(id_) for id_ in (90, 3, 17)])
    assert data.figures(batches)["box_ap"] == pytest.approx(100 * np.mean(counts / (counts + 1)))


@pytest.mark.parametrize(("part", "figure"), [("bbox", "box"), ("segm", "mask"), ("keypoints", "keypoint")])
def test_official_tools_read_the_results(data, official, tmp_path, part, figure):
    """pycocotools comes to the same from the files on disk and the data set's own annotation file."""
    # Not perfect, or every mistake in them would show as nothing else.
    batches = [{**batch, "boxes": batch["boxes"] + [3.0, 0.0, 0.0, 5.0]} for batch in found_everything(data)]
    figures = data.figures(batches, epath.Path(tmp_path) / "results" / "width_0.25")
    names = {path.name for path in (tmp_path / "results").iterdir()}
    assert names == {f"width_0.25_{name}.json" for name in ("bbox", "segm", "keypoints")}
    truth = COCO(official / "annotations" / "instances_val2017.json")
    found = truth.loadRes(str(tmp_path / "results" / f"width_0.25_{part}.json"))
    evaluation = COCOeval(truth, found, part)
    if part == "keypoints":
        evaluation.params.kpt_oks_sigmas = np.full(4, 0.05)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert figures[f"{figure}_ap"] == 100 * evaluation.stats[0]
    assert figures[f"{figure}_ap50"] == 100 * evaluation.stats[1]


def test_an_object_without_a_mask_is_its_box(official, tmp_path):
    shutil.copytree(official, tmp_path / "official")
    path = tmp_path / "official" / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation["segmentation"] = []
    path.write_text(json.dumps(content))
    prepare("coco/instances", str(tmp_path / "data"), str(tmp_path / "official"), "array_record")
    config = config_of(tmp_path / "data")
    data = open_data(config, example_settings(config))
    batches = [{**batch, "masks": np.ones_like(batch["masks"], float)} for batch in found_everything(data)]
    assert data.figures(batches)["mask_ap50"] == pytest.approx(100)


@pytest.mark.parametrize("annotated", ["upright", "as stored", "neither"])
def test_images_of_turned_cameras_are_as_large_as_annotated(official, tmp_path, annotated):
    """Nobody's tool would say which it goes by: what fits does."""
    folder = shutil.copytree(official, tmp_path / "files")
    path = folder / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    image = content["images"][0]
    with Image.open(folder / "val2017" / image["file_name"]) as picture:
        lying, exif = picture.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6
    lying.save(folder / "val2017" / image["file_name"], exif=exif)
    height, width = image["height"], image["width"]
    assert height != width
    sizes = {"upright": (height, width), "as stored": (width, height), "neither": (height, width + 1)}
    image["height"], image["width"] = sizes[annotated]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != image["id"]]
    path.write_text(json.dumps(content))
    if annotated == "neither":
        with pytest.raises(
            UserError, match=f"has {height} x {width} pixels, its annotations say {height} x {width + 1}"
        ):
            prepare("coco/instances", str(tmp_path / "data"), str(folder), "array_record")
        return
    prepare("coco/instances", str(tmp_path / "data"), str(folder), "array_record")
    config = config_of(tmp_path / "data")
    data = open_data(config, example_settings(config))
    images = sorted(read_annotations(path).images, key=lambda image: GROUPS.index(group_of(image)))
    place = [image.id for image in images].index(image["id"])
    batch = next(batch for batch in data.eval_batches(0, 1) if place in batch["index"][batch["mask"] > 0])
    seen = batch["size"][batch["index"].tolist().index(place)]
    assert bool(seen[0] > seen[1]) == (image["height"] > image["width"])


@pytest.mark.parametrize("damaged", ["val2017.zip", "annotations_trainval2017.zip"])
def test_a_zip_file_that_was_cut_short_is_named(official, tmp_path, damaged):
    folder = shutil.copytree(official, tmp_path / "files")
    shutil.rmtree(folder / ("annotations" if "annotations" in damaged else "val2017"))
    (folder / damaged).write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UserError, match=f"{damaged} is damaged or cut short .*; fetch it again"):
        prepare("coco/instances", str(tmp_path / "data"), str(folder), "array_record")


def test_a_damaged_image_in_a_zip_file_is_named(official, tmp_path):
    folder = shutil.copytree(official, tmp_path / "files")
    with zipfile.ZipFile(folder / "val2017.zip", "w") as archive:
        for path in sorted((folder / "val2017").iterdir()):
            archive.write(path, f"val2017/{path.name}")
    shutil.rmtree(folder / "val2017")
    with zipfile.ZipFile(folder / "val2017.zip") as archive:
        start = archive.getinfo("val2017/000004.jpg").header_offset
    content = bytearray((folder / "val2017.zip").read_bytes())
    content[start + 200] ^= 255
    (folder / "val2017.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"val2017\.zip.*: '000004\.jpg' is damaged .*; fetch the archive again"):
        prepare("coco/instances", str(tmp_path / "data"), str(folder), "array_record")


def test_splits_may_have_underscores_in_their_names(official, tmp_path):
    folder = shutil.copytree(official, tmp_path / "files")
    (folder / "val2017").rename(folder / "my_val")
    (folder / "annotations" / "instances_val2017.json").rename(folder / "annotations" / "instances_my_val.json")
    prepare("coco/instances", str(tmp_path / "data"), str(folder), "array_record")
    builder = open_builder("coco/instances", str(tmp_path / "data"), check_detection)
    assert builder.info.splits["my_val"].num_examples == SPLITS["val2017"]


def test_a_large_split_is_sorted_in_parts(official, tmp_path, monkeypatch):
    """What tfds sorts in memory at a time is a bucket; what it cannot hold comes to many, and keeps its order."""
    seen, iterate = set(), shuffle.Shuffler.__iter__

    def watched(shuffler):
        seen.add((sum(shuffler.bucket_lengths), max(shuffler.bucket_lengths)))
        return iterate(shuffler)

    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1000)
    monkeypatch.setattr(shuffle.Shuffler, "__iter__", watched)
    prepare("coco/instances", str(tmp_path), str(official), "array_record")
    assert seen == {(count, 1) for count in SPLITS.values()}
    images = read_annotations(official / "annotations" / "instances_val2017.json").images
    stored = sorted(images, key=lambda image: GROUPS.index(group_of(image)))
    source = open_builder("coco/instances", str(tmp_path), check_detection).as_data_source("val2017")
    assert [int(record["image/id"]) for record in source] == [image.id for image in stored]


def test_what_is_missing_is_named(official, tmp_path):
    folder = shutil.copytree(official, tmp_path / "files")
    with pytest.raises(UserError, match=r"has no annotations/instances_SPLIT\.json"):
        prepare("coco/instances", str(tmp_path / "a"), str(folder / "annotations"), "array_record")
    shutil.rmtree(folder / "val2017")
    with pytest.raises(UserError, match=r"neither val2017/ nor val2017\.zip"):
        prepare("coco/instances", str(tmp_path / "b"), str(folder), "array_record")
    shutil.copytree(official / "val2017", folder / "val2017")
    for name in ("000003.jpg", "000005.jpg"):
        (folder / "val2017" / name).unlink()
    with pytest.raises(UserError, match=r"lacks 2 of the 12 images that its annotations list \(the first: '000003"):
        prepare("coco/instances", str(tmp_path / "c"), str(folder), "array_record")
    shutil.copy2(official / "val2017" / "000005.jpg", folder / "val2017")
    shutil.copy2(folder / "val2017" / "000004.jpg", folder / "val2017" / "000003.jpg")
    with pytest.raises(UserError, match=r"000003\.jpg has .* pixels, its annotations say"):
        prepare("coco/instances", str(tmp_path / "c"), str(folder), "array_record")
    (folder / "val2017" / "000003.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"000003\.jpg is no image that can be read"):
        prepare("coco/instances", str(tmp_path / "c"), str(folder), "array_record")
    path = folder / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "ball"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="the splits differ in their category names"):
        prepare("coco/instances", str(tmp_path / "d"), str(folder), "array_record")


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
