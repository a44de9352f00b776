"""S-MobileNet v1 on ImageNet, 8 switches (SNet, table 4).

    python -m slimjax.main --config=configs/s_mobilenet_v1_8switch.py --workdir=DIR
    python -m slimjax.main --config=configs/s_mobilenet_v1_8switch.py:naive --workdir=DIR   (or :individual=0.35, ...)

Published top-1 error, %: .25 47.6, .35 41.1, .45 36.6, .55 33.8, .65 31.4, .75 30.2, .85 29.2, 1.0 28.4
(individual networks at .25, .5, .75 and 1.0: see s_mobilenet_v1.py).
Naive: about 99.9. Incremental: nothing is published.
The recipe's batch norms see 40 images each: train on 4 devices to repeat that.
Time, estimated and never measured: 26 hours on 4 H100 (2 % of 990 TFLOP/s bfloat16 each, 7,000 JPEGs a second). Naive
takes as long; incremental 8 times as long, as it reads every image once for each width (as long, if JPEGs come as fast
as they compute). Individual networks read as many images: 26 hours each at that rate or, if JPEGs come as fast as they
compute, .25 0.5, .35 1.0, .45 1.6, .55 2.3, .65 3.2, .75 4.2, .85 5.4, 1.0 7.4.
"""

from ml_collections import ConfigDict
from slimjax.configs import published, s_mobilenet_v1


def get_config(method: str = "slimmable") -> ConfigDict:
    """The recipe of 4 switches with 8 of them. Methods: see published.py."""
    config = s_mobilenet_v1.get_config()
    config.model.widths = (0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 1.0)
    return published.with_method(config, method)
