"""A detector in a bundle: what the runtime finds is what the network finds."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from slimjax import SlimmableRuntime, UserError
from slimjax.deploy.bundle import InputEntry, manifest_checksum, read_manifest, write_manifest
from slimjax.deploy.comparing import compare_detections
from slimjax.deploy.exporting import export_bundle
from slimjax.deploy.formats import check_formats
from slimjax.deploy.source import Trained
from slimjax.training.progress import Progress

MEAN, STDDEV = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
OUTPUTS = {"boxes", "keypoints", "labels", "masks", "scores", "there"}


@pytest.fixture(scope="module")
def trained(detector, variables, images):
    return Trained(
        name="resnet_pyramid_tiny",
        task="detection",
        model=detector,
        variables=variables,
        class_names=("disc", "box", "triangle"),
        input=InputEntry(64, 64, "float32", MEAN, STDDEV, "pad", 64, 64),
        image_size=64,
        figures={width: {"box_ap": 10 * width} for width in detector.widths},
        images=np.asarray(images),
    )


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    export_bundle(trained, path, trained.model.widths, Progress(enabled=False))
    return path


def network_finds(trained, images, width):
    find = jax.jit(lambda images: trained.model.apply(trained.variables, images, width)._asdict())
    return jax.tree.map(np.asarray, find(images))


def test_it_finds_what_the_network_finds(trained, bundle):
    runtime = SlimmableRuntime.load(bundle)
    assert runtime.input_shape == (None, 64, 64, 3)
    assert runtime.manifest.outputs.keys() == OUTPUTS
    for width in runtime.widths:
        # Another batch than the one that it was exported with: the batch is open.
        found = runtime.predict(trained.images[:2], width=width)
        expected = network_finds(trained, trained.images[:2], width)
        assert found.keys() == OUTPUTS
        difference, agreement = compare_detections(found, expected)
        assert difference < 1e-4
        assert agreement == 1
        np.testing.assert_allclose(found["masks"], expected["masks"], atol=1e-4)
        np.testing.assert_allclose(found["keypoints"], expected["keypoints"], atol=1e-2)
        for name, entry in runtime.manifest.outputs.items():
            assert found[name].shape == (2, *entry.shape)
            assert found[name].dtype == entry.dtype


def test_figures_and_checks_are_in_the_manifest(bundle):
    manifest = read_manifest(bundle)
    assert [entry.figures for entry in manifest.widths] == [{"box_ap": 5.0}, {"box_ap": 10.0}]
    assert all(program.check.images == 3 for program in manifest.programs["stablehlo"].values())
    assert (manifest.input.fit, manifest.input.long_side) == ("pad", 64)


def test_outputs_that_are_not_the_program_s_are_refused(bundle, tmp_path):
    manifest = read_manifest(bundle)
    narrower = {name: entry for name, entry in manifest.outputs.items() if name != "keypoints"}
    for outputs, message in (
        (narrower, "puts out something else than boxes"),
        ({"boxes": manifest.outputs["boxes"]}, "outputs are boxes, which are not a detector's"),
    ):
        folder = tmp_path / str(len(outputs))
        folder.mkdir()
        for path in bundle.rglob("*"):
            if path.is_file():
                copy = folder / path.relative_to(bundle)
                copy.parent.mkdir(exist_ok=True)
                copy.write_bytes(path.read_bytes())
        write_manifest(folder, dataclasses.replace(manifest, outputs=outputs))
        assert manifest_checksum(manifest) != json.loads((folder / "manifest.json").read_text())["sha256"]
        with pytest.raises(UserError, match=message):
            SlimmableRuntime.load(folder)


def test_formats_without_loops_cannot_hold_detectors():
    check_formats(["stablehlo", "orbax"], "detection")
    with pytest.raises(UserError, match="litert cannot hold a detector; choose among stablehlo, orbax"):
        check_formats(["litert"], "detection")


def test_orbax_has_the_variables_as_they_were_trained(trained, tmp_path):
    """The export itself compares, and refuses what differs."""
    manifest = export_bundle(trained, tmp_path / "bundle", (1.0,), Progress(enabled=False), ("orbax",))
    (program,) = manifest.programs["orbax"].values()
    assert program.check.agreement == 1
    assert program.check.largest_difference < 1e-4


def test_detections_are_compared_by_boxes_of_a_category():
    def batch(boxes, labels, scores):
        arrays = {"boxes": np.array([boxes], np.float32), "labels": np.array([labels])}
        return {**arrays, "scores": np.array([scores]), "there": np.array([[True] * len(boxes)])}

    boxes = [[0, 0, 10, 10], [20, 20, 40, 40], [0, 0, 10, 10]]
    ours = batch(boxes, [0, 1, 2], [0.9, 0.5, 0.01])
    assert compare_detections(ours, ours) == (0.0, 1.0)
    # Another order, a box a hair larger, a score that differs; what scores next to nothing is left out.
    theirs = batch([[20, 20, 40, 40.5], [0, 0, 10, 10], [5, 5, 9, 9]], [1, 0, 2], [0.5, 0.8, 0.02])
    difference, agreement = compare_detections(ours, theirs)
    assert difference == pytest.approx(0.1)
    assert agreement == 1
    another_category = batch(boxes, [0, 2, 2], [0.9, 0.5, 0.01])
    assert compare_detections(ours, another_category) == (0.0, 1 / 3)
    nothing = {**ours, "there": np.zeros((1, 3), bool)}
    assert compare_detections(nothing, nothing) == (0.0, 1.0)
    assert compare_detections(ours, nothing) == (0.0, 0.0)


def test_detections_of_other_masks_or_keypoints_are_others():
    ours = {
        "boxes": np.array([[[0, 0, 10, 10], [20, 20, 40, 40]]], np.float32),
        "labels": np.array([[0, 1]]),
        "scores": np.array([[0.9, 0.5]]),
        "there": np.array([[True, True]]),
        "masks": np.linspace(0, 1, 2 * 28 * 28).reshape(1, 2, 28, 28),
        "keypoints": np.arange(24.0).reshape(1, 2, 4, 3),
    }
    assert compare_detections(ours, ours) == (0.0, 1.0)
    nearly = {**ours, "masks": ours["masks"] + 1e-4, "keypoints": ours["keypoints"] + 0.5}
    assert compare_detections(nearly, ours) == (0.0, 1.0)
    for part, damage in (("masks", lambda masks: 1 - masks), ("keypoints", lambda points: points + np.eye(3)[0] * 1.5)):
        damaged = ours[part].copy()
        damaged[0, 1] = damage(damaged[0, 1])
        assert compare_detections({**ours, part: damaged}, ours) == (0.0, 1 / 3), part
