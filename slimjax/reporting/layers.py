"""The layers whose channels a report can look at: convolutions with their batch norms, named by their place."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np

from slimjax.deploy.folding import convolutions_of_batch_norms
from slimjax.errors import UserError, did_you_mean
from slimjax.models.network import SlimmableNetwork
from slimjax.nn.layers import read_variable
from slimjax.nn.tracing import LayerTrace, Path, abstract_variables, trace_layers


@dataclass(frozen=True)
class NormLayer:
    """A convolution and the batch norm behind it.

    Attributes:
      name: such as `block_3/expand`.
      path: of the batch norm in the variables' tree.
      channels: for every width, which of the widest's channels its outputs are, in order.
    """

    name: str
    path: Path
    channels: Mapping[float, np.ndarray]

    @property
    def common_channels(self) -> np.ndarray:
        """The channels that every width has, ascending."""
        return reduce(np.intersect1d, self.channels.values())

    def index_of(self, channel: int, width: float) -> int | None:
        """Where a width has a channel among its own; None if it has not."""
        found = np.flatnonzero(self.channels[width] == channel)
        return int(found[0]) if len(found) else None


def norm_layers(model: SlimmableNetwork) -> list[NormLayer]:
    """Every batch norm with its convolution, in the order of the network."""
    channels: dict[Path, dict[float, np.ndarray]] = {}
    for width in model.widths:
        layers = trace_layers(model, width)
        by_path = {layer.path: layer for layer in layers}
        for norm, convolution in convolutions_of_batch_norms(layers).items():
            channels.setdefault(norm, {})[width] = _stored_outputs(model, by_path[convolution])
    return [NormLayer("/".join(path[:-1]), path, of_widths) for path, of_widths in channels.items()]


def find_layer(model: SlimmableNetwork, name: str | None, where: str) -> NormLayer:
    """A layer by name, or the last one.

    Args:
      model: the network.
      name: of the layer; None takes the last.
      where: the run, for the message.

    Raises:
      UserError: if there is no such layer; it names all that there are.
    """
    layers = {layer.name: layer for layer in norm_layers(model)}
    if name is None:
        return list(layers.values())[-1]
    if name not in layers:
        raise UserError(
            f"--layer={name} is no layer of {where}{did_you_mean(name, layers)}; choose one of {', '.join(layers)}"
        )
    return layers[name]


def check_channel(layer: NormLayer, channel: int | None, where: str) -> None:
    """UserError unless the widest of a run has the channel, if one is given."""
    widest = max(layer.channels)
    count = len(layer.channels[widest])
    if channel is not None and layer.index_of(channel, widest) is None:
        raise UserError(
            f"--channel={channel} is no channel of {layer.name} in {where}; it has 0 to {count - 1}, of which every "
            f"width has {len(layer.common_channels)}"
        )


def _stored_outputs(model: SlimmableNetwork, convolution: LayerTrace) -> np.ndarray:
    """Which of the stored kernel's outputs a call of a convolution computes, in order."""
    kernel = next(variable for variable in convolution.variables if variable.path == ("kernel",))
    shape = read_variable(abstract_variables(model), convolution.path, kernel).shape
    outputs = kernel.active_elements(shape) % shape[-1]
    return outputs.reshape(-1, outputs.shape[-1])[0]
