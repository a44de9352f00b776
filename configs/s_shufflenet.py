"""S-ShuffleNet v1, 3 groups, on ImageNet (SNet, table 3).

    python -m slimjax.main --config=configs/s_shufflenet.py --workdir=DIR
    python -m slimjax.main --config=configs/s_shufflenet.py:individual=0.5 --workdir=DIR      (or :naive, :incremental)

Published top-1 error, %: .5 42.7, 1.0 34.5, 2.0 28.7 (individual networks: 43.2, 32.6, 26.3).
The paper's text says batch 512 and .25, half of both; these are the published training's.
Naive: about 99.9. Incremental: nothing is published.
The recipe's batch norms see 128 images each: train on 8 devices to repeat that.
Time, estimated and never measured: 2.5 hours on 8 H100 (2 % of 990 TFLOP/s bfloat16 each, 38,000 JPEGs a second).
Naive takes as long; incremental 3 times as long, as it reads every image once for each width (as long, if JPEGs come
as fast as they compute). Individual networks read as many images: 2.5 hours each at that rate or, if JPEGs come as
fast as they compute, .5 0.1, 1.0 0.5, 2.0 1.8.
"""

from ml_collections import ConfigDict
from slimjax.configs import published


def get_config(method: str = "slimmable") -> ConfigDict:
    """250 epochs, batch 1024, .5 falling linearly to 0. Methods: see published.py."""
    config = published.imagenet("shufflenet", (0.5, 1.0, 2.0), augmentation="mobile")
    config.batch_size = 1024
    config.num_epochs = 250.0
    config.learning_rate = 0.5
    config.schedule.name = "linear"
    return published.with_method(config, method)
