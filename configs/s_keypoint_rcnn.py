"""Slimmable Keypoint R-CNN on COCO 2017, with an S-ResNet-50-FPN backbone (SNet, section 4.2): people's keypoints.

    python -m slimjax.main --config=configs/s_keypoint_rcnn.py --workdir=DIR --config.init_from=S_RESNET50_WORKDIR
    python -m slimjax.main --config=configs/s_keypoint_rcnn.py:individual=0.5 --workdir=DIR --config.init_from=...

Published box AP, %, slimmable (individual): 1.0 52.8 (50.5), .75 52.7 (49.6), .5 51.6 (48.5), .25 48.2 (45.4).
Keypoint AP: 63.9 (61.3), 63.6 (60.5), 62.6 (59.8), 59.5 (56.7).
The recipe is for 8 devices with 2 images each. Nobody here has run it; hours are not estimated.
"""

from ml_collections import ConfigDict
from slimjax.configs import published


def get_config(method: str = "slimmable") -> ConfigDict:
    """12 epochs, batch 16, .02 divided by 10 after 8 and 11. Methods: `slimmable`, `individual=WIDTH`."""
    config = published.coco(method)
    config.dataset.name = "coco/person_keypoints"
    config.detection.num_keypoints = 17
    return config
