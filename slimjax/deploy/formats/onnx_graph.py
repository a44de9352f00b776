"""Graphs of ONNX as they are written: arrays that know the order of their axes, and nodes.

Traced images are NHWC and kernels HWIO, ONNX convolves NCHW with OIHW. Every array of a graph therefore carries the
order in which its traced axes are stored. Transposing is a matter of names then, and a node is written only where an
operator needs another order, which between convolutions is nowhere.

The operators are those of opset 18 (https://onnx.ai/onnx/operators).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

OPSET = 18

NCHW, OIHW = (0, 3, 1, 2), (3, 2, 0, 1)
"""Orders in which ONNX stores traced images, NHWC, and kernels, HWIO."""


@dataclass(frozen=True)
class Array:
    """An array of a graph.

    Attributes:
      name: in the graph.
      shape: as traced; the batch may be symbolic.
      axes: the traced axis that is stored at each place.
      value: of a constant.
    """

    name: str
    shape: tuple[Any, ...]
    axes: tuple[int, ...]
    value: np.ndarray | None = None


@dataclass(frozen=True)
class Pending:
    """What an operator will put out; it is not written before its result is read, as more may be drawn into it."""

    op: str
    inputs: tuple[Array, ...]
    shape: tuple[Any, ...]
    axes: tuple[int, ...]
    attributes: Mapping[str, Any]


Operand: TypeAlias = Array | Pending


class Initialisers:
    """Weights and constants of a file, which its graphs share."""

    def __init__(self) -> None:
        """Begins with none."""
        self.tensors: list[TensorProto] = []
        self._constants: dict[tuple[Any, ...], Array] = {}

    def weight(self, name: str, tensor: np.ndarray) -> Array:
        """Stores a tensor by a name of its own, a kernel [height, width, inputs, outputs] as convolutions take it."""
        axes = OIHW if tensor.ndim == len(OIHW) else tuple(range(tensor.ndim))
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(tensor.transpose(axes)), name))
        return Array(name, tensor.shape, axes)

    def constant(self, value: Any, dtype: Any = None) -> Array:
        """An array of these values, stored once."""
        value = np.asarray(value, dtype)
        key = (value.dtype, value.shape, value.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self.tensors.append(numpy_helper.from_array(value, name))
            self._constants[key] = Array(name, value.shape, tuple(range(value.ndim)), value)
        return self._constants[key]


class Graph:
    """Nodes that are being written."""

    def __init__(self, prefix: str, initialisers: Initialisers) -> None:
        """Begins without nodes.

        Args:
          prefix: of all names; a file's graphs have to differ in it.
          initialisers: of the file.
        """
        self.nodes: list[NodeProto] = []
        self.constant = initialisers.constant
        self._prefix = prefix

    def add(
        self, op: str, inputs: Sequence[Array], shape: Sequence[Any], axes: Sequence[int], **attributes: Any
    ) -> Array:
        """Writes a node, whose output has this traced shape, stored in this order."""
        name = f"{self._prefix}{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [array.name for array in inputs], [name], name, **attributes))
        return Array(name, tuple(shape), tuple(axes))

    def written(self, operand: Operand) -> Array:
        """An operand whose node is there to be read."""
        if isinstance(operand, Array):
            return operand
        return self.add(operand.op, operand.inputs, operand.shape, operand.axes, **operand.attributes)

    def stored_as(self, operand: Operand, axes: Sequence[int]) -> Array:
        """An operand in an order; a scalar has none."""
        array = self.written(operand)
        if not array.shape or array.axes == tuple(axes):
            return array
        return self.add("Transpose", [array], array.shape, axes, perm=[array.axes.index(axis) for axis in axes])
