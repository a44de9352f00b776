"""Detectors through the real program: they learn at every width, and start from a classifier."""

import numpy as np
import pytest
from programs import STEPS_OF_ONE, arrays_of, lines_of

SMALL = [
    "--config.detection.masks=True",
    "--config.detection.num_keypoints=4",
    "--config.model.widths=(0.25,1.0)",
    "--config.dataset.train_split=validation",
]


def figures_of(workdir):
    """The last evaluation, by name."""
    return next(line for line in reversed(lines_of(workdir)) if "eval/box_ap/width_1" in line)


@pytest.mark.slow
def test_all_heads_learn_at_every_width_and_shared_batch_norms_fail(run_program, tmp_path):
    settings = [*SMALL, "--config.dataset.train_split=train", "--config.num_train_steps=500"]
    for name, method in (("private", "switchable"), ("shared", "shared")):
        arguments = [f"--workdir={tmp_path / name}", *settings, f"--config.model.batch_norm={method}"]
        code, out, err = run_program("--config=shapes_faster_rcnn", *arguments, seconds=1500)
        assert code == 0, err
        assert "keypoint ap50" in out
    figures = figures_of(tmp_path / "private")
    for width in ("0.25", "1"):
        assert figures[f"eval/box_ap50/width_{width}"] > 25, figures
        assert figures[f"eval/mask_ap50/width_{width}"] > 25, figures
        assert figures[f"eval/keypoint_ap50/width_{width}"] > 10, figures
    naive = figures_of(tmp_path / "shared")
    assert min(naive[f"eval/box_ap50/width_{width}"] for width in ("0.25", "1")) < 5, naive


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


def arrays_by_path(workdir):
    for path, array in arrays_of(workdir, 1):
        keys = tuple(str(getattr(key, "key", getattr(key, "name", key))) for key in path)
        if keys[0] in ("params", "batch_stats"):
            yield keys, np.asarray(array)
