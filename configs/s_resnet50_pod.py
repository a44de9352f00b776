"""S-ResNet-50 on ImageNet with the large batches of a TPU pod.

    python -m slimjax.main --config=configs/s_resnet50_pod.py --workdir=DIR            the same on every host

What differs from s_resnet50.py, the paper's recipe: batches of 4,096 instead of 256 images, the learning rate 16 times
as high (1.6) after 5 epochs of warm-up, bfloat16. The paper's batch norms see 64 images each; here it is what a device
has, 64 on 64 chips. Give --config.batch_norm_group_size=2 on 128 chips, where a device has 32.
Nobody has trained it, so the errors are unknown. Time, estimated and never measured: 1.5 hours on 64 TPU v5e (10 % of
197 TFLOP/s bfloat16 each, 27,000 JPEGs a second), by the arithmetic in published.py.
"""

from ml_collections import ConfigDict
from slimjax.configs import published, s_resnet50


def get_config(method: str = "slimmable") -> ConfigDict:
    """The row's recipe for a large batch. Methods: see published.py."""
    return published.for_pod(s_resnet50.get_config(method), batch_size=4096)
