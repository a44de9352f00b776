"""Suppression of static shape against the greedy loop."""

import jax
import numpy as np
import pytest
from boxes_by_hand import greedy

from slimjax.tasks.detection.nms import kept_by_nms

suppress = jax.jit(kept_by_nms, static_argnames="threshold")


def random_boxes(rng, count, spread):
    corners = rng.uniform(0, spread, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(5, 40, (count, 2))], 1).astype(np.float32)


@pytest.mark.parametrize("spread", [5, 30, 200])
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_it_keeps_what_the_greedy_loop_keeps(rng, spread, threshold):
    for count in (1, 40, 120):
        boxes, groups = random_boxes(rng, count, spread), rng.integers(0, 3, count)
        # Few values, so that many scores are equal.
        scores = rng.integers(0, 10, count).astype(np.float32)
        scores[rng.random(count) < 0.2] = -np.inf
        for of in (groups, np.zeros(count, int)):
            kept = suppress(boxes, scores, threshold=threshold, groups=of)
            assert np.flatnonzero(kept).tolist() == greedy(boxes.tolist(), scores, threshold, of)


def test_a_chain_in_which_every_other_box_is_kept():
    """Each box suppresses the next one only if it is kept itself: 60 decisions, one after the other."""
    left = 4.0 * np.arange(60, dtype=np.float32)
    boxes = np.stack([left, left * 0, left + 10, left * 0 + 10], 1)
    kept = suppress(boxes, -left, threshold=0.4)
    assert np.flatnonzero(kept).tolist() == list(range(0, 60, 2))


def test_nothing_there_and_boxes_without_a_size(rng):
    boxes = random_boxes(rng, 6, 10)
    assert not np.any(suppress(boxes, np.full(6, -np.inf, np.float32), threshold=0.5))
    boxes[:, 2:] = boxes[:, :2]
    assert np.all(suppress(boxes, np.arange(6, dtype=np.float32), threshold=0.5)), "they overlap with nothing"
