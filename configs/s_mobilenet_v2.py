"""S-MobileNet v2 on ImageNet (SNet, table 3).

    python -m slimjax.main --config=configs/s_mobilenet_v2.py --workdir=DIR
    python -m slimjax.main --config=configs/s_mobilenet_v2.py:individual=0.5 --workdir=DIR    (or :naive, :incremental)

Published top-1 error, %: .35 40.3, .5 35.6, .75 31.1, 1.0 29.5 (individual networks: 39.7, 34.6, 30.2, 28.2).
Naive: about 99.9. Incremental at .35 and .5, where frozen .35 has 39.7, .5 reaches 39.0 (34.6 by itself):

    python -m slimjax.main --config=configs/s_mobilenet_v2.py:incremental --config.model.widths="(.35,.5)" --workdir=DIR

The recipe's batch norms see 40 images each: train on 4 devices to repeat that.
Time, estimated and never measured: 9 hours on 4 H100 (2 % of 990 TFLOP/s bfloat16 each, 20,000 JPEGs a second). Naive
takes as long; incremental 4 times as long, as it reads every image once for each width (as long, if JPEGs come as fast
as they compute). Individual networks read as many images: 9 hours each at that rate or, if JPEGs come as fast as they
compute, .35 0.8, .5 1.3, .75 2.7, 1.0 3.9.
"""

from ml_collections import ConfigDict
from slimjax.configs import published, s_mobilenet_v1


def get_config(method: str = "slimmable") -> ConfigDict:
    """The recipe of S-MobileNet v1 with the second network. Methods: see published.py."""
    config = s_mobilenet_v1.get_config()
    config.model.name = "mobilenet_v2"
    config.model.widths = (0.35, 0.5, 0.75, 1.0)
    return published.with_method(config, method)
