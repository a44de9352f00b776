"""Parameters, multiply-adds and activations of every width, counted from the layers that a width runs."""

import math
from dataclasses import dataclass

import jax
import numpy as np

from slimjax.errors import UserError
from slimjax.models.network import SlimmableNetwork
from slimjax.nn.batch_norm import Normaliser
from slimjax.nn.layers import SlimmableLayer, read_variable
from slimjax.nn.tracing import LayerTrace, abstract_variables, trace_layers


@dataclass(frozen=True)
class LayerProfile:
    """What one call of a layer costs for one image.

    Attributes:
      path: of the layer in the variables' tree, such as `block_1/expand/conv`.
      kind: `Conv`, `DepthwiseConv`, `BatchNorm`, `Dense`, or whatever else slims.
      input_shape: without the batch; [height, width, features] of images.
      output_shape: likewise.
      params: trained parameters that the call reads; none at a later call of the same layer.
      macs: multiply-adds.
      input_bytes: of the array that comes in, at the dtype in which it comes.
      activation_bytes: of the array that goes out, at the dtype of the computation.
    """

    path: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    params: int
    macs: int
    input_bytes: int
    activation_bytes: int


@dataclass(frozen=True)
class WidthProfile:
    """What one width costs for one image.

    How much memory inference takes in all is up to the compiler and the runtime, so what is counted are arrays.

    Attributes:
      width: the width.
      kernel_params: parameters of convolutions and dense layers, biases included.
      batch_norm_params: scales and biases of batch norms, or of what they are folded to.
      layers: in the order of execution.
    """

    width: float
    kernel_params: int
    batch_norm_params: int
    layers: tuple[LayerProfile, ...]

    @property
    def params(self) -> int:
        """All trained parameters that the width reads."""
        return self.kernel_params + self.batch_norm_params

    @property
    def macs(self) -> int:
        """Multiply-adds of convolutions and dense layers; the papers call them FLOPs."""
        return sum(layer.macs for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """The outputs of all layers with parameters together, batch norms included.

        That is the forward half of torchinfo's "forward/backward pass size". Inference needs far less at a time.
        """
        return sum(layer.activation_bytes for layer in self.layers)

    @property
    def largest_layer_bytes(self) -> int:
        """Input and output of the convolution or dense layer in which they are largest together.

        Inference needs at least that. Batch norms and activation functions are taken to work in place, as they do once
        they are fused; what a residual connection keeps meanwhile is not in it.
        """
        return max(layer.input_bytes + layer.activation_bytes for layer in self.layers if layer.macs)


def profile_model(model: SlimmableNetwork, image_size: int = 224) -> list[WidthProfile]:
    """Counts every width of a network on one square image, narrowest first; nothing is compiled or run.

    Args:
      model: the network; activations are counted in its `dtype`.
      image_size: pixels of the image's side.

    Raises:
      UserError: if the image is too small for the network.
    """
    return [profile_width(model, width, image_size) for width in model.widths]


def total_params(model: SlimmableNetwork) -> int:
    """Trained parameters of the whole network: shared kernels once, every width's batch norms."""
    return sum(leaf.size for leaf in jax.tree.leaves(abstract_variables(model)["params"]))


def profile_width(model: SlimmableNetwork, width: float, image_size: int) -> WidthProfile:
    """Counts one width, as `profile_model` does all."""
    if image_size < 1:
        raise UserError(f"image_size={image_size} has to be at least 1 pixel")
    traces = trace_layers(model, width, image_size)
    if empty := [trace for trace in traces if not math.prod(trace.output_shape)]:
        raise UserError(f"image_size={image_size} is too small: nothing is left after {'/'.join(empty[0].path)}")
    first_calls = {trace.path: index for index, trace in reversed(list(enumerate(traces)))}
    layers = tuple(
        _profile_layer(model, trace, counts_params=first_calls[trace.path] == index)
        for index, trace in enumerate(traces)
    )
    params_of = {False: 0, True: 0}
    for trace, layer in zip(traces, layers, strict=True):
        params_of[issubclass(trace.kind, Normaliser)] += layer.params
    return WidthProfile(width, kernel_params=params_of[False], batch_norm_params=params_of[True], layers=layers)


def _profile_layer(model: SlimmableNetwork, trace: LayerTrace, counts_params: bool) -> LayerProfile:
    return LayerProfile(
        path="/".join(trace.path),
        kind=_kind_name(trace.kind),
        input_shape=trace.input_shape[1:],
        output_shape=trace.output_shape[1:],
        params=_active_params(model, trace) if counts_params else 0,
        macs=trace.macs,
        input_bytes=_bytes(trace.call.input),
        activation_bytes=_bytes(trace.output),
    )


def _active_params(model: SlimmableNetwork, trace: LayerTrace) -> int:
    """Elements of the parameters that a call reads."""
    variables = abstract_variables(model)
    # An array that repeats one element takes no memory, however large the layer is.
    return sum(
        variable.active(np.broadcast_to(False, read_variable(variables, trace.path, variable).shape)).size
        for variable in trace.variables
        if variable.collection == "params"
    )


def _kind_name(kind: type[SlimmableLayer]) -> str:
    return kind.__name__.removeprefix("Slimmable").removeprefix("Switchable")


def _bytes(array: jax.ShapeDtypeStruct) -> int:
    return math.prod(array.shape) * array.dtype.itemsize
