"""The detector of a configuration."""

from functools import reduce
from typing import Any

from ml_collections import ConfigDict

from slimjax.configs import default
from slimjax.errors import UserError
from slimjax.tasks.detection.detector import Detector, create_detector
from slimjax.tasks.detection.settings import ProposalSettings, Settings
from slimjax.tasks.dtypes import compute_dtype


def create_network(config: ConfigDict, num_classes: int, platform: str, **options: Any) -> Detector:
    """Builds the detector of a configuration.

    Args:
      config: a whole configuration, see configs/default.py.
      num_classes: categories of objects, without background.
      platform: of the devices that compute: cpu, gpu or tpu.
      **options: further attributes of the backbone.

    Raises:
      UserError: if something in the configuration is unknown or out of range.
    """
    _check_of_classifiers(config)
    given: dict[str, Any] = {key: value for key, value in config.model.items() if value is not None}
    settings, dtype = _settings(config.detection), compute_dtype(config.dtype, platform)
    return create_detector(
        given.pop("name"), given.pop("widths"), num_classes, settings, **given, **options, dtype=dtype
    )


_OF_CLASSIFIERS = {
    "label_smoothing": "",
    "dataset.color_jitter": "",
    "dataset.pca_noise": "",
    "dataset.skip_damaged": "",
    "dataset.augmentation": "",
    "dataset.shuffle_buffer": "; all images are shuffled",
    "dataset.image_size": "; the size of images is detection.short_side and detection.long_side",
    "dataset.eval_resize": "; the size of images is detection.short_side and detection.long_side",
}
"""Keys that detectors do not read, and what to do instead."""


def _check_of_classifiers(config: ConfigDict) -> None:
    """UserError if something is set that detectors do not have."""
    defaults = default.get_config()
    for key, instead in _OF_CLASSIFIERS.items():
        value, usual = (reduce(getattr, key.split("."), section) for section in (config, defaults))
        if value != usual:
            raise UserError(f"{key}={value} is for classifiers; leave it out where task=detection{instead}")


def _settings(section: ConfigDict) -> Settings:
    """The detector's numbers, of the section `detection` of a configuration.

    Raises:
      UserError: if one is out of range.
    """
    for key in ("features", "box_features", "keypoint_features", "most_objects", "detections"):
        if section[key] < 1:
            raise UserError(f"detection.{key}={section[key]} has to be at least 1")
    for key, least in (("rpn_samples", 2), ("box_samples", 4), ("train_proposals", 1), ("test_proposals", 1)):
        if section[key] < least:
            raise UserError(f"detection.{key}={section[key]} has to be at least {least}")
    if section.anchor_scale <= 0 or section.mask_size < 1:
        raise UserError("detection.anchor_scale and detection.mask_size have to be positive")
    if section.num_keypoints < 0:
        raise UserError(
            f"detection.num_keypoints={section.num_keypoints} has to be at least 0, which is no keypoint head"
        )
    if not 0 < section.short_side <= section.long_side:
        raise UserError(
            f"detection.short_side={section.short_side} has to be positive and at most "
            f"detection.long_side={section.long_side}"
        )
    if not 0 <= section.frozen_stages <= 4:
        raise UserError(f"detection.frozen_stages={section.frozen_stages} has to be 0 to 4")
    return Settings(
        features=section.features,
        anchor_scale=section.anchor_scale,
        frozen_stages=section.frozen_stages,
        frozen_batch_norm=section.frozen_batch_norm,
        rpn_samples=section.rpn_samples,
        train_proposals=ProposalSettings(section.train_proposals, section.train_proposals),
        test_proposals=ProposalSettings(section.test_proposals, section.test_proposals),
        box_features=section.box_features,
        box_samples=section.box_samples,
        masks=section.masks,
        num_keypoints=section.num_keypoints,
        keypoint_features=section.keypoint_features,
        detections=section.detections,
    )
