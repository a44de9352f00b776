"""What is slimmed: one table of model names, and the function that builds from it."""

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from numbers import Integral
from typing import Any

from slimjax.errors import UserError, did_you_mean
from slimjax.models import mobilenet_v1, mobilenet_v2, resnet, shufflenet
from slimjax.models.mobilenet_v1 import MobileNetV1
from slimjax.models.mobilenet_v2 import MobileNetV2
from slimjax.models.network import SlimmableNetwork
from slimjax.models.resnet import ResNet
from slimjax.models.shufflenet import ShuffleNet
from slimjax.nn.plans import check_widths

MODELS: dict[str, Callable[..., SlimmableNetwork]] = {
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v1_tiny": partial(MobileNetV1, stages=mobilenet_v1.TINY_STAGES, stem="small"),
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v2_tiny": partial(MobileNetV2, stages=mobilenet_v2.TINY_STAGES, stem="small"),
    "resnet50": ResNet,
    "resnet101": partial(ResNet, stages=resnet.STAGES_101),
    "resnet152": partial(ResNet, stages=resnet.STAGES_152),
    "resnet_pyramid_tiny": partial(ResNet, stem_features=32, stem_kernel_size=3, stages=resnet.PYRAMID_STAGES),
    "resnet_tiny": partial(ResNet, stem_features=16, stem_kernel_size=3, stages=resnet.TINY_STAGES, stem="small"),
    "shufflenet": ShuffleNet,
    "shufflenet_tiny": partial(ShuffleNet, stages=shufflenet.TINY_STAGES, stem="small"),
}
"""What builds each model, by the name that `create_model` and `model.name` take; `tiny` ones are for small images."""


def create_model(name: str, widths: Iterable[float], num_classes: int, **options: Any) -> SlimmableNetwork:
    """Builds a slimmable network.

    Args:
      name: one of MODELS.
      widths: ascending widths, each a positive number, such as (0.25, 0.5, 0.75, 1.0).
      num_classes: outputs of the classifier.
      **options: attributes of the family, such as `stem`, `batch_norm`, `dtype`, or `tail_bn` of MobileNet v2.

    Returns:
      A Flax module, for `init(key, images)` and `apply(variables, images, width=0.5)`.

    Raises:
      UserError: if the name, a width or an option is unknown or out of range.
    """
    if name not in MODELS:
        hint = did_you_mean(str(name), MODELS)
        raise UserError(f"model.name={name!r} is unknown{hint}; choose one of {', '.join(MODELS)}")
    if not isinstance(num_classes, Integral) or num_classes < 1:
        raise UserError(f"num_classes={num_classes!r} has to be a whole number of at least 1")
    builder = MODELS[name]
    known = [field for field in inspect.signature(builder).parameters if field not in ("parent", "name")]
    if unknown := sorted(set(options) - set(known)):
        raise UserError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    model = builder(widths=check_widths(widths), num_classes=int(num_classes), **options)
    model.check_options()
    return model


__all__ = ["MODELS", "MobileNetV1", "MobileNetV2", "ResNet", "ShuffleNet", "SlimmableNetwork", "create_model"]
