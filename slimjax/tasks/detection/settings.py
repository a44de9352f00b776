"""What a detector is made of and how it learns, beyond its backbone."""

from dataclasses import dataclass

ANCHOR_RATIOS = (0.5, 1.0, 2.0)
LEVELS = (2, 3, 4, 5, 6)
"""Of the feature pyramid: level l has a grid of steps of 2**l pixels. Regions are pooled from all but the last."""


@dataclass(frozen=True)
class ProposalSettings:
    """How many regions the proposal network hands on.

    Attributes:
      candidates: of each level, before suppression.
      proposals: of an image, after it.
    """

    candidates: int
    proposals: int


@dataclass(frozen=True)
class Settings:
    """The numbers of the recipe for COCO, of an R-50-FPN (facts of Faster, Mask and Keypoint R-CNN's papers).

    Attributes:
      features: channels of the feature pyramid and of the heads' convolutions.
      anchor_scale: side of the square anchor over its level's step.
      frozen_stages: of the backbone, the stem with the first one: 0 trains all, 1 freezes the stem and stage 1.
      frozen_batch_norm: whether the backbone's batch norms stay as they are; else they learn, and use the batch's
        statistics in training.
      rpn_positive_iou: from which on an anchor stands for an object.
      rpn_negative_iou: below which it stands for background.
      rpn_samples: anchors of an image that are learned from, half of them positive at most.
      rpn_nms_iou: above which the worse of two proposals goes.
      train_proposals: of an image in training.
      test_proposals: of an image in evaluation.
      box_features: outputs of the box head's dense layers.
      box_positive_iou: from which on a proposal stands for an object; others stand for background.
      box_samples: proposals of an image that are learned from.
      box_positive_share: of them at most positive.
      masks: whether there is a mask head.
      num_keypoints: of an object; 0 is no keypoint head.
      keypoint_features: channels of the keypoint head's convolutions.
      score_threshold: below which nothing is a detection.
      nms_iou: above which the worse of two detections of a class goes.
      candidates: of an image's pairs of region and class, those that suppression sees.
      detections: of an image at most.
    """

    features: int = 256
    anchor_scale: float = 8.0
    frozen_stages: int = 1
    frozen_batch_norm: bool = True
    rpn_positive_iou: float = 0.7
    rpn_negative_iou: float = 0.3
    rpn_samples: int = 256
    rpn_nms_iou: float = 0.7
    train_proposals: ProposalSettings = ProposalSettings(2000, 2000)
    test_proposals: ProposalSettings = ProposalSettings(1000, 1000)
    box_features: int = 1024
    box_positive_iou: float = 0.5
    box_samples: int = 512
    box_positive_share: float = 0.25
    masks: bool = False
    num_keypoints: int = 0
    keypoint_features: int = 512
    score_threshold: float = 0.05
    nms_iou: float = 0.5
    candidates: int = 2000
    detections: int = 100

    @property
    def box_positives(self) -> int:
        """Sampled proposals that may be positive; the mask and keypoint heads see no others."""
        return int(self.box_samples * self.box_positive_share)


RPN_STDS = (1.0, 1.0, 1.0, 1.0)
BOX_STDS = (0.1, 0.1, 0.2, 0.2)
BOX_SIZE, MASK_SIZE, KEYPOINT_SIZE = 7, 14, 14
"""Bins of the regions that the heads see."""
