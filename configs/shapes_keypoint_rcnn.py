"""Slimmable Keypoint R-CNN on generated shapes, for CPUs: boxes and the four outermost points.

python -m slimjax.main --config=configs/shapes_keypoint_rcnn.py --workdir=runs/shapes_keypoints

Time: about 20 minutes on 2 processor cores; docs/detection.md has what it comes to.
"""

from ml_collections import ConfigDict
from slimjax.configs import shapes_faster_rcnn


def get_config() -> ConfigDict:
    """As shapes_faster_rcnn.py, with a keypoint head."""
    config = shapes_faster_rcnn.get_config()
    config.detection.num_keypoints = 4
    return config
