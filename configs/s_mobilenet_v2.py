"""S-MobileNet v2 on ImageNet (SNet, table 3).

    python -m slimjax.main --config=configs/s_mobilenet_v2.py --workdir=DIR

Published top-1 error, %: .35 40.3, .5 35.6, .75 31.1, 1.0 29.5 (individual networks: 39.7, 34.6, 30.2, 28.2).
Batch norms see 40 images each on 4 devices, as in the paper. Nobody has run this config to the end yet.
"""

from ml_collections import ConfigDict
from slimjax.configs import s_mobilenet_v1


def get_config() -> ConfigDict:
    """The recipe of S-MobileNet v1 with the second network."""
    config = s_mobilenet_v1.get_config()
    config.model.name = "mobilenet_v2"
    config.model.widths = (0.35, 0.5, 0.75, 1.0)
    return config
