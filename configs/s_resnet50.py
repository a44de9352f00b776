"""S-ResNet-50 on ImageNet (SNet, table 3).

    python -m slimjax.main --config=configs/s_resnet50.py --workdir=DIR
    python -m slimjax.main --config=configs/s_resnet50.py:individual=0.5 --workdir=DIR        (or :naive, :incremental)

Published top-1 error, %: .25 35.0, .5 27.9, .75 25.1, 1.0 24.0 (individual networks: 36.2, 28.0, 25.3, 23.9).
Naive: about 99.9. Incremental: nothing is published.
The recipe's batch norms see 64 images each: train on 4 devices to repeat that.
Time, estimated and never measured: 4 hours on 4 H100 (10 % of 990 TFLOP/s bfloat16 each, 9,000 JPEGs a second). Naive
takes as long; incremental 4 times as long, as it reads every image once for each width (as long, if JPEGs come as fast
as they compute). Individual networks read as many images: 4 hours each at that rate or, if JPEGs come as fast as they
compute, .25 0.1, .5 0.6, .75 1.3, 1.0 2.2.
"""

from ml_collections import ConfigDict
from slimjax.configs import published


def get_config(method: str = "slimmable") -> ConfigDict:
    """100 epochs, batch 256, .1 divided by 10 after 30, 60 and 90. Methods: see published.py."""
    config = published.imagenet("resnet50", (0.25, 0.5, 0.75, 1.0), augmentation="inception")
    config.batch_size = 256
    config.num_epochs = 100.0
    config.learning_rate = 0.1
    config.schedule.name = "multistep"
    config.schedule.factor = 0.1
    config.schedule.boundaries_epochs = (30.0, 60.0, 90.0)
    return published.with_method(config, method)
