"""What the published rows have in common: ImageNet or COCO as the paper shows them, and the methods that it compares.

Every row's file takes a method behind a colon, such as `--config=configs/s_mobilenet_v2.py:individual=0.5`:

- `slimmable`, the default: all widths in every step, each with its own batch norms.
- `individual=WIDTH`: a network of that width alone, one of the row's widths.
- `naive`: all widths share every batch norm (SNet, section 3.1). Training looks normal, but the published result is
  about 0.1 % accuracy in evaluation (a top-1 error of 99.9 %).
- `incremental`: narrowest first, frozen, then the rest (SNet, section 3.1); every width takes the whole recipe.

The recipes are the paper's: a larger batch needs a learning rate scaled with it and a warm-up, and neither is done
behind your back. The hours in the files are estimates from arithmetic, since nobody here has run a row to its end:
6 x multiply-adds of all widths x images x epochs, at a stated share of the chips' peak, with JPEGs decoded fast enough.
The share is a guess. Naive and incremental training run the same widths as often, so they need the same arithmetic.
"""

from ml_collections import ConfigDict
from slimjax.configs import default

from slimjax.errors import UserError


def imagenet(name: str, widths: tuple[float, ...], augmentation: str) -> ConfigDict:
    """The parts of a recipe that all rows share: data, optimiser and how often a run reports.

    Args:
      name: of the model.
      widths: of the row, ascending.
      augmentation: `mobile` crops .25 to 1 of an image's area, `inception` .08 to 1.
    """
    config = default.get_config()
    config.model.name = name
    config.model.widths = widths
    config.dataset.name = "imagenet2012"
    config.dataset.eval_split = "validation"
    config.dataset.image_size = 224
    config.dataset.eval_resize = 256
    config.dataset.augmentation = augmentation
    config.dataset.flip = True
    config.dataset.color_jitter = 0.4
    config.dataset.pca_noise = 0.1
    config.optimizer.options = "momentum=0.9, nesterov=True"
    config.optimizer.weight_decay = 1e-4
    config.log_every_steps = 100
    config.eval_every_epochs = 1.0
    config.checkpoint_every_epochs = 1.0
    return config


def coco(method: str) -> ConfigDict:
    """The detectors' recipe for COCO 2017: an R-50-FPN for 12 epochs, by the name 1x (SNet, section 4.2).

    The backbone starts from S-ResNet-50 on ImageNet: give its workdir as `init_from`.

    Args:
      method: `slimmable` or `individual=WIDTH`.

    Raises:
      UserError: if it is another one, or the width is not one of the row's.
    """
    config = default.get_config()
    config.task = "detection"
    config.model.name = "resnet50"
    config.model.widths = (0.25, 0.5, 0.75, 1.0)
    config.dataset.name = "coco/instances"
    config.dataset.train_split = "train2017"
    config.dataset.eval_split = "val2017"
    config.dataset.flip = True
    config.batch_size = 16
    config.num_epochs = 12.0
    config.learning_rate = 0.02
    config.schedule.name = "multistep"
    config.schedule.boundaries_epochs = (8.0, 11.0)
    config.schedule.warmup_steps = 500
    config.schedule.warmup_factor = 1 / 3
    config.optimizer.options = "momentum=0.9"
    config.optimizer.weight_decay = 1e-4
    config.optimizer.clip_norm = 35.0
    config.log_every_steps = 50
    config.eval_every_epochs = 1.0
    config.checkpoint_every_epochs = 1.0
    if method.partition("=")[0] not in ("slimmable", "individual"):
        raise UserError(f"method {method!r} is not a detector's; behind the colon choose slimmable or individual=WIDTH")
    return with_method(config, method)


def for_pod(config: ConfigDict, batch_size: int) -> ConfigDict:
    """A row's configuration for the large batches of TPU pods: the learning rate grows with the batch, after a warm-up.

    Linear scaling and the warm-up of 5 epochs from the row's own rate are those of Goyal et al. (arXiv:1706.02677,
    sections 2.1 and 2.2); neither was tried on a slimmable network.

    Args:
      config: of the row; changed in place.
      batch_size: images of one step over all devices.
    """
    scale = batch_size / config.batch_size
    config.batch_size = batch_size
    config.learning_rate *= scale
    config.schedule.warmup_epochs = 5.0
    config.schedule.warmup_factor = 1 / scale
    config.dtype = "bfloat16"
    return config


def with_method(config: ConfigDict, method: str) -> ConfigDict:
    """A row's configuration for one of the methods that the paper compares.

    Args:
      config: of the slimmable network; changed in place.
      method: `slimmable`, `individual=WIDTH`, `naive` or `incremental`.

    Raises:
      UserError: if the method is unknown, or the width is not one of the row's.
    """
    kind, _, width = method.partition("=")
    if kind == "individual":
        config.model.widths = (_width_of_row(config.model.widths, width),)
    elif method == "naive":
        config.model.batch_norm = "shared"
    elif method == "incremental":
        config.switch_rule = "incremental"
        if config.model.name == "mobilenet_v2":
            # A frozen width's batch norms must not move with another's.
            config.model.tail_bn = "private"
    elif method != "slimmable":
        raise UserError(
            f"method {method!r} is unknown; behind the colon choose slimmable, individual=WIDTH, naive or incremental"
        )
    return config


def _width_of_row(widths: tuple[float, ...], text: str) -> float:
    try:
        matching = [width for width in widths if width == float(text)]
    except ValueError:
        matching = []
    if not matching:
        raise UserError(
            f"individual={text} is not one of this row's widths {tuple(widths)}; give one, as in individual={widths[0]}"
        )
    return matching[0]
