"""Traced JAX functions as nodes of ONNX graphs: what networks compute at inference, nothing else.

What follows an operator may be drawn into it: a factor of each channel goes into a convolution's kernel, an addend
becomes its bias, and a bounded ReLU one Clip. So runtimes see convolutions as they like them, and multiply kernels
once, when they load the file.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from jax.extend.core import ClosedJaxpr, Literal
from onnx import helper

from slimjax.deploy.formats.onnx_graph import NCHW, Array, Graph, Operand, Pending
from slimjax.errors import UserError


def translate(graph: Graph, traced: ClosedJaxpr, arguments: Sequence[Operand]) -> list[Operand]:
    """Writes what a function computes to a graph.

    Args:
      graph: to which nodes are added.
      traced: the function, by jax.make_jaxpr.
      arguments: of the function.

    Returns:
      Its results.

    Raises:
      UserError: if it computes something that has no translation here.
    """
    jaxpr = traced.jaxpr
    constants = [graph.constant(np.asarray(value)) for value in traced.consts]
    values: dict[Any, Operand] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))

    def operand(atom: Any) -> Operand:
        return graph.constant(atom.val, np.asarray(atom.val).dtype) if isinstance(atom, Literal) else values[atom]

    read = [atom for equation in jaxpr.eqns for atom in equation.invars] + list(jaxpr.outvars)
    reads = Counter(atom for atom in read if not isinstance(atom, Literal))
    for equation in jaxpr.eqns:
        results = _results(graph, equation, [operand(atom) for atom in equation.invars])
        for variable, result in zip(equation.outvars, results, strict=True):
            # What is read twice is not to be computed twice.
            values[variable] = result if reads[variable] == 1 else graph.written(result)
    return [operand(atom) for atom in jaxpr.outvars]


def _results(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Sequence[Operand]:
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
        return translate(graph, params[_CALLS[name]], operands)
    if name == "cond" and None in (params.get("branches_platforms") or ()):
        # By `lax.platform_dependent`: its default is the operator itself, which runtimes know best how to compute.
        return translate(graph, params["branches"][params["branches_platforms"].index(None)], operands[1:])
    if name not in _TRANSLATIONS:
        raise _refused(name, "has no translation")
    return [_TRANSLATIONS[name](Operation(graph, operands, params, equation.outvars[0].aval.shape))]


def _refused(name: str, why: str) -> UserError:
    place = f"{__name__.replace('.', '/')}.py"
    return UserError(f"the network's operation {name} {why} to ONNX; export other formats, or add it to {place}")


@dataclass(frozen=True)
class Operation:
    """One operation of a trace.

    Attributes:
      graph: to which it is written.
      operands: of it.
      params: of its primitive.
      shape: traced, of its result.
    """

    graph: Graph
    operands: Sequence[Operand]
    params: Mapping[str, Any]
    shape: tuple[Any, ...]


Translation: TypeAlias = Callable[[Operation], Operand]


def _elementwise(op: str) -> Translation:
    def translation(operation: Operation) -> Operand:
        graph, operands, shape = operation.graph, operation.operands, operation.shape
        axes = next((operand for operand in operands if operand.shape == shape), operands[0]).axes
        return graph.add(op, [graph.stored_as(operand, axes) for operand in operands], shape, axes)

    return translation


def _convolution(operation: Operation) -> Operand:
    params, layout = operation.params, operation.params["dimension_numbers"]
    if params["batch_group_count"] != 1 or set(params["lhs_dilation"]) != {1}:
        raise _refused("conv_general_dilated", "with groups of images or a dilated input has no translation")
    pairs = zip(operation.operands, layout[:2], strict=True)
    images, kernel = (operation.graph.stored_as(operand, axes) for operand, axes in pairs)
    attributes = {
        "kernel_shape": [kernel.shape[axis] for axis in layout.rhs_spec[2:]],
        "strides": params["window_strides"],
        "pads": _pads(params["padding"]),
        "dilations": params["rhs_dilation"],
        "group": params["feature_group_count"],
    }
    return Pending("Conv", (images, kernel), operation.shape, layout.out_spec, attributes)


def _pads(padding: Sequence[tuple[int, int]]) -> list[int]:
    """As ONNX has them: before each of the axes, then after each."""
    return [before for before, _ in padding] + [after for _, after in padding]


def _matrix_product(operation: Operation) -> Operand:
    if operation.params["dimension_numbers"] != (((1,), (0,)), ((), ())):
        raise _refused("dot_general", "other than of two matrices has no translation")
    matrices = tuple(operation.graph.stored_as(operand, (0, 1)) for operand in operation.operands)
    return Pending("Gemm", matrices, operation.shape, (0, 1), {})


def _vector_of_channels(operand: Operand, product: Operand) -> Array | None:
    """The vector that an operand spreads over the channels of another, if that is what it does."""
    if not isinstance(operand, Pending) or operand.op != "Reshape":
        return None
    vector, features = operand.inputs[0], product.shape[-1]
    return vector if vector.shape == (features,) and operand.shape[-1] == features else None


def _product(operation: Operation) -> Operand:
    graph, (first, second) = operation.graph, operation.operands
    scale = _vector_of_channels(second, first)
    if scale is None or not isinstance(first, Pending) or first.op != "Conv" or len(first.inputs) > 2:
        return _elementwise("Mul")(operation)
    images, kernel = first.inputs
    by_output = graph.add("Reshape", [scale, graph.constant([-1, 1, 1, 1], np.int64)], kernel.shape, kernel.axes)
    return replace(first, inputs=(images, graph.add("Mul", [kernel, by_output], kernel.shape, kernel.axes)))


def _sum(operation: Operation) -> Operand:
    first, second = operation.operands
    bias = _vector_of_channels(second, first)
    if bias is None or not isinstance(first, Pending) or first.op not in ("Conv", "Gemm") or len(first.inputs) > 2:
        return _elementwise("Add")(operation)
    return replace(first, inputs=(*first.inputs, bias))


def _maximum(operation: Operation) -> Operand:
    x, bound = operation.operands
    if _scalar(bound) != 0:
        return _elementwise("Max")(operation)
    x = operation.graph.written(x)
    return Pending("Relu", (x,), operation.shape, x.axes, {})


def _minimum(operation: Operation) -> Operand:
    x, bound = operation.operands
    if _scalar(bound) is None or not isinstance(x, Pending) or x.op != "Relu":
        return _elementwise("Min")(operation)
    bounds = [operation.graph.constant(value, np.float32) for value in (0, _scalar(bound))]
    return operation.graph.add("Clip", [*x.inputs, *bounds], operation.shape, x.axes)


def _scalar(operand: Operand) -> float | None:
    """The value of a constant that is one number."""
    return (
        float(operand.value) if isinstance(operand, Array) and operand.value is not None and not operand.shape else None
    )


def _as_sum(graph: Graph, mean: Array, count: int) -> Operand:
    """A sum as ONNX has it, a mean and how many it is of; dividing by that leaves the mean, see `_quotient`."""
    return Pending("Mul", (mean, graph.constant(count, np.float32)), mean.shape, mean.axes, {})


def _quotient(operation: Operation) -> Operand:
    total, count = operation.operands
    # There is one array of each constant.
    if isinstance(total, Pending) and total.op == "Mul" and total.inputs[1] is count:
        return total.inputs[0]
    return _elementwise("Div")(operation)


def _reduce_sum(operation: Operation) -> Operand:
    graph, summed = operation.graph, operation.params["axes"]
    x = graph.written(operation.operands[0])
    places = graph.constant(sorted(x.axes.index(axis) for axis in summed), np.int64)
    kept = [axis for axis in range(len(x.shape)) if axis not in summed]
    axes = [kept.index(axis) for axis in x.axes if axis in kept]
    mean = graph.add("ReduceMean", [x, places], operation.shape, axes, keepdims=0)
    return _as_sum(graph, mean, math.prod(x.shape[axis] for axis in summed))


def _pool(operation: Operation, op: str, **more: Any) -> Array:
    params, pixels = operation.params, slice(1, 3)
    window, strides, padding = (params[key] for key in ("window_dimensions", "window_strides", "padding"))
    others = {(window[axis], strides[axis], *padding[axis]) for axis in (0, -1)}
    dilations = {*params["base_dilation"], *params["window_dilation"]}
    if len(window) != len(NCHW) or others != {(1, 1, 0, 0)} or dilations != {1}:
        raise _refused("reduce_window", "other than over pixels of images, undilated, has no translation")
    images = operation.graph.stored_as(operation.operands[0], NCHW)
    attributes = {"kernel_shape": window[pixels], "strides": strides[pixels], "pads": _pads(padding[pixels])}
    return operation.graph.add(op, [images], operation.shape, NCHW, **attributes, **more)


def _max_pool(operation: Operation) -> Operand:
    return _pool(operation, "MaxPool")


def _sum_pool(operation: Operation) -> Operand:
    mean = _pool(operation, "AveragePool", count_include_pad=1)
    return _as_sum(operation.graph, mean, math.prod(operation.params["window_dimensions"]))


def _pad(operation: Operation) -> Operand:
    graph, padding = operation.graph, operation.params["padding_config"]
    x, value = (graph.written(operand) for operand in operation.operands)
    if any(between or min(before, after) < 0 for before, after, between in padding):
        raise _refused("pad", "between elements, or that crops, has no translation")
    pads = graph.constant(_pads([padding[axis][:2] for axis in x.axes]), np.int64)
    return graph.add("Pad", [x, pads, value], operation.shape, x.axes)


def _slice(operation: Operation) -> Operand:
    graph, params = operation.graph, operation.params
    x = graph.written(operation.operands[0])
    steps = params["strides"] or (1,) * len(x.shape)
    bounds = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    cuts = [
        (start, end, x.axes.index(axis), step)
        for axis, (start, end, step) in enumerate(bounds)
        if (start, end, step) != (0, x.shape[axis], 1)
    ]
    if not cuts:
        return x
    inputs = [graph.constant(of_all_cuts, np.int64) for of_all_cuts in zip(*cuts, strict=True)]
    return graph.add("Slice", [x, *inputs], operation.shape, x.axes)


def _transpose(operation: Operation) -> Operand:
    x, permutation = operation.graph.written(operation.operands[0]), operation.params["permutation"]
    return Array(x.name, operation.shape, tuple(permutation.index(axis) for axis in x.axes))


def _reshape(operation: Operation) -> Operand:
    """Splits and merges axes where they are stored; those that are merged are brought together first."""
    graph, shape = operation.graph, operation.shape
    x = graph.written(operation.operands[0])
    runs = _runs(x.shape, shape)
    runs.sort(key=lambda run: x.axes.index(run[0][0]) if run[0] else len(x.axes))
    x = graph.stored_as(x, [axis for old, _ in runs for axis in old])
    axes = [axis for _, new in runs for axis in new]
    # -1 is what is left: the batch, whose size is a symbol.
    sizes = [shape[axis] if isinstance(shape[axis], int) else -1 for axis in axes]
    return graph.add("Reshape", [x, graph.constant(sizes, np.int64)], shape, axes)


def _runs(old: Sequence[Any], new: Sequence[Any]) -> list[tuple[range, range]]:
    """The shortest runs of axes of an old shape, with those of the new that hold the same elements."""
    runs, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        first, second = i, j
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while (have := math.prod(old[first:i])) != (want := math.prod(new[second:j])):
            if not (isinstance(have, int) and isinstance(want, int)):
                raise _refused("reshape", "of the batch has no translation")
            if j == len(new) or (have < want and i < len(old)):
                i += 1
            else:
                j += 1
        runs.append((range(first, i), range(second, j)))
    return runs


def _broadcast(operation: Operation) -> Operand:
    """Adds axes of one element, over which ONNX's operators broadcast by themselves."""
    graph, shape = operation.graph, operation.shape
    x = graph.written(operation.operands[0])
    kept = dict(zip(operation.params["broadcast_dimensions"], x.shape, strict=True))
    if any(size != kept.get(axis, 1) for axis, size in enumerate(shape)):
        raise _refused("broadcast_in_dim", f"from {x.shape} to {shape} has no translation")
    if len(x.shape) > 1:
        return _reshape(operation)
    return Pending("Reshape", (x, graph.constant(shape, np.int64)), shape, tuple(range(len(shape))), {})


