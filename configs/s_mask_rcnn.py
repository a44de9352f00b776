"""Slimmable Mask R-CNN on COCO 2017, with an S-ResNet-50-FPN backbone (SNet, section 4.2): boxes and masks.

    python -m slimjax.main --config=configs/s_mask_rcnn.py --workdir=DIR --config.init_from=S_RESNET50_WORKDIR
    python -m slimjax.main --config=configs/s_mask_rcnn.py:individual=0.5 --workdir=DIR --config.init_from=...

Published box AP, %, slimmable (individual): 1.0 37.4 (37.3), .75 36.7 (35.6), .5 34.7 (33.4), .25 30.2 (28.2).
Mask AP: 34.9 (34.2), 34.3 (32.9), 32.6 (30.9), 28.6 (26.6).
The recipe is for 8 devices with 2 images each. Nobody here has run it; hours are not estimated.
"""

from ml_collections import ConfigDict
from slimjax.configs import published


def get_config(method: str = "slimmable") -> ConfigDict:
    """12 epochs, batch 16, .02 divided by 10 after 8 and 11. Methods: `slimmable`, `individual=WIDTH`."""
    config = published.coco(method)
    config.detection.masks = True
    return config
