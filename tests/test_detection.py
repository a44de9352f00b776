"""Detectors through the real programs: they learn at every width, are shown, shipped, and start from a classifier."""

import json
import re
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image
from programs import STEPS_OF_ONE, arrays_of, lines_of

from slimjax import SlimmableRuntime, load_checkpoint
from slimjax.deploy.comparing import compare_detections
from slimjax.tasks import colours
from slimjax.tasks.detection.data.shapes import write_shapes

SMALL = [
    "--config.detection.masks=True",
    "--config.detection.num_keypoints=4",
    "--config.model.widths=(0.25,1.0)",
    "--config.dataset.train_split=validation",
]

# Too small for any weight to change.
NO_RATE = "--config.learning_rate=1e-20"


def figures_of(workdir):
    """The last evaluation, by name."""
    return next(line for line in reversed(lines_of(workdir)) if "eval/box_ap/width_1" in line)


@pytest.fixture(scope="module")
def train(run_program, tmp_path_factory):
    """Trains with all heads; gives the workdir, and what was printed."""

    def train(batch_norm):
        workdir = tmp_path_factory.mktemp("detectors") / batch_norm
        settings = [*SMALL, "--config.dataset.train_split=train", "--config.num_train_steps=500"]
        arguments = [f"--workdir={workdir}", *settings, f"--config.model.batch_norm={batch_norm}"]
        code, out, err = run_program("--config=shapes_faster_rcnn", *arguments, seconds=3000)
        assert code == 0, err
        return workdir, out

    return train


@pytest.fixture(scope="module")
def trained(train):
    return train("switchable")


@pytest.mark.slow
def test_all_heads_learn_at_every_width(trained, run_program, tmp_path):
    """Against the same network as it began."""
    workdir, out = trained
    assert "keypoint ap50" in out
    arguments = [f"--workdir={tmp_path}", *SMALL, *STEPS_OF_ONE, NO_RATE]
    code, _, err = run_program("--config=shapes_faster_rcnn", *arguments, seconds=900)
    assert code == 0, err
    untrained, figures = figures_of(tmp_path), figures_of(workdir)
    for width in ("0.25", "1"):
        for part, gain in (("box", 25), ("mask", 25), ("keypoint", 10)):
            name = f"eval/{part}_ap50/width_{width}"
            assert figures[name] > untrained[name] + gain, (name, figures, untrained)


@pytest.mark.slow
def test_batch_norms_that_widths_share_fail(train, trained):
    """The narrow width at least: its features are normalised by statistics that are half the wide one's."""
    naive, switchable = figures_of(train("shared")[0]), figures_of(trained[0])
    name = "eval/box_ap50/width_"
    assert naive[f"{name}0.25"] < 0.5 * switchable[f"{name}0.25"], (naive, switchable)
    assert naive[f"{name}1"] < switchable[f"{name}1"] - 3, (naive, switchable)


@pytest.mark.slow
def test_results_are_written_as_coco_takes_them(trained, run_program):
    workdir, _ = trained
    code, out, err = run_program("--mode=eval", f"--workdir={workdir}")
    assert code == 0, err
    folder = workdir / "results" / "step_500"
    assert f"results, as the data set's evaluation takes them: {folder}" in out
    kinds = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}
    for width in ("0.25", "1"):
        for name, key in kinds.items():
            results = json.loads((folder / f"width_{width}_{name}.json").read_text())
            assert results
            assert all(result.keys() == {"image_id", "category_id", "score", key} for result in results)


@pytest.mark.slow
def test_a_report_shows_what_every_width_finds(trained, run_program, tmp_path):
    workdir, _ = trained
    code, _, err = run_program(f"--workdir={workdir}", f"--output={tmp_path}", module="slimjax.report", seconds=900)
    assert code == 0, err
    (run,) = json.loads((tmp_path / "report.json").read_text())["runs"]
    figures = figures_of(workdir)
    for row in run["widths"]:
        assert row["box_ap"] == pytest.approx(figures[f"eval/box_ap/width_{row['width']:g}"], abs=0.5)
        assert row["median_ms"] > 0
    page = (tmp_path / "index.html").read_text()
    assert re.findall(r'<h2 id="(\w+)">', page)[1:] == ["costs", "comparison", "curves", "detections", "batch_norms"]
    assert len(re.findall(r"<figcaption>annotated: \d", page)) == 6
    code, _, err = run_program(f"--workdir={workdir}", "--layer=stem", module="slimjax.report")
    assert code == 2
    assert "--layer=stem is for classifiers" in err


@pytest.mark.slow
def test_pictures_are_drawn_of_a_folder(trained, run_program, tmp_path):
    workdir, _ = trained
    (tmp_path / "images").mkdir()
    write_shapes(tmp_path / "shapes", {"some": 3}, seed=5)
    for path in (tmp_path / "shapes" / "some").iterdir():
        path.rename(tmp_path / "images" / path.name)
    (tmp_path / "images" / "damaged.png").write_bytes(b"no image")
    arguments = [f"--workdir={workdir}", f"--images={tmp_path / 'images'}", f"--output={tmp_path / 'pictures'}"]
    code, out, err = run_program(*arguments, module="slimjax.detect")
    assert code == 0, err
    assert re.search(r"1 left out, as they are no images that can be read \(the first: .*damaged\.png\)", out)
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 3
    found = json.loads((tmp_path / "pictures" / "detections.json").read_text())
    assert {result["width"] for result in found} == {0.25, 1.0}
    assert any(result["score"] > 0.5 for result in found)
    code, _, err = run_program(*arguments[:2], f"--output={tmp_path / 'images'}", module="slimjax.detect")
    assert code == 2
    assert "is where the images are, which drawings would replace" in err


