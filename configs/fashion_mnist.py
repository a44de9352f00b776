"""Slimmable MobileNet v1 for small images on Fashion-MNIST: 60,000 pictures of clothes, 28x28 grey.

    python -m slimjax.main --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist

Time, estimated from shorter runs: 10 to 20 minutes on 2 processor cores. Nothing is published for this network.

The individual network of a width: --config.model.widths="(0.5,)". The naive way: --config.model.batch_norm=shared.
"""

from ml_collections import ConfigDict
from slimjax.configs import default


def get_config() -> ConfigDict:
    """Fashion-MNIST at its own size, with shifts of up to 3 pixels and flips."""
    config = default.get_config()
    config.dataset.name = "fashion_mnist"
    config.dataset.image_size = config.dataset.eval_resize = 28
    config.dataset.flip = True
    config.batch_size = 128
    config.num_epochs = 10.0
    config.learning_rate = 0.2
    config.schedule.warmup_epochs = 0.5
    config.eval_every_epochs = 1.0
    config.checkpoint_every_epochs = 1.0
    return config
