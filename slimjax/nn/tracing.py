"""What every layer of a network reads and costs at a width, found by following one abstract call."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from slimjax.errors import UserError
from slimjax.nn.channels import LeadingChannels
from slimjax.nn.layers import SlimmableLayer, Variable, read_variable

Path = tuple[str, ...]
IMAGES: Path = ()
"""In the place of a layer: where the network's images come from."""


@dataclass(frozen=True)
class LayerCall:
    """What has to be known to run a layer by itself as a network does; equal calls cost the same, wherever they are.

    Attributes:
      layer: the layer outside of its network, without a name.
      input: shape, batch first, and dtype of the array that came in.
      arguments: what else it was called with, all of it static: active channels, a switch.
      keywords: of those, the ones given by name.
    """

    layer: SlimmableLayer
    input: jax.ShapeDtypeStruct
    arguments: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...]

    def __call__(self, variables: Any, x: jax.Array) -> jax.Array:
        """Applies the layer to another array of the same shape, apart from the batch."""
        output: Any = self.layer.apply(variables, x, *self.arguments, **dict(self.keywords))
        return output

    def variable_shapes(self) -> Any:
        """Shapes and dtypes of the variables that a call reads, as the layer alone stores them."""
        layer: Any = self.layer
        keywords = dict(self.keywords)
        shapes = jax.eval_shape(lambda x: layer.init(jax.random.key(0), x, *self.arguments, **keywords), self.input)
        return _selected(shapes, ((), layer.variables_read(self.input, *self.arguments, **keywords)))


@dataclass(frozen=True)
class LayerTrace:
    """One call of a slimmable layer.

    Attributes:
      path: keys of the layer in the variables' tree.
      call: the layer and what came in.
      output: shape, batch first, and dtype of the array that went out.
      macs: multiply-adds of the call for the whole batch.
      variables: what it read, with the active parts.
      source: path of the layer whose very output came in, IMAGES for the images themselves; None if anything has been
        done to it in between.
    """

    path: Path
    call: LayerCall
    output: jax.ShapeDtypeStruct
    macs: int
    variables: tuple[Variable, ...]
    source: Path | None

    @property
    def layer(self) -> SlimmableLayer:
        """The layer outside of its network, without a name."""
        return self.call.layer

    @property
    def kind(self) -> type[SlimmableLayer]:
        """The layer's class."""
        return type(self.layer)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the array that came in, batch first."""
        return self.call.input.shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of the array that went out, batch first."""
        return self.output.shape


@lru_cache(maxsize=16)
def abstract_variables(model: nn.Module) -> Any:
    """Shapes and dtypes of all variables of an image network, whose kernels do not depend on the image's size."""
    return jax.eval_shape(model.init, jax.random.key(0), _images(32))


def checked_variables(model: nn.Module, variables: Any) -> dict[Path, Any]:
    """The variables by path, the collection first.

    Raises:
      UserError: if the model has others or of other shapes; it names the first of them.
    """
    remedy = "give the variables of this very model, or build it with the widths and options that they were made with"
    if not isinstance(variables, Mapping):
        raise UserError(f"variables are a {type(variables).__name__}, not a dictionary of collections; {remedy}")
    given, expected = flatten_dict(variables), flatten_dict(abstract_variables(model))
    if missing := [path for path in expected if path not in given]:
        raise UserError(f"the variables lack {_named(missing)}, which the model has; {remedy}")
    if unknown := [path for path in given if path not in expected]:
        raise UserError(f"the variables have {_named(unknown)}, which the model does not; {remedy}")
    for path, leaf in expected.items():
        if np.shape(given[path]) != leaf.shape:
            raise UserError(
                f"{'/'.join(path)} has the shape {np.shape(given[path])}, the model's is {leaf.shape}; {remedy}"
            )
    return given


