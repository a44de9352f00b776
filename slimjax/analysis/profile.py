"""Parameters and multiply-adds of every width, counted from the layers that a width runs."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from slimjax.models.network import SlimmableNetwork
from slimjax.nn.batch_norm import Normaliser
from slimjax.nn.layers import Variable, read_variable
from slimjax.nn.tracing import LayerTrace, abstract_variables, trace_layers


@dataclass(frozen=True)
class WidthProfile:
    """What one width costs.

    Attributes:
      width: the width.
      kernel_params: parameters of convolutions and dense layers, biases included.
      batch_norm_params: scales and biases of batch norms, or of what they are folded to.
      macs: multiply-adds for one image; the papers call them FLOPs. Convolutions and dense layers count.
    """

    width: float
    kernel_params: int
    batch_norm_params: int
    macs: int

    @property
    def params(self) -> int:
        """All trained parameters that the width reads."""
        return self.kernel_params + self.batch_norm_params


def profile_model(model: SlimmableNetwork, image_size: int = 224) -> list[WidthProfile]:
    """Counts every width of a network on square images of `image_size` pixels, narrowest first."""
    return [_profile_width(model, width, image_size) for width in model.widths]


def total_params(model: SlimmableNetwork) -> int:
    """Trained parameters of the whole network: shared kernels once, every width's batch norms."""
    return sum(leaf.size for leaf in jax.tree.leaves(abstract_variables(model)["params"]))


def _profile_width(model: SlimmableNetwork, width: float, image_size: int) -> WidthProfile:
    layers = trace_layers(model, width, image_size)
    variables = abstract_variables(model)

    def active_size(layer: LayerTrace, variable: Variable) -> int:
        stored = read_variable(variables, layer.path, variable)
        return variable.active(np.empty(stored.shape, bool)).size

    def params_where(condition: Callable[[LayerTrace], bool]) -> int:
        return sum(
            active_size(layer, variable)
            for layer in layers
            if condition(layer)
            for variable in layer.variables
            if variable.collection == "params"
        )

    return WidthProfile(
        width=width,
        kernel_params=params_where(lambda layer: not issubclass(layer.kind, Normaliser)),
        batch_norm_params=params_where(lambda layer: issubclass(layer.kind, Normaliser)),
        macs=sum(layer.macs for layer in layers),
    )
