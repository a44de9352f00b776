"""Faster, Mask and Keypoint R-CNN over the feature maps of a slimmable ResNet, compiled as one program.

Faster R-CNN: Ren et al. 2015, arXiv:1506.01497; feature pyramid: Lin et al. 2017, arXiv:1612.03144; masks and
keypoints: He et al. 2017, arXiv:1703.06870. Shapes are static: fixed numbers of anchors, proposals, samples and
detections.
"""

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from slimjax.errors import UserError
from slimjax.models import ResNet, create_model
from slimjax.models.network import SlimmableNetwork, Stage
from slimjax.models.resnet import STAGES_50
from slimjax.nn.plans import WidthPlan
from slimjax.tasks.detection.anchors import anchors_of_level
from slimjax.tasks.detection.heads import BoxHead, FeaturePyramid, KeypointHead, MaskHead, RegionProposals
from slimjax.tasks.detection.keypoints import keypoints_of
from slimjax.tasks.detection.matching import Objects
from slimjax.tasks.detection.proposals import Detections, Proposals, detections_of, proposals_of
from slimjax.tasks.detection.roi_align import roi_align
from slimjax.tasks.detection.settings import BOX_SIZE, KEYPOINT_SIZE, LEVELS, MASK_SIZE, ProposalSettings, Settings
from slimjax.tasks.detection.targets import (
    Regions,
    box_losses,
    keypoint_loss,
    mask_loss,
    proposal_losses,
    sampled_regions,
)


