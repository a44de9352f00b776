"""Runs StableHLO programs with jax."""

import threading
from collections.abc import Collection, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
from jax.extend.mlir import ir
from jax.interpreters.mlir import make_ir_context

from slimjax.allocator import compiling
from slimjax.analysis.machine import available_cores, processor_name
from slimjax.compilation import compiler_options
from slimjax.deploy.bundle import LOGITS, Manifest, Outputs, TensorEntry, read_weights, width_key
from slimjax.errors import UserError

_OPERATIONS = frozenset(
    [
        "abs",
        "add",
        "and",
        "broadcast_in_dim",
        "case",
        "clamp",
        "compare",
        "concatenate",
        "constant",
        "convert",
        "convolution",
        "divide",
        "dot_general",
        "dynamic_broadcast_in_dim",
        "dynamic_conv",
        "dynamic_iota",
        "dynamic_pad",
        "dynamic_reshape",
        "dynamic_slice",
        "exponential",
        "get_dimension_size",
        "iota",
        "maximum",
        "minimum",
        "multiply",
        "negate",
        "not",
        "or",
        "pad",
        "real_dynamic_slice",
        "reduce",
        "reduce_window",
        "remainder",
        "reshape",
        "return",
        "rsqrt",
        "select",
        "sign",
        "slice",
        "sqrt",
        "subtract",
        "transpose",
    ]
)
"""StableHLO's operations that a program may have. None repeats, waits, or reaches out of the program, and classifiers
need no others."""

_OF_DETECTORS = frozenset(
    [
        "composite",
        "dynamic_gather",
        "dynamic_update_slice",
        "floor",
        "gather",
        "log",
        "reverse",
        "scatter",
        "sort",
        "while",
    ]
)
"""What detectors take besides: RoIAlign, suppression, the best of many. A loop may go on for ever: whoever runs a
detector from elsewhere has to trust its maker, or to watch the process."""

_COMPOSITES = ("chlo.top_k",)
"""What may be named as a whole; what it consists of is in the program too, and checked."""

_STRUCTURE = ("builtin.module", "func.func", "func.call", "func.return")

_CUSTOM_CALLS = ("shape_assertion",)
"""By which jax.export compares a symbolic batch with that of the call; it is gone before anything runs."""


def load(bundle: Path, manifest: Manifest, program: str, threads: int | None) -> "StableHloPrograms":
    """See `slimjax.deploy.backends`."""
    if threads is not None:
        raise UserError(
            f"threads={threads} cannot be set for jax, which takes all cores that the process may use; start Python "
            f"with taskset on as many, or take another backend"
        )
    by_width = {entry.width: manifest.programs[program][width_key(entry.width)] for entry in manifest.widths}
    return StableHloPrograms(
        {width: (bundle / entry.file).read_bytes() for width, entry in by_width.items()},
        read_weights(bundle, manifest),
        {width: entry.tensors for width, entry in by_width.items()},
        manifest.input.image_shape,
        manifest.input.dtype,
        manifest.outputs,
    )