@pytest.mark.slow
def test_a_bundle_finds_what_was_trained(trained, run_program, tmp_path):
    workdir, _ = trained
    bundle = tmp_path / "bundle"
    arguments = [f"--workdir={workdir}", f"--output={bundle}", "--input=uint8", "--formats=stablehlo,orbax"]
    code, out, err = run_program(*arguments, module="slimjax.export", seconds=900)
    assert code == 0, err
    assert "box ap50" in out
    runtime, (model, variables) = SlimmableRuntime.load(bundle), load_checkpoint(workdir)
    write_shapes(tmp_path / "shapes", {"some": 4}, seed=5)
    pictures = [Image.open(path).convert("RGB") for path in sorted((tmp_path / "shapes" / "some").iterdir())]
    images = np.zeros((len(pictures), *runtime.input_shape[1:]), np.uint8)
    for image, picture in zip(images, pictures, strict=True):
        # Cut off at the edges, or with black beside them.
        pixels = np.asarray(picture)[: image.shape[0], : image.shape[1]]
        image[: pixels.shape[0], : pixels.shape[1]] = pixels
    normalised = ((images / 255 - colours.MEAN) / colours.STDDEV).astype(np.float32)
    for width in (0.25, 1.0):
        found = runtime.predict(images, width=width)
        expected = jax.jit(partial(model.apply, width=width))(variables, normalised)._asdict()
        difference, agreement = compare_detections(found, jax.device_get(expected))
        assert difference < 1e-3
        assert agreement > 0.95
        assert np.all(np.any(found["there"] & (found["scores"] > 0.5), axis=1)), "there are objects in every image"
    arguments = [f"--workdir={workdir}", f"--output={tmp_path / 'other'}", "--formats=litert"]
    code, _, err = run_program(*arguments, module="slimjax.export")
    assert code == 2
    assert "--formats=litert cannot hold a detector; choose among stablehlo, orbax" in err


@pytest.mark.slow
def test_a_detector_starts_from_a_classifier(run_program, tmp_path):
    """Its backbone is the classifier's, and what the recipe freezes stays so."""
    classifier, detector = tmp_path / "classifier", tmp_path / "detector"
    images = ["--config.dataset.image_size=64", "--config.dataset.eval_resize=64", "--config.batch_size=8"]
    network = ["--config.model.name=resnet_pyramid_tiny", "--config.model.widths=(0.25,1.0)"]
    code, _, err = run_program(f"--workdir={classifier}", *network, *images, *STEPS_OF_ONE)
    assert code == 0, err
    frozen = ["--config.detection.frozen_stages=1", "--config.detection.frozen_batch_norm=True"]
    arguments = [*SMALL, *frozen, f"--config.init_from={classifier}", *STEPS_OF_ONE]
    code, _, err = run_program("--config=shapes_faster_rcnn", f"--workdir={detector}", *arguments)
    assert code == 0, err
    before, after = (dict(arrays_by_path(workdir)) for workdir in (classifier, detector))
    moved = set()
    for path, array in after.items():
        collection, *below = path
        if below[0] == "backbone" and not np.array_equal(array, before[(collection, *below[1:])]):
            moved.add("/".join(below[1:3]))
            assert (collection, below[-1]) == ("params", "kernel"), "batch norms are frozen"
    assert moved
    assert not {place for place in moved if place.startswith(("stem", "block_1/"))}


@pytest.mark.slow
def test_a_detector_starts_from_another_one_with_new_classes(trained, run_program, tmp_path):
    """What stays as it began are the trained weights; the layers of classes begin anew."""
    settings = ["--config.init_classifier=False", NO_RATE, *STEPS_OF_ONE]
    settings += [
        "--config.detection.masks=True",
        "--config.detection.num_keypoints=4",
        "--config.model.widths=(0.25,1.0)",
    ]
    arguments = [f"--workdir={tmp_path}", f"--config.init_from={trained[0]}", *settings]
    code, _, err = run_program("--config=shapes_faster_rcnn", *arguments, seconds=900)
    assert code == 0, err
    before, after = (dict(arrays_by_path(workdir, step)) for workdir, step in ((trained[0], 500), (tmp_path, 1)))
    moved = {path[1:3] for path, array in after.items() if path[0] == "params" and np.any(array != before[path])}
    assert moved == {("box_head", "classes"), ("box_head", "shifts"), ("mask_head", "masks")}


def arrays_by_path(workdir, step=1):
    for path, array in arrays_of(workdir, step):
        keys = tuple(str(getattr(key, "key", getattr(key, "name", key))) for key in path)
        if keys[0] in ("params", "batch_stats"):
            yield keys, np.asarray(array)
