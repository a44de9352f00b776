"""Slimmable MobileNet v1 (its first five blocks) on the 1,797 handwritten digits that scikit-learn carries.

    python -m slimjax.main --config=configs/digits.py --workdir=runs/digits

Runs anywhere, in a minute or two on 2 processor cores; it is also what `make demo` and a missing --config run.
"""

from ml_collections import ConfigDict
from slimjax.configs import default


def get_config() -> ConfigDict:
    """The demo's configuration."""
    config = default.get_config()
    config.num_train_steps = 400
    config.learning_rate = 0.1
    config.schedule.warmup_steps = 20
    config.eval_every_steps = 100
    config.checkpoint_every_steps = 50
    return config
