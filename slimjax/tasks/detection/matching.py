"""Which anchors and proposals stand for which objects, and which of them a step learns from."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from slimjax.tasks.detection.boxes import intersections_over_areas, intersections_over_unions


class Objects(NamedTuple):
    """The annotated objects of one image, or of several behind a leading axis, padded to a fixed number.

    Attributes:
      boxes: [objects, 4] float32, pixels.
      labels: [objects] int32, categories from 0.
      there: [objects] booleans, false for padding.
      crowds: [objects] booleans: regions of many objects, which are neither found nor missed.
      masks: [objects, size, size] uint8, 0 or 1: the object within its box, stretched to a square, and
        nothing of crowds; None without masks.
      keypoints: [objects, keypoints, 3] float32: x and y in pixels, and COCO's visibility; None without keypoints.
    """

    boxes: jax.Array
    labels: jax.Array
    there: jax.Array
    crowds: jax.Array
    masks: jax.Array | None = None
    keypoints: jax.Array | None = None

    @property
    def single(self) -> jax.Array:
        """[objects] booleans: those that have to be found."""
        return self.there & ~self.crowds


class Matches(NamedTuple):
    """What each of some boxes stands for.

    Attributes:
      objects: [n] int32, the index of the object that it overlaps most.
      positive: [n] booleans: it stands for that object.
      negative: [n] booleans: it stands for background. Those that are neither are not learned from.
    """

    objects: jax.Array
    positive: jax.Array
    negative: jax.Array


def match(
    boxes: jax.Array,
    objects: Objects,
    positive_iou: float,
    negative_iou: float,
    least_iou: float | None = None,
    crowd_share: float = 0.5,
) -> Matches:
    """Matches boxes to objects by overlap (Ren et al. 2015, section 3.1.2).

    Args:
      boxes: anchors or proposals, [n, 4].
      objects: of the image.
      positive_iou: from which on a box stands for the object that it overlaps most.
      negative_iou: below which, with every object, it stands for background.
      least_iou: if given, an object's best boxes, all of them if several are equal, stand for it from this IoU on,
        however small that is; so nearly every object has an anchor.
      crowd_share: share of a box within a crowd from which on it does not stand for background.

    Returns:
      The matches. Of objects that a box overlaps equally, the first counts.
    """
    overlaps = jnp.where(objects.single, intersections_over_unions(boxes, objects.boxes), -1.0)
    # Computed once: an object's best boxes are those that are equal to its maximum, to the bit.
    overlaps = jax.lax.optimization_barrier(overlaps)
    matched, best = jnp.argmax(overlaps, axis=1).astype(jnp.int32), jnp.max(overlaps, axis=1)
    positive, negative = best >= positive_iou, best < negative_iou
    if least_iou is not None:
        best_of_object = jnp.max(overlaps, axis=0)
        is_best = (overlaps == best_of_object) & (best_of_object >= least_iou)
        # A box that is the best of one object stands for that one, even if it overlaps another one more.
        of_object = jnp.max(jnp.where(is_best, jnp.arange(overlaps.shape[1]), -1), axis=1).astype(jnp.int32)
        matched = jnp.where(of_object >= 0, of_object, matched)
        positive |= of_object >= 0
    in_crowds = jnp.where(objects.there & objects.crowds, intersections_over_areas(boxes, objects.boxes), 0.0)
    negative &= ~positive & (jnp.max(in_crowds, axis=1) < crowd_share)
    return Matches(matched, positive, negative)


class Sample(NamedTuple):
    """Boxes to learn from, positives first.

    Attributes:
      indices: [size] int32, into the boxes that were matched.
      positive: [size] booleans.
      there: [size] booleans, false where there were not enough boxes.
    """

    indices: jax.Array
    positive: jax.Array
    there: jax.Array


def sample(key: jax.Array, matches: Matches, size: int, positive_share: float) -> Sample:
    """Draws boxes at random: positives up to a share of them, and negatives for the rest.

    Args:
      key: of the random numbers.
      matches: of [n] boxes.
      size: boxes to draw.
      positive_share: of the positives at most.

    Returns:
      The sample of `size`, or of n boxes if there are fewer.
    """
    most_positive = min(int(size * positive_share), matches.positive.shape[0])
    size = min(size, matches.positive.shape[0])
    priorities = jax.random.uniform(key, matches.positive.shape)
    positives, there_positive = _drawn(priorities, matches.positive, most_positive)
    negatives, there_negative = _drawn(priorities, matches.negative, size)
    count = jnp.sum(there_positive)
    places = jnp.arange(size)
    # Negatives follow right behind the positives that there are.
    of_positives = jnp.minimum(places, max(most_positive - 1, 0))
    of_negatives = jnp.clip(places - count, 0, size - 1)
    positive = places < count
    first = positives[of_positives] if most_positive else jnp.zeros_like(places)
    there = positive | there_negative[of_negatives]
    return Sample(jnp.where(positive, first, negatives[of_negatives]).astype(jnp.int32), positive, there)


def _drawn(priorities: jax.Array, candidates: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Indices of `count` candidates with the highest priorities, and whether there are so many."""
    best, indices = jax.lax.top_k(jnp.where(candidates, priorities, -1.0), count)
    return indices, best >= 0