@lru_cache(maxsize=64)
def trace_layers(model: nn.Module, width: float, image_size: int = 32) -> tuple[LayerTrace, ...]:
    """Follows one image [1, image_size, image_size, 3] through the network at a width, in the order of execution."""
    traces: list[LayerTrace] = []
    # Outputs are kept for as long as their identities have to be told apart.
    outputs: dict[int, tuple[Any, Path]] = {}

    def record(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*args, **kwargs)
        layer = context.module
        if isinstance(layer, SlimmableLayer) and context.method_name == "__call__":
            x, *rest = args
            alone = LayerCall(layer.clone(parent=None, name=None), _struct(x), tuple(rest), tuple(kwargs.items()))
            # Asked of the layer by itself: what it answers must not keep the network and its tracers alive.
            read, macs = alone.layer.variables_read(*args, **kwargs), layer.macs(x, output)
            _, source = outputs.get(id(x), (x, None))
            traces.append(LayerTrace(layer.path, alone, _struct(output), macs, read, source))
            outputs[id(output)] = output, layer.path
        return output

    variables = abstract_variables(model)

    def run(variables: Any, images: jax.Array) -> Any:
        outputs[id(images)] = images, IMAGES
        return model.apply(variables, images, width=width)

    with nn.intercept_methods(record):
        jax.eval_shape(run, variables, _images(image_size))
    return tuple(traces)


def variables_at(model: nn.Module, variables: Any, width: float) -> Any:
    """The variables that a width reads, each as it is stored: kernels at their widest, no other width's batch norms.

    A compiled call takes them in much faster than all of them, since every array costs time when it is dispatched.
    """
    return _selected(variables, *((layer.path, layer.variables) for layer in trace_layers(model, width)))


def variables_read(model: nn.Module, width: float) -> Iterator[tuple[Path, Variable]]:
    """The variables that a width reads, by their paths in their collections; one comes for every call that reads it."""
    for layer in trace_layers(model, width):
        for variable in layer.variables:
            yield (*layer.path, *variable.path), variable


def active_masks(model: nn.Module, width: float, collection: str = "params") -> Any:
    """Which elements of a collection a width reads: a tree like the collection of boolean NumPy arrays."""
    shapes = flatten_dict(abstract_variables(model)[collection])
    masks = {path: np.zeros(leaf.shape, bool) for path, leaf in shapes.items()}
    for path, variable in variables_read(model, width):
        if variable.collection == collection:
            masks[path].reshape(-1)[variable.active_elements(masks[path].shape)] = True
    return unflatten_dict(masks)


def active_parts(model: nn.Module, width: float) -> dict[Path, LeadingChannels]:
    """The part of every parameter that a width reads, by path; all of one that its layers read different parts of."""
    parts: dict[Path, LeadingChannels] = {}
    for path, variable in variables_read(model, width):
        if variable.collection == "params":
            is_as_before = parts.get(path, variable.active) == variable.active
            parts[path] = variable.active if is_as_before else LeadingChannels()
    return parts


def parameter_roles(model: nn.Module) -> Any:
    """The role of every parameter, such as `kernel` or `scale`: a tree like `params` of strings."""
    roles = dict.fromkeys(flatten_dict(abstract_variables(model)["params"]), "")
    for width in model.widths:
        for path, variable in variables_read(model, width):
            if variable.collection == "params":
                roles[path] = variable.role
    return unflatten_dict(roles)


def _selected(variables: Any, *read: tuple[Path, tuple[Variable, ...]]) -> Any:
    """The part of a tree of variables that layers read, given as pairs of a layer's path and its variables."""
    selected: dict[str, Any] = {}
    for path, of_layer in read:
        for variable in of_layer:
            node = selected
            *above, last = (variable.collection, *path, *variable.path)
            for key in above:
                node = node.setdefault(key, {})
            node[last] = read_variable(variables, path, variable)
    return selected


def _struct(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _images(size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)


def _named(paths: list[Path]) -> str:
    others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return "/".join(map(str, paths[0])) + others
