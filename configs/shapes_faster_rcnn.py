"""Slimmable Faster R-CNN on generated shapes in COCO's format, for CPUs.

    python -m slimjax.main --config=configs/shapes_faster_rcnn.py --workdir=runs/shapes_boxes

Time: about 20 minutes on 2 processor cores; docs/detection.md has what it comes to.

Trained from scratch, so the backbone's batch norms learn, unlike in the recipe for COCO.
"""

from ml_collections import ConfigDict
from slimjax.configs import default


def get_config() -> ConfigDict:
    """2,000 images of 96 to 160 pixels, four widths of a ResNet of four blocks."""
    config = default.get_config()
    config.task = "detection"
    config.model.name = "resnet_pyramid_tiny"
    config.dataset.name = "shapes"
    config.dataset.flip = True
    config.dataset.eval_split = "validation"
    config.detection.frozen_stages = 0
    config.detection.frozen_batch_norm = False
    # Both orientations fit into one square, so that there is one shape to compile for.
    config.detection.short_side = 128
    config.detection.long_side = 128
    config.detection.most_objects = 6
    config.detection.mask_size = 28
    config.detection.features = 64
    config.detection.box_features = 128
    config.detection.keypoint_features = 64
    config.detection.anchor_scale = 4.0
    config.detection.rpn_samples = 64
    config.detection.box_samples = 32
    config.detection.train_proposals = 200
    config.detection.test_proposals = 100
    config.detection.detections = 20
    config.batch_size = 8
    config.num_train_steps = 700
    config.learning_rate = 0.001
    config.schedule.warmup_steps = 100
    config.optimizer.name = "adamw"
    config.optimizer.options = ""
    config.optimizer.clip_norm = 35.0
    config.eval_every_steps = 350
    config.checkpoint_every_steps = 350
    return config
