"""The stem, which sees the same images at every width: a step runs it once, and each width takes a slice of its output.

The gradient of its kernel is computed once as well, from what all widths hand back.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.models.network import SlimmableNetwork
from slimjax.nn.layers import SlimmableConv
from slimjax.nn.scheduling import computed_after, computed_once
from slimjax.nn.tracing import IMAGES, Path, trace_layers
from slimjax.training.parts import Flat


@dataclass(frozen=True)
class Stem:
    """The first convolution of a network, run outside of it.

    Attributes:
      layer: the convolution.
      path: of it in the network.
      parameters: paths of its parameters.
      features: output channels of every width.
    """

    layer: SlimmableConv
    path: Path
    parameters: tuple[Path, ...]
    features: Mapping[float, int]

    @classmethod
    def of(cls, model: SlimmableNetwork) -> "Stem | None":
        """The stem of a network; None if that does not begin with a convolution of the images, as every family does."""
        first = {width: trace_layers(model, width)[0] for width in model.widths}
        widest = first[model.widths[-1]]
        if not isinstance(widest.layer, SlimmableConv) or any(
            layer.path != widest.path or layer.source != IMAGES for layer in first.values()
        ):
            return None
        parameters = tuple((*widest.path, *variable.path) for variable in widest.variables)
        features = {width: layer.output_shape[-1] for width, layer in first.items()}
        return cls(widest.layer, widest.path, parameters, features)

    def run(self, params: Mapping[Any, jax.Array], images: jax.Array) -> "StemOutput":
        """Runs it with all of its channels.

        Args:
          params: by path, the stem's among them.
          images: [batch, height, width, 3].
        """
        return StemOutput(self, images, self._apply(params, images))

    def gradients(self, params: Mapping[Any, jax.Array], images: jax.Array, of_output: jax.Array) -> Flat:
        """The gradients of the stem's parameters, by path, given that of its whole output, float32."""
        own = {path: params[path] for path in self.parameters}
        output, backward = jax.vjp(lambda own: self._apply(own, images), own)
        return backward(of_output.astype(output.dtype))[0]

    def without_parameters(self, arrays: Mapping[Path, Any]) -> Flat:
        """Arrays by path, less those of the stem's parameters."""
        return {path: array for path, array in arrays.items() if path not in self.parameters}

    def added(self, total: jax.Array | None, of_slice: jax.Array) -> jax.Array:
        """The gradient of the whole output, float32, with that of a width's slice added; None is zero."""
        if total is None:
            total = jnp.zeros((*of_slice.shape[:-1], self.layer.max_features), jnp.float32)
        return self.layer.active_outputs(of_slice.shape[-1]).add(total, of_slice.astype(jnp.float32))

    def output_shape(self, params: Mapping[Any, Any], images: Any) -> jax.ShapeDtypeStruct:
        """Shape and dtype of the whole output."""
        shape: Any = jax.eval_shape(self._apply, params, images)
        return shape

    def _apply(self, params: Mapping[Any, jax.Array], images: jax.Array) -> jax.Array:
        own = {path[-1]: params[path] for path in self.parameters}
        output: Any = self.layer.apply({"params": own}, images)
        return output


@dataclass(frozen=True)
class StemOutput:
    """What a stem has made of images.

    Attributes:
      stem: that ran.
      images: [batch, height, width, 3].
      whole: with all channels: [batch, height', width', max_features].
    """

    stem: Stem
    images: jax.Array
    whole: jax.Array

    def slice_of(self, width: float, after: jax.Array | None = None) -> jax.Array:
        """What the stem of a width would have put out; see `computed_after` for a number that it has to wait for."""
        active = self.stem.layer.active_outputs(self.stem.features[width])
        if after is not None:
            return computed_after(self.whole, after, active)
        own = active(self.whole)
        if own.shape == self.whole.shape:
            # No slice that XLA would repeat: a convolution's output is in memory anyway, and a copy would stay there.
            return own

        def in_memory(own: jax.Array) -> jax.Array:
            return computed_once(own, own[0, 0, 0, 0])

        return jax.lax.platform_dependent(own, cpu=in_memory, default=lambda own: own)

    @contextmanager
    def taken(self, own_slice: jax.Array) -> Iterator[None]:
        """A context in which the network, when traced, takes a slice of the output where it would run its stem.

        Raises:
          ValueError: if the network is given other images.
        """

        def take(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            if context.module.path != self.stem.path or context.method_name != "__call__":
                return call(*args, **kwargs)
            if args[0] is not self.images:
                raise ValueError("a task's loss has to hand batch['image'] to its network as it is; see Task.loss")
            return own_slice

        with nn.intercept_methods(take):
            yield
