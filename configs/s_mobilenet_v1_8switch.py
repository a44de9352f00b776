"""S-MobileNet v1 on ImageNet, 8 switches (SNet, table 4).

    python -m slimjax.main --config=configs/s_mobilenet_v1_8switch.py --workdir=DIR

Published top-1 error, %: .25 47.6, .35 41.1, .45 36.6, .55 33.8, .65 31.4, .75 30.2, .85 29.2, 1.0 28.4.
Batch norms see 40 images each on 4 devices, as in the paper. Nobody has run this config to the end yet.
"""

from ml_collections import ConfigDict
from slimjax.configs import s_mobilenet_v1


def get_config() -> ConfigDict:
    """The recipe of 4 switches with 8 of them."""
    config = s_mobilenet_v1.get_config()
    config.model.widths = (0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 1.0)
    return config
