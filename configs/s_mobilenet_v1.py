"""S-MobileNet v1 on ImageNet, 4 switches (SNet, table 3).

    python -m slimjax.main --config=configs/s_mobilenet_v1.py --workdir=DIR

Published top-1 error, %: .25 46.9, .5 35.2, .75 30.5, 1.0 28.5 (individual networks: 50.2, 36.7, 31.6, 29.1).
The recipe's batch norms see 40 images each: train on 4 devices to repeat that. Nobody has run this config to the end
yet.
A larger batch needs a learning rate scaled with it and a warm-up: neither is done behind your back.
"""

from ml_collections import ConfigDict
from slimjax.configs import default


def get_config() -> ConfigDict:
    """The paper's recipe: 480 epochs, batch 160, .045 falling by 2 % every epoch."""
    config = default.get_config()
    config.model.name = "mobilenet_v1"
    config.model.widths = (0.25, 0.5, 0.75, 1.0)
    config.dataset.name = "imagenet2012"
    config.dataset.eval_split = "validation"
    config.dataset.image_size = 224
    config.dataset.eval_resize = 256
    config.dataset.augmentation = "mobile"
    config.dataset.flip = True
    config.dataset.color_jitter = 0.4
    config.dataset.pca_noise = 0.1
    config.batch_size = 160
    config.num_epochs = 480.0
    config.learning_rate = 0.045
    config.schedule.name = "exponential"
    config.schedule.factor = 0.98
    config.optimizer.options = "momentum=0.9, nesterov=True"
    config.optimizer.weight_decay = 1e-4
    config.log_every_steps = 100
    config.eval_every_epochs = 1.0
    config.checkpoint_every_epochs = 1.0
    return config
