"""Which entries of a PyTorch checkpoint make up each variable of a network, and how they are turned, both ways."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from flax.traverse_util import flatten_dict

from slimjax.interop.layouts import Layer, Layout, layers_by_block
from slimjax.interop.state_dicts import StateDict
from slimjax.models.network import CLASSIFIER, SlimmableNetwork
from slimjax.nn.tracing import abstract_variables

Kind = Literal["convolution", "dense", "vector"]

NORM_ENTRIES = {
    "params": {"scale": "weight", "bias": "bias"},
    # PyTorch's running variance is unbiased and is taken as it stands: it is what the network was evaluated with.
    # Written, it stays as it stands, too.
    "batch_stats": {"mean": "running_mean", "var": "running_var"},
}
"""PyTorch's names of a batch norm's variables, in its order."""

COUNTER = "num_batches_tracked"
"""A batch norm's entry that some versions of PyTorch write and that means nothing here."""

AXES: dict[Kind, tuple[int, ...]] = {"convolution": (2, 3, 1, 0), "dense": (1, 0), "vector": (0,)}
"""Where each of Flax's axes is among PyTorch's, when it is read."""


@dataclass(frozen=True)
class Assignment:
    """One variable of a network and where its values are.

    Attributes:
      path: its keys in the tree of variables.
      shape: of the variable.
      entries: names in the checkpoint, one for each group of outputs; their outputs follow one another.
      kind: how axes are ordered.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    entries: tuple[str, ...]
    kind: Kind

    @property
    def entry_shape(self) -> tuple[int, ...]:
        """The shape of each entry in PyTorch's order of axes."""
        *others, outputs = self.shape
        share = outputs // len(self.entries)
        if self.kind == "convolution":
            height, width, inputs = others
            return share, inputs, height, width
        return share, *others

    def convert(self, state: StateDict) -> np.ndarray:
        """The variable, float32 in Flax's order of axes: convolutions [height, width, in, out], dense [in, out]."""
        turned = [np.asarray(state[entry], np.float32).transpose(AXES[self.kind]) for entry in self.entries]
        return np.ascontiguousarray(np.concatenate(turned, axis=-1), np.float32)

    def split(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """The entries of a variable, float32 in PyTorch's order of axes: what `convert` makes that variable of."""
        shares = np.split(np.asarray(array, np.float32), len(self.entries), axis=-1)
        inverse = np.argsort(AXES[self.kind])
        turned = [np.ascontiguousarray(share.transpose(inverse)) for share in shares]
        return dict(zip(self.entries, turned, strict=True))


@dataclass(frozen=True)
class Norm:
    """A batch norm of the network and the modules of a checkpoint that hold it.

    Attributes:
      layer: path of the layer that it follows.
      modules: names in the checkpoint, one for each group of outputs.
      private: whether the network has one for each width here.
    """

    layer: str
    modules: tuple[str, ...]
    private: bool


def assignments_of(model: SlimmableNetwork, layout: Layout) -> list[Assignment]:
    """Where a checkpoint of a layout has every variable of a network, in the order in which PyTorch has them.

    Raises:
      RuntimeError: if the layout's table leaves a variable out, which is a mistake in the table.
    """
    variables = abstract_variables(model)
    shapes = {path: leaf.shape for path, leaf in flatten_dict(variables).items()}
    assignments: list[Assignment] = []
    for layer in layout.layers(layers_by_block(variables["params"])):
        assignments += _kernel(layer, shapes)
        assignments += _norm(layer, layout, shapes)
    assignments += _classifier(layout, shapes)
    if left_out := shapes.keys() - {assignment.path for assignment in assignments}:
        raise RuntimeError(f"the layout of {type(model).__name__} leaves out {sorted(left_out)}")
    return assignments


def norms_of(model: SlimmableNetwork, layout: Layout) -> list[Norm]:
    """The batch norms of a network, in its order."""
    params = abstract_variables(model)["params"]
    flat = flatten_dict(params, sep="/")
    return [
        Norm(layer.path, layer.norms, private=f"{layer.path}/bn/switch_0/scale" in flat)
        for layer in layout.layers(layers_by_block(params))
    ]


def module_of(norm: str, key: str, layout: Layout) -> str:
    """The module that holds what the network keeps under a batch norm's key, `shared` or `switch_K`."""
    private = layout.slimmable and key != "shared"
    return f"{norm}.bn.{key.removeprefix('switch_')}" if private else norm


def _classifier(layout: Layout, shapes: Mapping[tuple[str, ...], Any]) -> Iterator[Assignment]:
    kernel, bias = ("params", CLASSIFIER, "kernel"), ("params", CLASSIFIER, "bias")
    yield Assignment(kernel, shapes[kernel], (f"{layout.classifier}.weight",), "dense")
    yield Assignment(bias, shapes[bias], (f"{layout.classifier}.bias",), "vector")


def _kernel(layer: Layer, shapes: Mapping[tuple[str, ...], Any]) -> Iterator[Assignment]:
    path = ("params", *layer.path.split("/"), "conv", "kernel")
    yield Assignment(path, shapes[path], tuple(f"{module}.weight" for module in layer.kernels), "convolution")


def _norm(layer: Layer, layout: Layout, shapes: Mapping[tuple[str, ...], Any]) -> Iterator[Assignment]:
    where = (*layer.path.split("/"), "bn")
    keys = {path[-2] for path in shapes if path[1:-2] == where}
    # By length first: switch_10 comes after switch_2.
    for key in sorted(keys, key=lambda key: (len(key), key)):
        modules = [module_of(norm, key, layout) for norm in layer.norms]
        for collection, names in NORM_ENTRIES.items():
            for name, entry in names.items():
                if (path := (collection, *where, key, name)) in shapes:
                    yield Assignment(path, shapes[path], tuple(f"{module}.{entry}" for module in modules), "vector")


def counters_of(assignments: Iterable[Assignment]) -> list[str]:
    """The names of the counters of all batch norms that keep statistics."""
    statistic = f".{NORM_ENTRIES['batch_stats']['var']}"
    entries = (entry for assignment in assignments for entry in assignment.entries)
    return [f"{entry.removesuffix(statistic)}.{COUNTER}" for entry in entries if entry.endswith(statistic)]
