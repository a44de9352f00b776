"""What is proposed and detected against the rules read one box at a time, in Python's own numbers."""

import math
from dataclasses import replace

import jax
import numpy as np
import pytest
from boxes_by_hand import decoded, greedy

from slimjax.tasks.detection.proposals import Proposals, detections_of, proposals_of
from slimjax.tasks.detection.settings import ProposalSettings, Settings

HEIGHT, WIDTH = 50, 70
SIZE = np.array([HEIGHT, WIDTH], np.float32)
# Of Faster R-CNN: none for anchors, these for regions.
ANCHOR_STDS, REGION_STDS = (1, 1, 1, 1), (0.1, 0.1, 0.2, 0.2)


def boxes_within(rng, count):
    corners = rng.uniform(0, 40, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(4, 30, (count, 2))], 1).astype(np.float32)


def levels(rng, counts):
    """Logits, shifts and anchors of each level; some anchors are moved out of the image altogether."""
    logits = [rng.normal(size=count).astype(np.float32) for count in counts]
    shifts = [rng.normal(0, 0.3, (count, 4)).astype(np.float32) for count in counts]
    for of_level in shifts:
        of_level[::7, 0] = 20
    return logits, shifts, [boxes_within(rng, count) for count in counts]


def proposed(logits, shifts, anchors, limits, threshold):
    """Scores and boxes, the best first."""
    found = []
    for of_level, deltas, references in zip(logits, shifts, anchors, strict=True):
        best = sorted(range(len(of_level)), key=lambda i: (-of_level[i], i))[: limits.candidates]
        boxes = [decoded(deltas[i], references[i], ANCHOR_STDS, HEIGHT, WIDTH) for i in best]
        has_size = [box[2] > box[0] and box[3] > box[1] for box in boxes]
        scores = [of_level[i] if sized else -math.inf for i, sized in zip(best, has_size, strict=True)]
        found += [(scores[k], boxes[k]) for k in greedy(boxes, scores, threshold, [0] * len(boxes))]
    return sorted(found, key=lambda each: -each[0])[: limits.proposals]


@pytest.mark.parametrize(
    ("counts", "limits"),
    [
        ((60, 20, 5), ProposalSettings(30, 25)),
        # More than there can be, and of one level fewer anchors than candidates.
        ((12, 3), ProposalSettings(10, 40)),
    ],
)
def test_proposals_are_the_best_of_each_level_that_do_not_overlap(rng, counts, limits):
    logits, shifts, anchors = levels(rng, counts)
    expected = proposed(logits, shifts, anchors, limits, 0.5)
    found = jax.jit(proposals_of, static_argnums=(4, 5))(logits, shifts, anchors, SIZE, limits, 0.5)
    assert found.boxes.shape == (limits.proposals, 4)
    assert found.there.tolist() == [True] * len(expected) + [False] * (limits.proposals - len(expected))
    np.testing.assert_allclose(found.boxes[: len(expected)], [box for _, box in expected], rtol=1e-5, atol=1e-4)


def test_nothing_is_proposed_where_every_box_is_beyond_the_image(rng):
    logits, shifts, anchors = levels(rng, (9, 4))
    for of_level in shifts:
        of_level[:, 1] = -20
    found = proposals_of(logits, shifts, anchors, SIZE, ProposalSettings(5, 6), 0.5)
    assert not found.there.any()
    assert np.isfinite(found.boxes).all()


SETTINGS = Settings(score_threshold=0.15, nms_iou=0.4, detections=8, candidates=1000)


def detected(logits, shifts, proposals, settings):
    """Score, label and box of each, the best first."""
    pairs = []
    for region, (box, there) in enumerate(zip(proposals.boxes, proposals.there, strict=True)):
        odds = [math.exp(float(value)) for value in logits[region]]
        for label in range(len(odds) - 1):
            score = odds[label] / sum(odds)
            if there and score > settings.score_threshold:
                pairs.append((score, label, decoded(shifts[region][label], box, REGION_STDS, HEIGHT, WIDTH)))
    pairs = sorted(pairs, key=lambda pair: -pair[0])[: settings.candidates]
    scores, labels, boxes = zip(*pairs, strict=True) if pairs else ((), (), ())
    return [pairs[k] for k in greedy(boxes, scores, settings.nms_iou, labels)][: settings.detections]


@pytest.mark.parametrize("settings", [SETTINGS, replace(SETTINGS, candidates=12), replace(SETTINGS, detections=300)])
def test_detections_are_the_best_pairs_of_region_and_class_that_do_not_overlap(rng, settings):
    count, classes = 40, 3
    proposals = Proposals(boxes_within(rng, count), rng.random(count) < 0.8)
    logits = rng.normal(0, 2, (count, classes + 1)).astype(np.float32)
    shifts = rng.normal(0, 1.5, (count, classes, 4)).astype(np.float32)
    expected = detected(logits, shifts, proposals, settings)
    assert len({label for _, label, _ in expected}) == classes
    found = jax.jit(detections_of, static_argnums=4)(logits, shifts, proposals, SIZE, settings)
    assert found.boxes.shape == (settings.detections, 4)
    there = len(expected)
    assert found.there.tolist() == [True] * there + [False] * (settings.detections - there)
    np.testing.assert_allclose(found.scores[:there], [score for score, _, _ in expected], rtol=1e-5)
    assert found.labels[:there].tolist() == [label for _, label, _ in expected]
    np.testing.assert_allclose(found.boxes[:there], [box for _, _, box in expected], rtol=1e-5, atol=1e-4)
    assert not found.scores[there:].any()


def test_nothing_is_detected_where_nothing_is_likely_or_there(rng):
    proposals = Proposals(boxes_within(rng, 6), np.ones(6, bool))
    background = np.tile(np.array([0, 0, 9], np.float32), (6, 1))
    shifts = np.zeros((6, 2, 4), np.float32)
    assert not detections_of(background, shifts, proposals, SIZE, SETTINGS).there.any()
    absent = Proposals(proposals.boxes, np.zeros(6, bool))
    assert not detections_of(-background, shifts, absent, SIZE, SETTINGS).there.any()
