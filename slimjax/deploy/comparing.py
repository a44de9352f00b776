"""How far what two programs put out for the same images is apart."""

from collections.abc import Mapping

import numpy as np

_LEAST_SCORE = 0.05
"""Of detections that are compared: below it there is a crowd of guesses, cut off at the fixed number of detections."""

_SAME_BOX = 0.9
"""IoU from which two boxes of a category are the same detection."""


_SAME_PLACE = 0.1
"""Pixels within which every coordinate is, of boxes that are the same whatever their area."""

_SAME_BINS = 0.98
"""Share of a mask's bins that are on the same side of one half in masks that are the same."""

_SAME_KEYPOINTS = 0.9
"""Share of the keypoints that are within a pixel where keypoints are the same: of two bins as good, another may win."""


def compare_logits(logits: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """The largest difference of a logit over the largest logit, and the share of images with the same prediction.

    Args:
      logits: [batch, classes].
      expected: likewise.
    """
    difference = float(np.abs(logits - expected).max() / np.abs(expected).max())
    return difference, float(np.mean(logits.argmax(-1) == expected.argmax(-1)))


def compare_detections(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """The largest difference of a score of what both found, and the share of what either found that both did.

    Both found what has the same box, category, mask and keypoints, as far as there are such.

    Args:
      found: arrays [batch, detections, ...] by name, as `slimjax.tasks.detection.proposals.Detections`.
      expected: likewise.
    """
    differences, both, either = [0.0], 0, 0
    for image in range(len(expected["boxes"])):
        ours, theirs = (
            {name: of_name[image][_is_compared(arrays, image)] for name, of_name in arrays.items()}
            for arrays in (found, expected)
        )
        pairs = [(a, b) for a, b in _pairs(ours, theirs) if _are_same_inside(ours, a, theirs, b)]
        differences += [abs(float(ours["scores"][a] - theirs["scores"][b])) for a, b in pairs]
        both += len(pairs)
        either += len(ours["boxes"]) + len(theirs["boxes"]) - len(pairs)
    return max(differences), both / either if either else 1.0


def _is_compared(arrays: Mapping[str, np.ndarray], image: int) -> np.ndarray:
    return arrays["there"][image] & (arrays["scores"][image] >= _LEAST_SCORE)


def _pairs(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> list[tuple[int, int]]:
    """Indices of the same detections, each used once, the best first."""
    pairs: list[tuple[int, int]] = []
    for index, box in enumerate(ours["boxes"]):
        # Boxes at the image's edge may have no area left, and then no overlap.
        same = np.abs(theirs["boxes"] - box).max(-1) < _SAME_PLACE
        overlaps = np.where(same, 1.0, _ious(box, theirs["boxes"]))
        overlaps = np.where(theirs["labels"] == ours["labels"][index], overlaps, 0.0)
        overlaps[[taken for _, taken in pairs]] = 0.0
        if len(overlaps) and overlaps.max() >= _SAME_BOX:
            pairs.append((index, int(overlaps.argmax())))
    return pairs


def _are_same_inside(ours: Mapping[str, np.ndarray], a: int, theirs: Mapping[str, np.ndarray], b: int) -> bool:
    """Whether masks and keypoints are the same of two detections in the same box."""
    same = True
    if "masks" in theirs:
        same &= np.mean((ours["masks"][a] > 0.5) == (theirs["masks"][b] > 0.5)) >= _SAME_BINS
    if "keypoints" in theirs:
        apart = np.abs(ours["keypoints"][a, :, :2] - theirs["keypoints"][b, :, :2]).max(-1)
        same &= np.mean(apart < 1.0) >= _SAME_KEYPOINTS
    return bool(same)


def _ious(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU of a box [4] with others [count, 4]."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), -1)
    areas = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], -1)
    return shared / np.maximum(areas - shared, 1e-9)
