"""What the parts of a detector learn in one image, and the losses that come of it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from slimjax.tasks.detection.boxes import encode, sizes
from slimjax.tasks.detection.losses import binary_cross_entropy, cross_entropy, mean_of_those_there, smooth_l1
from slimjax.tasks.detection.matching import Objects, match, sample
from slimjax.tasks.detection.proposals import Proposals
from slimjax.tasks.detection.settings import BOX_STDS, RPN_STDS, Settings

_RPN_BETA, _BOX_BETA = 1.0 / 9.0, 1.0
_LEAST_IOU = 0.3
"""Of an object's best anchor, to stand for it."""


def proposal_losses(
    logits: jax.Array,
    shifts: jax.Array,
    anchors: jax.Array,
    objects: Objects,
    key: jax.Array,
    settings: Settings,
) -> dict[str, jax.Array]:
    """Losses of the region proposal network in one image.

    Args:
      logits: [anchors], that there is an object.
      shifts: [anchors, 4], coded against the anchors.
      anchors: [anchors, 4], of all levels.
      objects: of the image.
      key: of the sampling.
      settings: of the detector.

    Returns:
      Scalars `rpn_class` and `rpn_box`, both over the number of sampled anchors.
    """
    matches = match(anchors, objects, settings.rpn_positive_iou, settings.rpn_negative_iou, _LEAST_IOU)
    drawn = sample(key, matches, settings.rpn_samples, positive_share=0.5)
    classes = binary_cross_entropy(logits[drawn.indices], drawn.positive)
    targets = encode(objects.boxes[matches.objects[drawn.indices]], anchors[drawn.indices], RPN_STDS)
    distances = smooth_l1(shifts[drawn.indices] - targets, _RPN_BETA).sum(-1)
    return {
        "rpn_class": mean_of_those_there(classes, drawn.there),
        "rpn_box": mean_of_those_there(jnp.where(drawn.positive, distances, 0.0), drawn.there),
    }


class Regions(NamedTuple):
    """Regions of one image from which the heads learn, those of objects first.

    Attributes:
      boxes: [samples, 4] float32, pixels.
      there: [samples] booleans, false for padding.
      positive: [samples] booleans: it is an object's.
      objects: [samples] int32, whose, where positive.
    """

    boxes: jax.Array
    there: jax.Array
    positive: jax.Array
    objects: jax.Array


def sampled_regions(proposals: Proposals, objects: Objects, key: jax.Array, settings: Settings) -> Regions:
    """Draws from the proposals, and from the objects' own boxes, what the heads learn from."""
    boxes = jnp.concatenate([proposals.boxes, objects.boxes])
    there = jnp.concatenate([proposals.there, objects.single])
    matches = match(boxes, objects, settings.box_positive_iou, settings.box_positive_iou)
    matches = matches._replace(positive=matches.positive & there, negative=matches.negative & there)
    drawn = sample(key, matches, settings.box_samples, settings.box_positive_share)
    regions = jax.lax.stop_gradient(boxes[drawn.indices])
    return Regions(regions, drawn.there, drawn.positive, matches.objects[drawn.indices])


def box_losses(logits: jax.Array, shifts: jax.Array, regions: Regions, objects: Objects) -> dict[str, jax.Array]:
    """Losses of the box head in one image.

    Args:
      logits: [samples, num_classes + 1], the background last.
      shifts: [samples, num_classes, 4], coded against the regions.
      regions: that were sampled.
      objects: of the image.

    Returns:
      Scalars `box_class` and `box`, both over the number of regions.
    """
    labels = objects.labels[regions.objects]
    background = logits.shape[-1] - 1
    classes = cross_entropy(logits, jnp.where(regions.positive, labels, background))
    own = jnp.take_along_axis(shifts, labels[:, None, None], axis=1)[:, 0]
    targets = encode(objects.boxes[regions.objects], regions.boxes, BOX_STDS)
    distances = smooth_l1(own - targets, _BOX_BETA).sum(-1)
    return {
        "box_class": mean_of_those_there(classes, regions.there),
        "box": mean_of_those_there(jnp.where(regions.positive, distances, 0.0), regions.there),
    }


