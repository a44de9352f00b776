"""Arithmetic of boxes, one at a time in Python: what detection is compared with."""

import math


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def overlap(a, b):
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def iou(a, b):
    common = overlap(a, b)
    union = area(a) + area(b) - common
    return common / union if union > 0 else 0


def greedy(boxes, scores, threshold, groups):
    """Indices that greedy suppression keeps, ascending; what has a score of minus infinity is not there."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        alone = all(iou(boxes[i], boxes[j]) <= threshold or groups[i] != groups[j] for j in kept)
        if scores[i] > -math.inf and alone:
            kept.append(i)
    return sorted(kept)


def decoded(shifts, reference, stds, height, width):
    """The box that shifts say of a reference (Girshick 2015, arXiv:1504.08083), cut at the image's edges."""
    dx, dy, dw, dh = (float(shift) * std for shift, std in zip(shifts, stds, strict=True))
    side, rise = reference[2] - reference[0], reference[3] - reference[1]
    x, y = (reference[0] + reference[2]) / 2 + dx * side, (reference[1] + reference[3]) / 2 + dy * rise
    side, rise = side * min(math.exp(dw), 62.5), rise * min(math.exp(dh), 62.5)
    corners = (x - side / 2, y - rise / 2, x + side / 2, y + rise / 2)
    return [min(max(place, 0.0), limit) for place, limit in zip(corners, (width, height) * 2, strict=True)]
