"""From what the anchors say to the regions that the heads look at, and from what those say to detections."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from slimjax.tasks.detection.boxes import areas, clip, decode, sizes
from slimjax.tasks.detection.nms import kept_by_nms
from slimjax.tasks.detection.settings import BOX_STDS, RPN_STDS, ProposalSettings, Settings


class Proposals(NamedTuple):
    """Regions of one image, or of several behind a leading axis, best first.

    Attributes:
      boxes: [proposals, 4] float32, pixels, inside of the image.
      there: [proposals] booleans, false for padding.
    """

    boxes: jax.Array
    there: jax.Array


class Detections(NamedTuple):
    """What was found in one image, or in several behind a leading axis, best first.

    Attributes:
      boxes: [detections, 4] float32, pixels of the image that the network saw.
      scores: [detections] float32, 0 to 1; 0 for padding.
      labels: [detections] int32, categories from 0.
      there: [detections] booleans, false for padding.
      masks: [detections, size, size] float32: the object within its box, 0 to 1; None without a mask head.
      keypoints: [detections, keypoints, 3] float32: x and y in pixels, and a score; None without a keypoint head.
    """

    boxes: jax.Array
    scores: jax.Array
    labels: jax.Array
    there: jax.Array
    masks: jax.Array | None = None
    keypoints: jax.Array | None = None


def proposals_of(
    logits: Sequence[jax.Array],
    shifts: Sequence[jax.Array],
    anchors: Sequence[jax.Array],
    image_size: jax.Array,
    limits: ProposalSettings,
    nms_iou: float,
) -> Proposals:
    """The best regions of one image: of each level those that suppression keeps, of all levels the best of these.

    Args:
      logits: of each level, [anchors], that there is an object.
      shifts: of each level, [anchors, 4], coded against the anchors.
      anchors: of each level, [anchors, 4].
      image_size: [2], height and width of the image, pixels, without padding.
      limits: on how many.
      nms_iou: above which the worse of two goes.

    Returns:
      `limits.proposals` of them.
    """
    boxes, scores = [], []
    for of_level, deltas, references in zip(logits, shifts, anchors, strict=True):
        best, indices = jax.lax.top_k(of_level, min(limits.candidates, len(of_level)))
        decoded = clip(decode(deltas[indices], references[indices], RPN_STDS), *image_size)
        widths, heights = sizes(decoded)
        best = jnp.where((widths > 0) & (heights > 0), best, -jnp.inf)
        kept = kept_by_nms(decoded, best, nms_iou)
        boxes.append(decoded)
        scores.append(jnp.where(kept, best, -jnp.inf))
    all_boxes, all_scores = jnp.concatenate(boxes), jnp.concatenate(scores)
    missing = max(limits.proposals - len(all_boxes), 0)
    all_boxes = jnp.pad(all_boxes, ((0, missing), (0, 0)))
    all_scores = jnp.pad(all_scores, (0, missing), constant_values=-jnp.inf)
    best, indices = jax.lax.top_k(all_scores, limits.proposals)
    return Proposals(all_boxes[indices], best > -jnp.inf)


def detections_of(
    logits: jax.Array, shifts: jax.Array, proposals: Proposals, image_size: jax.Array, settings: Settings
) -> Detections:
    """What the box head has found in one image.

    Args:
      logits: [proposals, num_classes + 1], the background last.
      shifts: [proposals, num_classes, 4], coded against the proposals.
      proposals: of the image.
      image_size: [2], height and width of the image, pixels, without padding.
      settings: of the detector.

    Returns:
      `settings.detections` of them. Suppression is exact among the best `settings.candidates` pairs of proposal and
      class; what is worse than these is left out.
    """
    scores = jax.nn.softmax(logits)[:, :-1]
    scores = jnp.where(proposals.there[:, None] & (scores > settings.score_threshold), scores, -jnp.inf)
    count, num_classes = scores.shape
    best, pairs = jax.lax.top_k(scores.reshape(-1), min(settings.candidates, count * num_classes))
    regions, labels = pairs // num_classes, pairs % num_classes
    boxes = clip(decode(shifts[regions, labels], proposals.boxes[regions], BOX_STDS), *image_size)
    best = jnp.where(areas(boxes) > 0, best, -jnp.inf)
    kept = kept_by_nms(boxes, best, settings.nms_iou, labels)
    best = jnp.where(kept, best, -jnp.inf)
    missing = max(settings.detections - len(best), 0)
    best, indices = jax.lax.top_k(jnp.pad(best, (0, missing), constant_values=-jnp.inf), settings.detections)
    indices = jnp.minimum(indices, len(boxes) - 1)
    there = best > -jnp.inf
    return Detections(
        jnp.where(there[:, None], boxes[indices], 0.0),
        jnp.where(there, best, 0.0),
        jnp.where(there, labels[indices], 0).astype(jnp.int32),
        there,
    )
