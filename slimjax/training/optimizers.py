"""The one optimiser that all widths share."""

import ast
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from slimjax.errors import UserError, did_you_mean
from slimjax.models.network import SlimmableNetwork
from slimjax.nn.tracing import parameter_roles


def decay_mask(model: SlimmableNetwork) -> Any:
    """True for the parameters that decay: kernels of dense layers and of convolutions that are not depthwise.

    Batch norms, biases and depthwise kernels do not (SNet, section 4.1). A tree like `params` of booleans.
    """
    return jax.tree.map(lambda role: role == "kernel", parameter_roles(model))


def create_optimizer(config: ConfigDict, schedule: optax.Schedule, mask: Any) -> optax.GradientTransformation:
    """Any optimiser of optax, with weight decay on the masked parameters and clipping before everything else.

    An optimiser that has a weight decay of its own, such as adamw, is given the decay; for the others it is added to
    the gradient, which is what SGD's recipes mean by it.

    Args:
      config: the section `optimizer` of the configuration.
      schedule: the learning rate of every step.
      mask: tree of booleans, true where weights decay.

    Raises:
      UserError: for an unknown optimiser, an unknown option, or options that do not parse.
    """
    factory = _optax_optimizer(config.name)
    known = inspect.signature(factory).parameters
    options = parse_options(config.options)
    free = [name for name in known if name not in ("learning_rate", "mask", "weight_decay")]
    if unknown := sorted(set(options) - set(free)):
        allowed = ", ".join(free)
        raise UserError(
            f"optimizer.options: {', '.join(unknown)} is no argument of optax.{config.name} that can be set here; "
            f"it takes {allowed}"
        )
    steps = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    if {"weight_decay", "mask"} <= set(known):
        return optax.chain(*steps, factory(schedule, weight_decay=config.weight_decay, mask=mask, **options))
    if config.weight_decay:
        steps.append(optax.add_decayed_weights(config.weight_decay, mask))
    return optax.chain(*steps, factory(schedule, **options))


def check_optimizer(config: ConfigDict) -> None:
    """UserError if the configuration's optimiser does not exist, or cannot go by gradients alone as a step does."""
    params = {"kernel": jax.ShapeDtypeStruct((2, 2), jnp.float32)}
    try:
        tx = create_optimizer(config, lambda step: 0.1, mask=True)
        jax.eval_shape(lambda params: tx.update(params, tx.init(params), params), params)
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"optimizer.name={config.name!r} with options={config.options!r} cannot take a step ({reason}); "
            "choose another, such as sgd or adamw"
        ) from error


def parse_options(text: str) -> dict[str, Any]:
    """Reads `momentum=0.9, nesterov=True` as keyword arguments of literals; UserError if it is not that."""
    try:
        call = ast.parse(f"options({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, TypeError):
        raise UserError(f"optimizer.options={text!r} has to read like 'momentum=0.9, nesterov=True'") from None


def _optax_optimizer(name: str) -> Callable[..., optax.GradientTransformation]:
    def takes_learning_rate(candidate: Any) -> bool:
        return (
            inspect.isfunction(candidate) and next(iter(inspect.signature(candidate).parameters), "") == "learning_rate"
        )

    names = [
        candidate
        for candidate, value in vars(optax).items()
        if takes_learning_rate(value) and not candidate.startswith(("_", "scale_by"))
    ]
    if name not in names:
        raise UserError(
            f"optimizer.name={name!r} is no optimiser of optax{did_you_mean(name, names)}; "
            f"choose one of {', '.join(sorted(names))}"
        )
    return getattr(optax, name)
