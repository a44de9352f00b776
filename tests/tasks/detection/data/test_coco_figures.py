"""Figures of what is found in a data set in COCO's format, against those of COCO's own tools."""

import json
import shutil

import numpy as np
import pytest
from coco_files import SPLITS, config_of
from etils import epath
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from slimjax.tasks.builders import prepare
from slimjax.tasks.detection.data.opening import open_data
from slimjax.tasks.detection.task import example_settings


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