class Detector(SlimmableNetwork):
    """A slimmable ResNet with a feature pyramid, region proposals and heads, which all widths share.

    Batch norms are the ResNet's alone.

    Attributes:
      num_classes: categories of objects, without background.
      stages: of the ResNet, four of them, on grids of steps of 4, 8, 16 and 32 pixels.
      stem_features: of the ResNet.
      stem_kernel_size: of the ResNet.
      settings: of everything else.
    """

    stages: tuple[Stage, ...] = STAGES_50
    stem_features: int = 64
    stem_kernel_size: int = 7
    settings: Settings = Settings()

    @property
    def class_layers(self) -> tuple[tuple[str, ...], ...]:
        """See SlimmableNetwork."""
        masks = (("mask_head", "masks"),) if self.settings.masks else ()
        return (("box_head", "classes"), ("box_head", "shifts"), *masks)

    def uniform_plan(self, width: float) -> WidthPlan:
        """See SlimmableNetwork; the widths differ in the backbone alone."""
        return self._resnet(parent=None).uniform_plan(width)

    def check_options(self) -> None:
        """See SlimmableNetwork."""
        super().check_options()
        self._resnet(parent=None).check_options()
        if self.stem != "imagenet" or [stage.strides for stage in self.stages] != [1, 2, 2, 2]:
            raise UserError("a detector needs four stages whose grids have steps of 4, 8, 16 and 32 pixels")
        if self.settings.frozen_stages and not self.settings.frozen_batch_norm:
            raise UserError("batch norms that learn leave no stage frozen; set detection.frozen_stages=0")

    def _resnet(self, **options: Any) -> ResNet:
        """The backbone."""
        shared = {name: getattr(self, name) for name in _of_the_backbone()}
        return ResNet(**shared, frozen_stages=self.settings.frozen_stages, **options)

    def setup(self) -> None:
        """Makes the parts."""
        settings, dtype = self.settings, self.dtype
        self.backbone = self._resnet()
        max_in_features = tuple(max(features) for features in self._stage_features())
        self.pyramid = FeaturePyramid(max_in_features, settings.features, dtype)
        self.region_proposals = RegionProposals(settings.features, dtype)
        in_features = BOX_SIZE**2 * settings.features
        self.box_head = BoxHead(in_features, settings.box_features, self.num_classes, dtype)
        if settings.masks:
            self.mask_head = MaskHead(settings.features, self.num_classes, dtype)
        if settings.num_keypoints:
            self.keypoint_head = KeypointHead(
                settings.features, settings.keypoint_features, settings.num_keypoints, dtype
            )

    def _stage_features(self) -> list[tuple[int, ...]]:
        """Channels of the backbone's maps, of every switch."""
        features, number, found = self.features_by_layer(), 0, []
        for stage in self.stages:
            number += stage.repeats
            found.append(features[f"block_{number}"])
        return found

    def __call__(
        self, images: jax.Array, width: float | None = None, train: bool = False, sizes: jax.Array | None = None
    ) -> Detections:
        """Finds objects at a width.

        Args:
          images: [batch, height, width, 3]; the sides have to be multiples of 32.
          width: one of `widths`, static; the widest by default.
          train: whether batch norms use and record the batch's statistics, unless they are frozen.
          sizes: [batch, 2], heights and widths of the images without padding; they have none by default.

        Returns:
          Of each image the best.

        Raises:
          UserError: if the width is not one of the model's, or the images' sides are no multiples of 32.
        """
        levels, sizes = self._levels(images, width, train), _sizes_of(images, sizes)
        logits, shifts = self.region_proposals(list(levels.values()))
        proposals = self.proposals(levels, logits, shifts, sizes, self.settings.test_proposals)
        classes, boxes = self._boxes(levels, proposals.boxes)
        found = jax.vmap(partial(detections_of, settings=self.settings))(classes, boxes, proposals, sizes)
        if self.settings.masks:
            found = found._replace(masks=self._masks_of(levels, found))
        if self.settings.num_keypoints:
            maps = self._keypoints(levels, found.boxes)
            found = found._replace(keypoints=jax.vmap(keypoints_of)(maps, found.boxes))
        return found

    def losses(
        self, images: jax.Array, objects: Objects, sizes: jax.Array, keys: jax.Array, width: float | None = None
    ) -> dict[str, jax.Array]:
        """Losses of all parts, of every image by itself.

        Unless they are frozen, batch norms use and record the batch's statistics.

        Args:
          images: [batch, height, width, 3].
          objects: in each of them.
          sizes: [batch, 2], heights and widths of the images without padding.
          keys: [batch] of the sampling.
          width: one of `widths`, static; the widest by default.

        Returns:
          By name [batch] float32: `rpn_class`, `rpn_box`, `box_class`, `box`, `mask` and `keypoint`, as far as there
          are such heads. What is learned is their sum.
        """
        levels = self._levels(images, width, train=True)
        logits, shifts = self.region_proposals(list(levels.values()))
        both = jax.vmap(jax.random.split)(keys)
        losses = self._proposal_losses(levels, logits, shifts, objects, both[:, 0])
        proposals = self.proposals(levels, logits, shifts, sizes, self.settings.train_proposals)
        # They say where to look, and learn where from the anchors alone.
        proposals = jax.lax.stop_gradient(proposals)
        sampled = jax.vmap(partial(sampled_regions, settings=self.settings))(proposals, objects, both[:, 1])
        classes, boxes = self._boxes(levels, sampled.boxes)
        losses |= jax.vmap(box_losses)(classes, boxes, sampled, objects)
        # Positive ones come first.
        positives = Regions(*(values[:, : self.settings.box_positives] for values in sampled))
        if self.settings.masks:
            losses["mask"] = jax.vmap(mask_loss)(self._masks(levels, positives.boxes), positives, objects)
        if self.settings.num_keypoints:
            losses["keypoint"] = jax.vmap(keypoint_loss)(self._keypoints(levels, positives.boxes), positives, objects)
        return losses

    def _levels(self, images: jax.Array, width: float | None, train: bool) -> dict[int, jax.Array]:
        """The pyramid's maps by level."""
        self.switch_for(images, width)
        coarsest = 2 ** LEVELS[-2]
        if images.shape[1] % coarsest or images.shape[2] % coarsest:
            height, width_ = images.shape[1:3]
            raise UserError(f"images of {height} x {width_} pixels need sides of multiples of {coarsest}")
        train = train and not self.settings.frozen_batch_norm
        maps = self.backbone.stage_features(images, width, train)
        return dict(zip(LEVELS, self.pyramid(maps), strict=True))

    def _anchors(self, levels: dict[int, jax.Array]) -> list[jax.Array]:
        scale = self.settings.anchor_scale
        return [anchors_of_level(x.shape[1], x.shape[2], 2**level, scale) for level, x in levels.items()]

    def _proposal_losses(
        self,
        levels: dict[int, jax.Array],
        logits: list[jax.Array],
        shifts: list[jax.Array],
        objects: Objects,
        keys: jax.Array,
    ) -> dict[str, jax.Array]:
        anchors = jnp.concatenate(self._anchors(levels))

        def of_image(logits: jax.Array, shifts: jax.Array, objects: Objects, key: jax.Array) -> dict[str, jax.Array]:
            return proposal_losses(logits, shifts, anchors, objects, key, self.settings)

        return jax.vmap(of_image)(jnp.concatenate(logits, axis=1), jnp.concatenate(shifts, axis=1), objects, keys)

    def proposals(
        self,
        levels: dict[int, jax.Array],
        logits: list[jax.Array],
        shifts: list[jax.Array],
        sizes: jax.Array,
        limits: ProposalSettings,
    ) -> Proposals:
        """The best regions of every image, by what `region_proposals` says of the pyramid's maps by level."""
        anchors = self._anchors(levels)

        def of_image(logits: list[jax.Array], shifts: list[jax.Array], size: jax.Array) -> Proposals:
            return proposals_of(logits, shifts, anchors, size, limits, self.settings.rpn_nms_iou)

        found: Proposals = jax.vmap(of_image)(logits, shifts, sizes)
        return found

    def pooled(self, levels: dict[int, jax.Array], boxes: jax.Array, size: int) -> jax.Array:
        """Regions [batch, regions, 4] of all images, of the maps by level: [batch * regions, size, size, features]."""
        pooled = {level: x for level, x in levels.items() if level != LEVELS[-1]}
        regions = jax.vmap(partial(roi_align, size=size))(pooled, boxes)
        return regions.reshape(-1, *regions.shape[2:])

    def _boxes(self, levels: dict[int, jax.Array], boxes: jax.Array) -> tuple[jax.Array, ...]:
        return _by_image(self.box_head(self.pooled(levels, boxes, BOX_SIZE)), boxes.shape[0])

    def _masks(self, levels: dict[int, jax.Array], boxes: jax.Array) -> jax.Array:
        return _by_image(self.mask_head(self.pooled(levels, boxes, MASK_SIZE)), boxes.shape[0])

    def _masks_of(self, levels: dict[int, jax.Array], found: Detections) -> jax.Array:
        """Of each detection the mask of its class."""
        logits = self._masks(levels, found.boxes)
        labels = found.labels[:, :, None, None, None]
        return jax.nn.sigmoid(jnp.take_along_axis(logits, labels, axis=-1)[..., 0])

    def _keypoints(self, levels: dict[int, jax.Array], boxes: jax.Array) -> jax.Array:
        return _by_image(self.keypoint_head(self.pooled(levels, boxes, KEYPOINT_SIZE)), boxes.shape[0])