class StableHloPrograms:
    """Programs of several widths over one copy of the weights on a device; threads may share it."""

    def __init__(
        self,
        programs: Mapping[float, bytes],
        tensors: Mapping[str, np.ndarray],
        arguments: Mapping[float, Sequence[str]],
        image_shape: Sequence[int],
        dtype: Any,
        outputs: Mapping[str, TensorEntry],
    ) -> None:
        """Reads the programs and puts the weights on JAX's default device; nothing is compiled yet.

        Args:
          programs: serialised, by width.
          tensors: the weights by name.
          arguments: names of the tensors that a width's program takes, in its order.
          image_shape: [height, width, 3].
          dtype: of the images.
          outputs: of an image, by name.

        Raises:
          UserError: if a program cannot be read, has operations that no network needs, or takes other arguments or
            another platform than this one.
        """
        self._image_shape, self._dtype, self._outputs = tuple(image_shape), np.dtype(dtype), dict(outputs)
        is_classifier = set(outputs) == {LOGITS}
        allowed = _OPERATIONS if is_classifier else _OPERATIONS | _OF_DETECTORS
        self._exported = {width: _deserialised(width, data) for width, data in programs.items()}
        for width, exported in self._exported.items():
            _check_operations(width, exported, allowed)
            shapes = [(tensors[name].shape, tensors[name].dtype) for name in arguments[width]]
            self._check_arguments(width, exported, shapes)
        on_device = {name: jax.device_put(tensor) for name, tensor in tensors.items()}
        self._weights = {width: tuple(on_device[name] for name in names) for width, names in arguments.items()}
        self._compiled: dict[tuple[float, int], jax.stages.Compiled] = {}
        self._lock = threading.Lock()

    def __call__(self, width: float, images: np.ndarray) -> Outputs:
        """See `slimjax.deploy.backends.Programs`; compiles where a batch of such a size comes first."""
        compiled = self._compiled.get((width, len(images))) or self._compile(width, len(images))
        try:
            outputs = compiled(self._weights[width], images)
            if isinstance(outputs, dict):
                return {name: np.array(array) for name, array in outputs.items()}
            return np.array(outputs)
        except jax.errors.JaxRuntimeError as error:
            raise UserError(
                f"the program of width {width:g} failed on {len(images)} images ({_told(error)}); give fewer at a time"
            ) from None

    def warm_up(self, width: float, batch_size: int) -> None:
        """Compiles what a batch of this size takes at a width, and runs it once."""
        self(width, np.zeros((batch_size, *self._image_shape), self._dtype))

    def device(self) -> str:
        """What it runs on, as measurements are filed."""
        (device,) = next(iter(self._weights.values()))[0].devices()
        # Every CPU calls itself by the same name.
        kind = f"{processor_name()} x{available_cores()}" if device.platform == "cpu" else device.device_kind
        return f"{device.platform}:{kind}"

    def _compile(self, width: float, batch_size: int) -> jax.stages.Compiled:
        with self._lock:
            if (width, batch_size) not in self._compiled:
                # What jax.export hands back is compiled anew in every call, unless it is under a jit.
                function = jax.jit(self._exported[width].call, compiler_options=compiler_options(jax.default_backend()))
                images = jax.ShapeDtypeStruct((batch_size, *self._image_shape), self._dtype)
                try:
                    with compiling():
                        self._compiled[width, batch_size] = function.lower(self._weights[width], images).compile()
                # Whatever JAX and XLA raise about a program from elsewhere.
                except Exception as error:
                    raise UserError(f"the program of width {width:g} is damaged ({_told(error)})") from None
            return self._compiled[width, batch_size]

    def _check_arguments(self, width: float, exported: jax.export.Exported, tensors: Sequence[tuple[Any, Any]]) -> None:
        """UserError unless a program takes the weights and any number of images, here, and puts out their logits."""
        name = f"the program of width {width:g}"
        if not tensors:
            raise UserError(f"{name} takes no weights; its manifest lists none")
        structure: Any = jax.tree.structure(((tuple(range(len(tensors))), 0), {}))
        if exported.in_tree != structure or [(aval.shape, aval.dtype) for aval in exported.in_avals[:-1]] != tensors:
            raise UserError(f"{name} takes other arguments than the manifest says")
        images = exported.in_avals[-1]
        batch, *image_shape = images.shape
        if isinstance(batch, int) or tuple(image_shape) != self._image_shape or images.dtype != self._dtype:
            raise UserError(f"{name} takes other images than the manifest says")
        # Leaves of a dictionary come by name.
        wanted = [((batch, *entry.shape), np.dtype(entry.dtype)) for _, entry in sorted(self._outputs.items())]
        named: Any = jax.tree.structure(dict.fromkeys(self._outputs, 0) if len(wanted) > 1 else 0)
        if exported.out_tree != named or [(aval.shape, aval.dtype) for aval in exported.out_avals] != wanted:
            listed = ", ".join(f"{name_} {list(entry.shape)}" for name_, entry in sorted(self._outputs.items()))
            raise UserError(f"{name} puts out something else than {listed} an image")
        platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
        if platform not in exported.platforms:
            raise UserError(f"{name} is for {', '.join(exported.platforms)}, not for {platform}")


def _deserialised(width: float, data: bytes) -> jax.export.Exported:
    try:
        return jax.export.deserialize(bytearray(data))
    # Whatever the parsers of a file from elsewhere raise.
    except Exception as error:
        raise UserError(
            f"the program of width {width:g} cannot be read ({_told(error)}); it may need a newer jax"
        ) from None


def _check_operations(width: float, exported: jax.export.Exported, allowed: Collection[str]) -> None:
    """UserError if a program has operations or calls that no network needs: XLA compiles and runs all that it is given.

    MLIR's reader itself can crash or hang on bytes that were altered on purpose, before anything here is known of them.
    """
    name = f"the program of width {width:g}"
    calls: dict[str, set[str]] = {}
    functions: list[str] = []
    faults: list[str] = []

    def check(operation: ir.Operation) -> ir.WalkResult:
        if fault := _fault(operation, allowed):
            faults.append(fault)
        if operation.name == "func.func":
            functions.append(ir.StringAttr(operation.attributes["sym_name"]).value)
        if operation.name == "func.call":
            calls.setdefault(functions[-1], set()).add(ir.FlatSymbolRefAttr(operation.attributes["callee"]).value)
        return ir.WalkResult.ADVANCE

    try:
        with make_ir_context():
            exported.mlir_module(serialized=False).operation.walk(check, ir.WalkOrder.PRE_ORDER)
    except Exception as error:
        raise UserError(f"{name} is damaged ({_told(error)})") from None
    if faults:
        raise UserError(f"{name} {faults[0]}; it is not a network's")
    try:
        TopologicalSorter(calls).prepare()
    except CycleError:
        raise UserError(f"{name} has functions that call themselves; it is not a network's") from None


def _fault(operation: ir.Operation, allowed: Collection[str]) -> str | None:
    """What is wrong with an operation of a program that is to be a network's; None if nothing is."""
    dialect, _, short = operation.name.partition(".")
    if operation.name == "stablehlo.custom_call":
        target = ir.StringAttr(operation.attributes["call_target_name"]).value
        return None if target in _CUSTOM_CALLS else f"calls {target[:40]!r} outside of itself"
    if operation.name == "stablehlo.composite" and short in allowed:
        composite = ir.StringAttr(operation.attributes["name"]).value
        return None if composite in _COMPOSITES else f"has the operation {composite[:40]!r}"
    if operation.name in _STRUCTURE or (dialect == "stablehlo" and short in allowed):
        return None
    return f"has the operation {operation.name[:40]!r}"


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
