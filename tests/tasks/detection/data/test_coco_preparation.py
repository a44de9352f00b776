"""What is written of files in COCO's format, and files that are missing, damaged or odd."""

import json
import shutil
import zipfile

import numpy as np
import pytest
from coco_files import SPLITS, config_of
from PIL import Image
from tensorflow_datasets.core import shuffle

from slimjax.errors import UserError
from slimjax.tasks.builders import check_detection, open_builder, prepare
from slimjax.tasks.detection.data.annotations import read_annotations
from slimjax.tasks.detection.data.coco import GROUPS, group_of
from slimjax.tasks.detection.data.opening import open_data
from slimjax.tasks.detection.task import example_settings


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
