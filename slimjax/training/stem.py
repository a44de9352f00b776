"""The stem, which sees the same images at every width: a step runs it once, and every width takes a slice.

So does its kernel's gradient wait for all widths: it is the one convolution of the images with what they hand back.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
from flax import linen as nn

from slimjax.models.network import SlimmableNetwork
from slimjax.nn.layers import SlimmableConv
from slimjax.nn.tracing import trace_layers
from slimjax.training.parts import Flat


class Stem:
    """The first convolution of a network, run outside of it.

    Attributes:
      parameters: paths of its parameters.
    """

    def __init__(self, model: SlimmableNetwork) -> None:
        """Looks it up.

        Args:
          model: whose first layer is a convolution of the images, as that of every family is.
        """
        first = {width: trace_layers(model, width)[0] for width in model.widths}
        widest = first[model.widths[-1]]
        self._path = widest.path
        self.parameters = tuple((*self._path, *variable.path) for variable in widest.variables)
        layer = widest.layer
        assert isinstance(layer, SlimmableConv)
        self._layer = layer
        self._features = {width: call.output_shape[-1] for width, call in first.items()}

    def output(self, params: Mapping[Any, jax.Array], images: jax.Array) -> jax.Array:
        """What the stem makes of images with all of its channels: [batch, height', width', max_features].

        Args:
          params: by path, the stem's among them.
          images: [batch, height, width, 3].
        """
        own = {path[-1]: params[path] for path in self.parameters}
        output: Any = self._layer.apply({"params": own}, images)
        return output

    def gradients(self, params: Mapping[Any, jax.Array], images: jax.Array, of_output: jax.Array) -> Flat:
        """The gradients of the stem's parameters, by path, given that of its whole output, float32."""
        own = {path: params[path] for path in self.parameters}
        output, backward = jax.vjp(lambda own: self.output(own, images), own)
        return backward(of_output.astype(output.dtype))[0]

    def active(self, output: jax.Array, width: float) -> jax.Array:
        """The slice of the whole output that a width's own stem computes."""
        return self._layer.active_outputs(output, self._features[width])

    def add_active(self, total: jax.Array, gradient: jax.Array) -> jax.Array:
        """Adds the gradient of a width's slice to that of the whole output, in place where the compiler can."""
        return self._layer.add_to_active_outputs(total, gradient.astype(total.dtype))

    @contextmanager
    def replaced_by(self, active: jax.Array) -> Iterator[None]:
        """A context in which the network, when traced, takes a slice of the output where it would run its stem."""

        def take(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            is_stem = context.module.path == self._path and context.method_name == "__call__"
            return active if is_stem else call(*args, **kwargs)

        with nn.intercept_methods(take):
            yield