def _of_the_backbone() -> list[str]:
    """The attributes that a detector hands on to its backbone: all but what a classifier has at its end."""
    ours = {field.name for field in dataclasses.fields(Detector)}
    theirs = [field.name for field in dataclasses.fields(ResNet) if field.name not in ("parent", "name")]
    return [name for name in theirs if name in ours and name != "num_classes"]


def _sizes_of(images: jax.Array, sizes: jax.Array | None) -> jax.Array:
    if sizes is not None:
        return sizes
    return jnp.tile(jnp.asarray(images.shape[1:3], jnp.float32), (images.shape[0], 1))


def _by_image(values: Any, count: int) -> Any:
    """Arrays [count * regions, ...] as [count, regions, ...]."""
    return jax.tree.map(lambda array: array.reshape(count, -1, *array.shape[1:]), values)


def create_detector(
    backbone: str, widths: Iterable[float], num_classes: int, settings: Settings, **options: Any
) -> Detector:
    """Builds a detector.

    Args:
      backbone: the name of a ResNet of `slimjax.MODELS` for ImageNet.
      widths: ascending.
      num_classes: categories of objects, without background.
      settings: of everything behind the backbone.
      **options: attributes of the ResNet, such as `batch_norm` or `dtype`.

    Raises:
      UserError: if something is unknown or out of range, or the backbone is no such ResNet.
    """
    resnet = create_model(backbone, widths, num_classes, **options)
    if not isinstance(resnet, ResNet):
        raise UserError(f"model.name={backbone} is no ResNet; detectors are built on one, such as resnet50")
    shared = {name: getattr(resnet, name) for name in _of_the_backbone()}
    detector = Detector(**shared, num_classes=resnet.num_classes, settings=settings)
    detector.check_options()
    return detector