def _concatenate(operation: Operation) -> Operand:
    graph, axes = operation.graph, operation.operands[0].axes
    inputs = [graph.stored_as(operand, axes) for operand in operation.operands]
    return graph.add("Concat", inputs, operation.shape, axes, axis=axes.index(operation.params["dimension"]))


def _convert(operation: Operation) -> Operand:
    x = operation.graph.written(operation.operands[0])
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(operation.params["new_dtype"]))
    return operation.graph.add("Cast", [x], operation.shape, x.axes, to=dtype)


_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}
"""Primitives that call a traced function, with the parameter that holds it."""

_TRANSLATIONS: dict[str, Translation] = {
    "add": _sum,
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": _convert,
    "div": _quotient,
    "dot_general": _matrix_product,
    "max": _maximum,
    "min": _minimum,
    "mul": _product,
    "pad": _pad,
    # Only `cond` reads it, whose branch is chosen by `_results`.
    "platform_index": lambda operation: operation.graph.constant(0),
    "reduce_sum": _reduce_sum,
    "reduce_window_max": _max_pool,
    "reduce_window_sum": _sum_pool,
    "reshape": _reshape,
    "slice": _slice,
    "squeeze": _reshape,
    "sub": _elementwise("Sub"),
    "transpose": _transpose,
}
