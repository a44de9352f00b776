"""Matching and sampling against the rules read one box at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boxes_by_hand import area, iou, overlap

from slimjax.tasks.detection.matching import Matches, Objects, match, sample


def objects_of(boxes, there=None, crowds=None):
    count = len(boxes)
    return Objects(
        jnp.asarray(boxes, jnp.float32),
        jnp.arange(count, dtype=jnp.int32),
        jnp.ones(count, bool) if there is None else jnp.asarray(there),
        jnp.zeros(count, bool) if crowds is None else jnp.asarray(crowds),
    )


def plain_match(boxes, objects, there, crowds, positive_iou, negative_iou, least_iou):
    """What each box stands for: an object, -1 for background, None for neither."""
    found = [j for j in range(len(objects)) if there[j] and not crowds[j]]
    answers = []
    for box in boxes:
        ious = [iou(box, objects[j]) for j in found]
        best = max(ious, default=-1)
        answer = found[ious.index(best)] if best >= positive_iou else None
        if answer is None and best < negative_iou:
            hidden = any(
                there[j] and crowds[j] and overlap(box, objects[j]) / area(box) >= 0.5 for j in range(len(there))
            )
            answer = None if hidden else -1
        answers.append(answer)
    for j in found if least_iou is not None else ():
        ious = [iou(box, objects[j]) for box in boxes]
        for i, value in enumerate(ious):
            if value == max(ious) >= least_iou:
                answers[i] = j
    return answers


def answers_of(matches):
    both = zip(*(np.asarray(values).tolist() for values in matches), strict=True)
    return [index if positive else -1 if negative else None for index, positive, negative in both]


@pytest.mark.parametrize("least_iou", [None, 0.3])
def test_boxes_stand_for_what_the_rules_say(rng, least_iou):
    for _ in range(10):
        # On a coarse grid, so that overlaps are equal now and then, in the same floating-point numbers.
        corners = rng.integers(0, 8, (46, 2)) * 8.0
        everything = np.concatenate([corners, corners + 8.0 * rng.integers(1, 5, (46, 2))], 1)
        boxes, objects = everything[:40].tolist(), everything[40:].tolist()
        there, crowds = np.array([1, 1, 1, 1, 1, 0], bool), np.array([0, 0, 0, 0, 1, 0], bool)
        matches = match(
            jnp.asarray(boxes, jnp.float32), objects_of(objects, there, crowds), 0.6, 0.3, least_iou=least_iou
        )
        assert answers_of(matches) == plain_match(boxes, objects, there, crowds, 0.6, 0.3, least_iou)


def test_an_image_without_objects_is_all_background():
    boxes = jnp.array([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 5.0, 5.0]])
    matches = match(boxes, objects_of([[0, 0, 10, 10]], there=[False]), 0.5, 0.5, least_iou=0.3)
    assert answers_of(matches) == [-1, -1]


def test_what_lies_in_a_crowd_is_no_background():
    boxes = jnp.array([[0.0, 0.0, 10.0, 10.0], [40.0, 0.0, 60.0, 10.0], [80.0, 80.0, 90.0, 90.0]])
    matches = match(boxes, objects_of([[0, 0, 50, 50]], crowds=[True]), 0.5, 0.5)
    assert answers_of(matches) == [None, None, -1], "the second lies in it by half"


def test_nothing_stands_for_an_object_without_a_size():
    boxes = jnp.array([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 5.0, 5.0]])
    assert answers_of(match(boxes, objects_of([[5, 5, 5, 5]]), 0.5, 0.3, least_iou=0.3)) == [-1, -1]


def matches_of(positive, negative):
    return Matches(jnp.zeros(len(positive), jnp.int32), jnp.asarray(positive), jnp.asarray(negative))


@pytest.mark.parametrize(
    ("positives", "negatives", "drawn"), [(50, 500, (32, 96)), (7, 500, (7, 121)), (50, 20, (32, 20)), (0, 0, (0, 0))]
)
def test_samples_have_positives_first_and_as_many_as_there_are(positives, negatives, drawn):
    number = np.arange(600)
    order = np.random.default_rng(3).permutation(600)
    positive, negative = number < positives, (number >= positives) & (number < positives + negatives)
    result = sample(jax.random.key(0), matches_of(positive[order], negative[order]), 128, 0.25)
    count = int(result.positive.sum())
    assert (count, int(result.there.sum()) - count) == drawn
    assert not np.any(np.diff(np.asarray(result.positive).astype(int)) > 0), "positives come first"
    there = np.asarray(result.there)
    assert not np.any(np.diff(there.astype(int)) > 0), "padding comes last"
    indices = np.asarray(result.indices)[there]
    assert len(set(indices.tolist())) == len(indices), "none is drawn twice"
    assert np.all(positive[order][indices[:count]])
    assert np.all(negative[order][indices[count:]])


def test_every_candidate_is_drawn_as_often_as_any_other():
    matches = matches_of(np.arange(20) < 10, np.arange(20) >= 10)
    draw = jax.jit(jax.vmap(lambda key: sample(key, matches, 8, 0.25).indices))
    counts = np.bincount(np.asarray(draw(jax.random.split(jax.random.key(0), 4000))).reshape(-1), minlength=20)
    # 2 of 10 positives and 6 of 10 negatives; 5 standard deviations.
    np.testing.assert_allclose(counts[:10], 800, atol=5 * (4000 * 0.2 * 0.8) ** 0.5)
    np.testing.assert_allclose(counts[10:], 2400, atol=5 * (4000 * 0.6 * 0.4) ** 0.5)


def test_fewer_boxes_than_samples():
    result = sample(jax.random.key(0), matches_of([True, False, False], [False, True, False]), 128, 0.5)
    assert np.asarray(result.there).tolist() == [True, True, False]
    assert np.asarray(result.indices)[:2].tolist() == [0, 1]