def mask_loss(logits: jax.Array, regions: Regions, objects: Objects) -> jax.Array:
    """Loss of the mask head in one image: the mean over the positive regions, and the bins of each.

    Args:
      logits: [samples, size, size, num_classes].
      regions: that were sampled.
      objects: of the image, with masks.

    Returns:
      A scalar.
    """
    labels = objects.labels[regions.objects]
    own = jnp.take_along_axis(logits, labels[:, None, None, None], axis=-1)[..., 0]
    losses = binary_cross_entropy(own, mask_targets(regions, objects, size=logits.shape[1]))
    return mean_of_those_there(losses.mean((1, 2)), regions.positive)


def mask_targets(regions: Regions, objects: Objects, size: int) -> jax.Array:
    """Whether the middles of the bins of regions are in the objects that these stand for.

    Args:
      regions: [samples] of them.
      objects: of the image, with masks.
      size: bins along each side.

    Returns:
      [samples, size, size] booleans.
    """
    masks = objects.masks
    assert masks is not None

    def of_region(box: jax.Array, index: jax.Array) -> jax.Array:
        mask = masks[index].astype(jnp.float32)
        left, top, *_ = own = objects.boxes[index]
        (width, height), (own_width, own_height) = sizes(box), sizes(own)
        middles = (jnp.arange(size) + 0.5) / size
        # In pixels of the mask, whose middles are at whole numbers.
        rows = (box[1] + middles * height - top) / jnp.maximum(own_height, 1e-3) * mask.shape[0] - 0.5
        columns = (box[0] + middles * width - left) / jnp.maximum(own_width, 1e-3) * mask.shape[1] - 0.5
        places = jnp.meshgrid(rows, columns, indexing="ij")
        inside = (places[0] > -0.5) & (places[0] < mask.shape[0] - 0.5)
        inside &= (places[1] > -0.5) & (places[1] < mask.shape[1] - 0.5)
        return inside & (jax.scipy.ndimage.map_coordinates(mask, places, order=1, mode="nearest") >= 0.5)

    return jax.vmap(of_region)(regions.boxes, regions.objects)


def keypoint_loss(logits: jax.Array, regions: Regions, objects: Objects) -> jax.Array:
    """Loss of the keypoint head in one image: the mean over the visible keypoints in positive regions.

    Args:
      logits: [samples, size, size, keypoints].
      regions: that were sampled.
      objects: of the image, with keypoints.

    Returns:
      A scalar, the cross-entropy over the size * size places.
    """
    size, count = logits.shape[1], logits.shape[-1]
    places, visible = keypoint_targets(regions, objects, size)
    losses = cross_entropy(jnp.moveaxis(logits.reshape(-1, size * size, count), 1, 2), places)
    return mean_of_those_there(losses.reshape(-1), visible.reshape(-1))


def keypoint_targets(regions: Regions, objects: Objects, size: int) -> tuple[jax.Array, jax.Array]:
    """In which bin of a region each keypoint of its object is.

    Args:
      regions: [samples] of them.
      objects: of the image, with keypoints.
      size: bins along each side.

    Returns:
      Bins [samples, keypoints] int32, row * size + column, and [samples, keypoints] booleans: whether the region is
      positive, and the keypoint annotated and in it.
    """
    assert objects.keypoints is not None
    keypoints = objects.keypoints[regions.objects]
    corners = regions.boxes[:, None, :2]
    sides = jnp.maximum(jnp.stack(sizes(regions.boxes), -1), 1e-3)[:, None]
    places = (keypoints[..., :2] - corners) / sides * size
    # A keypoint on the right or lower edge is in the last bin.
    bins = jnp.where(places == size, size - 1, jnp.floor(places)).astype(jnp.int32)
    inside = jnp.all((bins >= 0) & (bins < size), -1)
    visible = inside & (keypoints[..., 2] > 0) & regions.positive[:, None]
    bins = jnp.clip(bins, 0, size - 1)
    return bins[..., 1] * size + bins[..., 0], visible
