"""S-MobileNet v1 on ImageNet, 4 switches (SNet, table 3).

    python -m slimjax.main --config=configs/s_mobilenet_v1.py --workdir=DIR
    python -m slimjax.main --config=configs/s_mobilenet_v1.py:individual=0.5 --workdir=DIR    (or :naive, :incremental)

Published top-1 error, %: .25 46.9, .5 35.2, .75 30.5, 1.0 28.5 (individual networks: 50.2, 36.7, 31.6, 29.1).
Naive: about 99.9. Incremental: nothing is published.
The recipe's batch norms see 40 images each: train on 4 devices to repeat that.
Time, estimated and never measured: 14 hours on 4 H100 (2 % of 990 TFLOP/s bfloat16 each, 12,000 JPEGs a second). Naive
takes as long; incremental 4 times as long, as it reads every image once for each width (as long, if JPEGs come as fast
as they compute). Individual networks read as many images: 14 hours each at that rate or, if JPEGs come as fast as they
compute, .25 0.5, .5 1.9, .75 4.2, 1.0 7.4.
"""

from ml_collections import ConfigDict
from slimjax.configs import published


def get_config(method: str = "slimmable") -> ConfigDict:
    """The paper's recipe: 480 epochs, batch 160, .045 falling by 2 % every epoch. Methods: see published.py."""
    config = published.imagenet("mobilenet_v1", (0.25, 0.5, 0.75, 1.0), augmentation="mobile")
    config.batch_size = 160
    config.num_epochs = 480.0
    config.learning_rate = 0.045
    config.schedule.name = "exponential"
    config.schedule.factor = 0.98
    return published.with_method(config, method)
