"""Targets and losses of one image against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slimjax.tasks.detection.keypoints import keypoints_of
from slimjax.tasks.detection.matching import Objects
from slimjax.tasks.detection.proposals import Proposals
from slimjax.tasks.detection.settings import Settings
from slimjax.tasks.detection.targets import (
    Regions,
    box_losses,
    keypoint_loss,
    keypoint_targets,
    mask_loss,
    mask_targets,
    proposal_losses,
    sampled_regions,
)

SMALL = Settings(rpn_samples=16, box_samples=12)


def objects_of(boxes, labels=None, **more):
    count = len(boxes)
    labels = np.zeros(count, np.int32) if labels is None else np.asarray(labels, np.int32)
    return Objects(
        jnp.asarray(boxes, jnp.float32), jnp.asarray(labels), np.ones(count, bool), np.zeros(count, bool), **more
    )


def nothing(masks=None, keypoints=None):
    empty = jnp.zeros((3, 4)), jnp.zeros(3, jnp.int32), jnp.zeros(3, bool), jnp.zeros(3, bool)
    return Objects(*empty, masks, keypoints)


def regions_of(boxes, positive, objects):
    count = len(boxes)
    return Regions(
        jnp.asarray(boxes, jnp.float32), jnp.ones(count, bool), jnp.asarray(positive), jnp.asarray(objects, jnp.int32)
    )


def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def plain_smooth_l1(x, beta):
    x = np.abs(x)
    return np.where(x < beta, 0.5 * x**2 / beta, x - 0.5 * beta).sum(-1)


def coded(box, reference, stds=(1, 1, 1, 1)):
    (left, top, right, bottom), (rl, rt, rr, rb) = box, reference
    width, height = rr - rl, rb - rt
    shift = ((left + right - rl - rr) / 2 / width, (top + bottom - rt - rb) / 2 / height)
    return np.array([*shift, np.log((right - left) / width), np.log((bottom - top) / height)]) / stds


def test_proposal_losses_when_every_anchor_is_sampled(rng):
    anchors = np.array([[0, 0, 20, 20], [2, 2, 22, 22], [60, 60, 80, 80], [0, 0, 14, 20]], np.float32)
    logits, shifts = rng.normal(size=4).astype(np.float32), rng.normal(size=(4, 4)).astype(np.float32)
    box = [0, 0, 20, 20]
    losses = proposal_losses(logits, shifts, anchors, objects_of([box]), jax.random.key(0), SMALL)
    # IoU 1, .68, 0 and .7: an object, neither, background, an object.
    classes = np.log1p(np.exp(-logits[0])) + np.log1p(np.exp(-logits[3])) + np.log1p(np.exp(logits[2]))
    distances = [plain_smooth_l1(shifts[i] - coded(box, anchors[i]), 1 / 9) for i in (0, 3)]
    assert float(losses["rpn_class"]) == pytest.approx(classes / 3, rel=1e-4)
    assert float(losses["rpn_box"]) == pytest.approx(sum(distances) / 3, rel=1e-4)


def test_box_losses_written_out(rng):
    boxes = [[0, 0, 20, 20], [30, 30, 60, 50]]
    regions = regions_of([[1, 1, 22, 19], [28, 31, 58, 52], [70, 70, 90, 90]], [True, True, False], [0, 1, 0])
    logits, shifts = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(3, 3, 4)).astype(np.float32)
    losses = box_losses(logits, shifts, regions, objects_of(boxes, labels=[2, 1]))
    right = log_softmax(logits.astype(np.float64))[[0, 1, 2], [2, 1, 3]]
    assert float(losses["box_class"]) == pytest.approx(-right.mean(), rel=1e-5)
    stds = np.array([0.1, 0.1, 0.2, 0.2])
    distances = [
        plain_smooth_l1(shifts[i, label] - coded(boxes[i], np.asarray(regions.boxes)[i], stds), 1.0)
        for i, label in ((0, 2), (1, 1))
    ]
    assert float(losses["box"]) == pytest.approx(sum(distances) / 3, rel=1e-5)


def test_regions_come_from_proposals_and_from_the_objects_themselves():
    proposals = Proposals(jnp.array([[50.0, 50, 60, 60], [0, 0, 19, 20]]), jnp.array([True, False]))
    regions = sampled_regions(proposals, objects_of([[0, 0, 20, 20]]), jax.random.key(0), SMALL)
    there = np.asarray(regions.there)
    assert np.asarray(regions.boxes)[there].tolist() == [[0, 0, 20, 20], [50, 50, 60, 60]], "the second is padding"
    assert np.asarray(regions.positive)[there].tolist() == [True, False]


def test_mask_targets_are_the_shape_at_the_middles_of_the_bins():
    """A disc, drawn at 112 pixels within its box, and asked for in regions that are shifted, larger and smaller."""
    centre, radius = np.array([40.0, 60.0]), 20.0
    y, x = np.mgrid[:112, :112]
    mask = ((x + 0.5 - 56) ** 2 + (y + 0.5 - 56) ** 2 <= 56**2).astype(np.uint8)
    objects = objects_of([[20, 40, 60, 80]], masks=jnp.asarray(mask[None]))
    boxes = [[20, 40, 60, 80], [10, 45, 50, 70], [0, 0, 100, 120], [42, 61, 50, 66], [70, 90, 90, 99]]
    targets = np.asarray(mask_targets(regions_of(boxes, [True] * 5, [0] * 5), objects, 28))
    for found, (left, top, right, bottom) in zip(targets, boxes, strict=True):
        middles = (np.arange(28) + 0.5) / 28
        dy = (top + middles * (bottom - top) - centre[1])[:, None]
        dx = (left + middles * (right - left) - centre[0])[None, :]
        distance = np.sqrt(dx**2 + dy**2)
        clear = np.abs(distance - radius) > 0.4
        np.testing.assert_array_equal(found[clear], (distance <= radius)[clear])
    assert targets[3].all()
    assert not targets[4].any()


def test_mask_loss_written_out(rng):
    masks = jnp.asarray(rng.integers(0, 2, (2, 16, 16)), jnp.uint8)
    objects = objects_of([[0, 0, 20, 20], [30, 30, 60, 50]], labels=[1, 0], masks=masks)
    regions = regions_of([[0, 0, 20, 20], [30, 30, 60, 50], [3, 3, 9, 9]], [True, True, False], [0, 1, 0])
    logits = rng.normal(size=(3, 8, 8, 2)).astype(np.float32)
    targets = np.asarray(mask_targets(regions, objects, 8))
    expected = [
        np.where(target, np.log1p(np.exp(-own)), np.log1p(np.exp(own))).mean()
        for own, target in ((logits[0, :, :, 1], targets[0]), (logits[1, :, :, 0], targets[1]))
    ]
    assert float(mask_loss(logits, regions, objects)) == pytest.approx(np.mean(expected), rel=1e-5)


def test_keypoints_are_in_the_bins_that_hold_them():
    keypoints = [[[10, 20, 2], [49.9, 39.9, 1], [50, 40, 2], [12, 22, 0], [51, 30, 2]]]
    objects = objects_of([[10, 20, 50, 40]], keypoints=jnp.array(keypoints, jnp.float32))
    regions = regions_of([[10, 20, 50, 40], [10, 20, 50, 40]], [True, False], [0, 0])
    bins, visible = keypoint_targets(regions, objects, size=56)
    assert np.asarray(bins)[0, :3].tolist() == [0, 56 * 56 - 1, 56 * 56 - 1], "an edge is in the last bin"
    assert np.asarray(visible).tolist() == [[True, True, True, False, False], [False] * 5]


def test_keypoint_loss_written_out(rng):
    objects = objects_of([[0, 0, 8, 8]], keypoints=jnp.array([[[1.5, 2.5, 2], [7.0, 0.0, 1], [3, 3, 0]]], jnp.float32))
    logits = rng.normal(size=(1, 8, 8, 3)).astype(np.float32)
    loss = keypoint_loss(logits, regions_of([[0, 0, 8, 8]], [True], [0]), objects)
    first, second = (log_softmax(logits[0, :, :, k].reshape(-1).astype(np.float64)) for k in (0, 1))
    assert float(loss) == pytest.approx(-(first[2 * 8 + 1] + second[7]) / 2, rel=1e-5)


def test_a_peak_between_bins_is_found_to_a_tenth_of_a_bin():
    """Of a Gaussian the logarithm is a parabola, so its top is found exactly."""
    size, boxes = 56, jnp.array([[10.0, 20.0, 66.0, 132.0]])
    tops = np.array([[20.3, 31.8], [5.0, 40.45]])
    y, x = np.mgrid[:size, :size] + 0.5
    maps = np.stack([-((x - px) ** 2 + (y - py) ** 2) / 8 for px, py in tops], -1).astype(np.float32)
    (points,) = np.asarray(keypoints_of(jnp.asarray(maps[None]), boxes))
    np.testing.assert_allclose(points[:, 0], 10 + tops[:, 0], atol=0.1)
    np.testing.assert_allclose(points[:, 1], 20 + 2 * tops[:, 1], atol=0.2)
    np.testing.assert_allclose(points[:, 2], maps.max((0, 1)), rtol=1e-6)


def test_an_image_without_objects_has_finite_gradients(rng):
    anchors = jnp.asarray(rng.uniform(0, 50, (30, 4)), jnp.float32)
    anchors = anchors.at[:, 2:].add(anchors[:, :2])
    objects = nothing(masks=jnp.zeros((3, 16, 16), jnp.uint8), keypoints=jnp.zeros((3, 2, 3)))
    proposals = Proposals(jnp.zeros((8, 4)), jnp.zeros(8, bool))

    def total(values):
        losses = proposal_losses(values["logits"], values["shifts"], anchors, objects, jax.random.key(0), SMALL)
        regions = sampled_regions(proposals, objects, jax.random.key(1), SMALL)
        losses |= box_losses(values["classes"], values["boxes"], regions, objects)
        losses["mask"] = mask_loss(values["masks"], regions, objects)
        losses["keypoint"] = keypoint_loss(values["keypoints"], regions, objects)
        return sum(losses.values()), losses

    shapes = {
        "logits": (30,), "shifts": (30, 4), "classes": (11, 3), "boxes": (11, 2, 4), "masks": (11, 8, 8, 2),
        "keypoints": (11, 8, 8, 2),
    }  # fmt: skip
    values = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    gradients, losses = jax.jit(jax.grad(total, has_aux=True))(values)
    assert all(np.all(np.isfinite(gradient)) for gradient in jax.tree.leaves(gradients))
    assert float(losses["rpn_class"]) > 0, "background is learned"
    assert not any(float(losses[name]) for name in ("rpn_box", "box_class", "box", "mask", "keypoint"))
