"""Slimmable MobileNet v2 with the stem for small images on CIFAR-10.

    python -m slimjax.main --config=configs/cifar10.py --workdir=runs/cifar10

Not a row of the paper: a place to start for 32x32 images, on a GPU or TPU. Nobody has run this config to the end yet.
Time, estimated and never measured: an hour or two on one GPU, whose 78,000 small steps take longer to launch than to
compute.
"""

from ml_collections import ConfigDict
from slimjax.configs import default


def get_config() -> ConfigDict:
    """CIFAR-10 with shifts and flips."""
    config = default.get_config()
    config.model.name = "mobilenet_v2"
    config.model.widths = (0.35, 0.5, 0.75, 1.0)
    config.model.stem = "small"
    config.dataset.name = "cifar10"
    config.dataset.image_size = config.dataset.eval_resize = 32
    config.dataset.flip = True
    config.dataset.shuffle_buffer = 50_000
    config.batch_size = 128
    config.num_epochs = 200.0
    config.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-4
    config.schedule.warmup_epochs = 1.0
    config.eval_every_epochs = 1.0
    config.checkpoint_every_epochs = 1.0
    return config
