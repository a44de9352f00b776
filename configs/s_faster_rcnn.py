"""Slimmable Faster R-CNN on COCO 2017, with an S-ResNet-50-FPN backbone (SNet, section 4.2): boxes.

    python -m slimjax.main --config=configs/s_faster_rcnn.py --workdir=DIR --config.init_from=S_RESNET50_WORKDIR
    python -m slimjax.main --config=configs/s_faster_rcnn.py:individual=0.5 --workdir=DIR --config.init_from=...

Published box AP, %, slimmable (individual): 1.0 36.8 (36.4), .75 36.1 (34.7), .5 34.0 (32.7), .25 29.6 (27.5).
The recipe is for 8 devices with 2 images each. Nobody here has run it; hours are not estimated.
"""

from ml_collections import ConfigDict
from slimjax.configs import published


def get_config(method: str = "slimmable") -> ConfigDict:
    """12 epochs, batch 16, .02 divided by 10 after 8 and 11. Methods: `slimmable`, `individual=WIDTH`."""
    return published.coco(method)
