"""S-MobileNet v2 on ImageNet with the large batches of a TPU pod.

    python -m slimjax.main --config=configs/s_mobilenet_v2_pod.py --workdir=DIR        the same on every host

What differs from s_mobilenet_v2.py, the paper's recipe: batches of 4,096 instead of 160 images, the learning rate 25.6
times as high (1.152) after 5 epochs of warm-up, bfloat16. The paper's batch norms see 40 images each; here it is what a
device has, 128 on 32 chips. Give --config.batch_norm_group_size=4 on 128 chips, where a device has 32.
Nobody has trained it, so the errors are unknown. Time, estimated and never measured: 5.5 hours on 32 TPU v5e (2 % of
197 TFLOP/s bfloat16 each, 32,000 JPEGs a second), by the arithmetic in published.py.
"""

from ml_collections import ConfigDict
from slimjax.configs import published, s_mobilenet_v2


def get_config(method: str = "slimmable") -> ConfigDict:
    """The row's recipe for a large batch. Methods: see published.py."""
    return published.for_pod(s_mobilenet_v2.get_config(method), batch_size=4096)
