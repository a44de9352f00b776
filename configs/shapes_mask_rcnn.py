"""Slimmable Mask R-CNN on generated shapes, for CPUs: boxes and masks.

python -m slimjax.main --config=configs/shapes_mask_rcnn.py --workdir=runs/shapes_masks

Time: about 20 minutes on 2 processor cores; docs/detection.md has what it comes to.
"""

from ml_collections import ConfigDict
from slimjax.configs import shapes_faster_rcnn


def get_config() -> ConfigDict:
    """As shapes_faster_rcnn.py, with a mask head."""
    config = shapes_faster_rcnn.get_config()
    config.detection.masks = True
    return config
