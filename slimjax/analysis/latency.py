"""How long a forward pass takes on this machine: of every width, and of every layer run alone."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slimjax.analysis.machine import memory_bytes
from slimjax.analysis.profile import profile_width
from slimjax.analysis.timing import Latency, Track, time_in_turns, untracked
from slimjax.compilation import compile_all, compiler_options
from slimjax.errors import UserError
from slimjax.models.network import SlimmableNetwork
from slimjax.nn.tracing import LayerCall, Path, abstract_variables, checked_variables, trace_layers, variables_at


def measure_latency(
    model: SlimmableNetwork,
    variables: Any,
    image_size: int = 224,
    batch_size: int = 1,
    repeats: int = 50,
    track: Track = untracked,
) -> dict[float, Latency]:
    """Times the forward pass of every width on JAX's default device.

    Every width is one compiled program over the shared weights: it is given the variables that the width reads, and
    slices them itself. Rounds run each width once, so that a machine whose speed drifts favours none; compiling and
    the first calls are left out.

    Args:
      model: the network.
      variables: of the network; `random_variables` will do, since time does not depend on values.
      image_size: pixels of the images' side.
      batch_size: images of one call.
      repeats: timed calls of each width.
      track: shows how far it is.

    Returns:
      The latency of every width.

    Raises:
      UserError: if a number is not positive, the variables are not the model's, or weights or activations cannot fit
        into memory.
    """
    check_measurable(model, image_size, batch_size, repeats)
    checked_variables(model, variables)
    return time_in_turns(forward_passes(model, variables, image_size, batch_size), repeats, track)


def forward_passes(
    model: SlimmableNetwork, variables: Any, image_size: int, batch_size: int
) -> dict[float, Callable[[], Any]]:
    """Calls of the forward pass of every width, compiled for JAX's default device: what `measure_latency` times.

    Those of several networks, timed together, take turns with each other.

    Args:
      model: the network.
      variables: of the network.
      image_size: pixels of the images' side.
      batch_size: images of one call.
    """
    images = _random((batch_size, image_size, image_size, 3))
    on_device = jax.device_put(variables)

    def forward(width: float) -> Callable[[], Any]:
        read = variables_at(model, on_device, width)
        return _compiled(lambda read, images: model.apply(read, images, width=width), read, images)

    return compile_all(jax.default_backend(), forward, model.widths)


def measure_layer_latency(
    model: SlimmableNetwork,
    image_size: int = 224,
    batch_size: int = 1,
    repeats: int = 50,
    track: Track = untracked,
) -> dict[float, tuple[Latency, ...]]:
    """Times every layer of every width alone: compiled by itself, on random input of its shape.

    A layer that several widths or places of the network run in the same way is compiled and timed once. The sum over
    the layers is not the network's latency: in the network, layers are fused with each other and with what lies between
    them, and each call here pays for being dispatched.

    Args:
      model: the network.
      image_size: pixels of the network's images.
      batch_size: images of one call.
      repeats: timed calls of each layer.
      track: shows how far it is.

    Returns:
      The latencies of every width's layers, in the order of `profile_model`'s.

    Raises:
      UserError: if a number is not positive, or weights or activations cannot fit into memory.
    """
    check_measurable(model, image_size, batch_size, repeats)
    traces = {width: trace_layers(model, width, image_size) for width in model.widths}
    by_path: dict[Path, list[LayerCall]] = {}
    for width in model.widths:
        for trace in traces[width]:
            by_path.setdefault(trace.path, []).append(trace.call)
    latencies: dict[LayerCall, Latency] = {}
    for calls in track(by_path.values(), f"timing layers, batch {batch_size}", len(by_path)):
        # The widths of one layer take turns; more layers at once would have all their inputs in memory.
        new = [call for call in dict.fromkeys(calls) if call not in latencies]
        latencies |= time_in_turns({call: _layer_alone(call, batch_size) for call in new}, repeats)
    return {width: tuple(latencies[trace.call] for trace in traces[width]) for width in model.widths}


def check_measurable(model: SlimmableNetwork, image_size: int, batch_size: int, repeats: int) -> None:
    """UserError if a number is not positive, or weights or activations cannot fit into the memory of JAX's device."""
    for name, value in (("batch_size", batch_size), ("repeats", repeats)):
        if value < 1:
            raise UserError(f"{name}={value} has to be at least 1")
    check_weights_fit(model)
    needed = batch_size * profile_width(model, model.widths[-1], image_size).largest_layer_bytes
    if needed > (available := _memory_bytes()):
        raise UserError(
            f"batch_size={batch_size} at image_size={image_size} needs {needed / 1e9:.1f} GB for its largest layer and "
            f"{jax.devices()[0].device_kind} has {available / 1e9:.1f} GB; give a smaller batch or image"
        )


def check_weights_fit(model: SlimmableNetwork) -> None:
    """UserError if the weights of a network, at their widest, cannot fit into the memory of JAX's device."""
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract_variables(model)))
    if needed > (available := _memory_bytes()):
        raise UserError(
            f"num_classes={model.num_classes} and widths={model.widths} need {needed / 1e9:.1f} GB for the weights and "
            f"{jax.devices()[0].device_kind} has {available / 1e9:.1f} GB; give fewer classes or narrower widths"
        )


def random_variables(model: SlimmableNetwork) -> Any:
    """Variables like those of a new network, made without compiling its initialisation."""
    return _filled(abstract_variables(model))


def _layer_alone(call: LayerCall, batch_size: int) -> Callable[[], Any]:
    images, *rest = call.input.shape
    x = _random((images * batch_size, *rest)).astype(call.input.dtype)
    return _compiled(call, jax.device_put(_filled(call.variable_shapes())), x)


def _compiled(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """A call of a function on given arguments, compiled now."""
    options = compiler_options(jax.default_backend())
    program = jax.jit(function, compiler_options=options).lower(*arguments).compile()
    return lambda: program(*arguments)


def _filled(shapes: Any) -> Any:
    """Arrays of given shapes: kernels drawn as `conv_kernel_init` does, batch norms that change nothing.

    Numbers that grow or vanish through the layers would end as infinities or denormals, with which processors are slow.
    """
    rng = np.random.default_rng(0)

    def value(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if leaf.ndim > 1:
            fan_out = math.prod(leaf.shape[:-2]) * leaf.shape[-1]
            return (rng.standard_normal(leaf.shape, np.float32) * (2.0 / fan_out) ** 0.5).astype(leaf.dtype)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), leaf.dtype)

    return jax.tree.map_with_path(value, shapes)


def _random(shape: Sequence[int]) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))


def _memory_bytes() -> float:
    """Of the device that runs; infinity where nobody knows."""
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit is not None:
        return limit
    return memory_bytes() if jax.default_backend() == "cpu" else math.inf
