"""One width of a slimmable network as an ordinary network, with nothing of the other widths in it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from slimjax.models.network import SlimmableNetwork
from slimjax.nn.tracing import Path, checked_variables, trace_layers


class Network(NamedTuple):
    """A network with its variables; unpacks as `model, variables`.

    Attributes:
      model: the module.
      variables: what `model.apply` takes, of its own memory: donating or changing it touches no other network.
    """

    model: SlimmableNetwork
    variables: Any


def extract_subnet(model: SlimmableNetwork, variables: Any, width: float) -> Network:
    """A width as a stand-alone network: the same outputs, in evaluation and in training.

    Kernels are the active parts, whichever elements those are. Batch norms are the width's own, keyed `switch_0` unless
    they are shared. The model is what `create_model` builds for that width alone.

    Args:
      model: a slimmable network.
      variables: its variables, concrete arrays.
      width: one of the model's widths.

    Returns:
      The model of that width and its variables, copied.

    Raises:
      UserError: if the width is not one of the model's, or the variables are not this model's.
    """
    stored = checked_variables(model, variables)
    narrow = _alone(model, width)
    own: dict[Path, np.ndarray] = {}
    for layer, target in zip(trace_layers(model, width), trace_layers(narrow, narrow.widths[0]), strict=True):
        for read, kept in zip(layer.variables, target.variables, strict=True):
            whole = np.asarray(stored[read.collection, *layer.path, *read.path])
            own[kept.collection, *target.path, *kept.path] = np.array(read.active(whole), order="C")
    return network_of(narrow, own)


def _alone(model: SlimmableNetwork, width: float) -> SlimmableNetwork:
    """The network that has one of the model's widths and no other."""
    switch = model.switch_of(width)
    plan = model.resolved_plans()[switch]
    is_uniform = dict(plan.features) == dict(model.uniform_plan(plan.width).features)
    return model.clone(widths=model.widths[switch : switch + 1], plans=None if is_uniform else (plan,))


def network_of(model: SlimmableNetwork, arrays: Mapping[Path, np.ndarray]) -> Network:
    """A network of a model and its arrays by path, the collection first; UserError if they do not fit."""
    variables = unflatten_dict({path: jnp.asarray(array) for path, array in arrays.items()})
    checked_variables(model, variables)
    return Network(model, variables)
