"""Batch norms folded for inference: into the kernels of one width, or beside kernels that all widths share.

With the statistics constant, a batch norm is y = x * s + b with s = scale / sqrt(var + epsilon), b = bias - mean * s.
The scale differs from width to width, so multiplying it into the kernels ends their sharing: one width alone keeps a
bias only (`folding="bias"`), several keep s and b of each width beside the shared kernels (`folding="affine"`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from slimjax.deploy.subnets import Network, extract_subnet, network_of
from slimjax.errors import UserError
from slimjax.models.network import SlimmableNetwork
from slimjax.nn.batch_norm import SwitchableBatchNorm
from slimjax.nn.folded import Folding
from slimjax.nn.layers import SlimmableConv, SlimmableDepthwiseConv
from slimjax.nn.tracing import LayerTrace, Path, abstract_variables, checked_variables, trace_layers


def fold_batch_norm(model: SlimmableNetwork, variables: Any, width: float | None = None) -> Network:
    """The network without batch norms, for inference: it computes what the network computes with train=False.

    Args:
      model: a slimmable network.
      variables: its variables, concrete arrays.
      width: the width to keep, its scales multiplied into the kernels, so that biases are all that is left of the batch
        norms. None keeps all widths over one set of kernels, with a scale and a bias for every width; a network of one
        width is folded as if that width were given.

    Returns:
      The folded model, which refuses train=True, and its variables, copied; they are all `params`.

    Raises:
      UserError: if the network is folded already, the width is not one of its own, the variables are not its own, or a
        batch norm does not stand directly behind a convolution.
    """
    if model.folding is not None:
        raise UserError(f"the network is folded already (folding={model.folding!r}); fold the one that was trained")
    if width is None and len(model.widths) > 1:
        return _folded(model, checked_variables(model, variables), "affine")
    narrow, own = extract_subnet(model, variables, model.widths[0] if width is None else width)
    return _folded(narrow, checked_variables(narrow, own), "bias")


def _folded(model: SlimmableNetwork, stored: Mapping[Path, Any], folding: Folding) -> Network:
    """Folds every width; with `bias` there has to be one only, since its scales go into the kernels."""
    folded = model.clone(folding=folding)
    kept = {path: np.zeros(leaf.shape, leaf.dtype) for path, leaf in flatten_dict(abstract_variables(folded)).items()}
    for width in model.widths:
        layers = trace_layers(model, width)
        convolutions = convolutions_of_batch_norms(layers)
        affines = {
            layer.path: _affine(layer.layer, layer, stored)
            for layer in layers
            if isinstance(layer.layer, SwitchableBatchNorm)
        }
        in_kernels = {convolutions[path]: affine["scale"] for path, affine in affines.items() if folding == "bias"}
        for layer in trace_layers(folded, width):
            for variable in layer.variables:
                path = (variable.collection, *layer.path, *variable.path)
                array = kept[path]
                if layer.path in affines:
                    array.reshape(-1)[variable.active_elements(array.shape)] = affines[layer.path][variable.path[-1]]
                else:
                    array[...] = np.asarray(stored[path], np.float64) * in_kernels.get(layer.path, 1.0)
    return network_of(folded, kept)


def convolutions_of_batch_norms(layers: Sequence[LayerTrace]) -> dict[Path, Path]:
    """The path of the convolution that every batch norm normalises, by the batch norm's path.

    It is the one whose very output the batch norm takes, in the block that holds both, and which hands its output to no
    other layer. (That a block does not add a convolution's bare output to something besides is taken for granted.)

    Args:
      layers: one width of a network, in the order of execution.

    Raises:
      UserError: if a batch norm has no such convolution.
    """
    kernels = {layer.path for layer in layers if isinstance(layer.layer, (SlimmableConv, SlimmableDepthwiseConv))}
    calls = Counter(layer.path for layer in layers)
    convolutions: dict[Path, Path] = {}
    for layer in layers:
        if isinstance(layer.layer, SwitchableBatchNorm):
            source = layer.source
            takers = {other.path for other in layers if other.source == source}
            if (
                source not in kernels
                or source[:-1] != layer.path[:-1]
                or takers != {layer.path}
                or calls[source] != calls[layer.path]
            ):
                raise UserError(
                    f"{'/'.join(layer.path)} cannot be folded, as no convolution of its own block hands its output to "
                    "it alone; apply a batch norm to what a convolution puts out, before anything else"
                )
            convolutions[layer.path] = source
    return convolutions


def _affine(norm: SwitchableBatchNorm, layer: LayerTrace, stored: Mapping[Path, Any]) -> dict[str, np.ndarray]:
    """`scale` [features] and `bias` [features], float64, that a call of a batch norm comes to in evaluation."""
    values = {}
    for variable in layer.variables:
        whole = np.asarray(stored[variable.collection, *layer.path, *variable.path], np.float64)
        values[variable.path[-1]] = variable.active(whole)
    scale = values["scale"] / np.sqrt(values["var"] + norm.epsilon)
    return {"scale": scale, "bias": values["bias"] - values["mean"] * scale}
