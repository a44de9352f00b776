"""What a bundle's programs are made from: a trained network, its batch norms folded, and images to compare on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from slimjax.deploy.bundle import LOGITS, InputEntry, Outputs, TensorEntry
from slimjax.deploy.folding import fold_batch_norm
from slimjax.deploy.subnets import Network
from slimjax.models.network import SlimmableNetwork
from slimjax.nn.tracing import variables_at

_WHITE = 255.0

Forward: TypeAlias = Callable[[Any, jax.Array], Any]
"""From parameters, nested as the model has them, and images as programs take them, to logits [batch, classes]; or, of a
detector, to arrays by name."""


@dataclass(frozen=True)
class Trained:
    """A network to export.

    Attributes:
      name: of the model.
      task: of a configuration: `classification` or `detection`.
      model: the network, all of its widths.
      variables: as it was trained.
      class_names: in the order of the logits, or by label; empty if unknown.
      input: of the programs.
      image_size: by which multiply-adds are counted, pixels, see `slimjax.tasks.task.Task`.
      figures: measured, of every width; empty if unknown.
      images: of the evaluation split, normalised, [count, height, width, 3] float32, on which programs are checked.
    """

    name: str
    task: str
    model: SlimmableNetwork
    variables: Any
    class_names: tuple[str, ...]
    input: InputEntry
    image_size: int
    figures: Mapping[float, dict[str, float]]
    images: np.ndarray


class Source:
    """A trained network as formats take it; the widths that a bundle is to have."""

    def __init__(self, trained: Trained, widths: Sequence[float]) -> None:
        """Folds the batch norms; `widths` are ascending."""
        self.trained, self.widths = trained, tuple(widths)
        self._outputs: dict[float, Outputs] = {}

    @cached_property
    def folded(self) -> Network:
        """All widths of the network over one set of kernels, see `fold_batch_norm`."""
        return fold_batch_norm(self.trained.model, self.trained.variables)

    def params(self, width: float) -> Any:
        """The folded network's parameters that a width reads: kernels of the widest, scales and biases of its own."""
        return variables_at(*self.folded, width)["params"]

    def tensors(self, width: float) -> dict[str, np.ndarray]:
        """As `params`, by names such as `stem/conv/kernel`."""
        read = flatten_dict(self.params(width), sep="/")
        return {name: np.asarray(array) for name, array in sorted(read.items())}

    def forward(self, width: float) -> Forward:
        """The folded network at a width, with what it does to images first."""
        model = self.folded.model
        return lambda params, images: put_out(model.apply({"params": params}, self.normalised(images), width=width))

    def alone(self, width: float) -> tuple[Forward, Any]:
        """A width as a network of its own, its scales in its kernels, and its parameters."""
        model, variables = fold_batch_norm(self.trained.model, self.trained.variables, width)

        def forward(params: Any, images: jax.Array) -> Any:
            return put_out(model.apply({"params": params}, self.normalised(images)))

        return forward, variables["params"]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[height, width, 3]."""
        return self.trained.input.image_shape

    @cached_property
    def images(self) -> np.ndarray:
        """To compare on, as programs take them: normalised float32 or uint8 colours."""
        trained, entry = self.trained, self.trained.input
        if entry.dtype == "float32":
            return trained.images
        colours = np.rint((trained.images * entry.stddev + entry.mean) * _WHITE)
        return np.clip(colours, 0, _WHITE).astype(np.uint8)

    def normalised(self, images: jax.Array) -> jax.Array:
        """Images as the network takes them."""
        entry = self.trained.input
        if entry.dtype == "float32":
            return images
        mean, stddev = np.asarray(entry.mean, np.float32), np.asarray(entry.stddev, np.float32)
        return (images.astype(jnp.float32) / _WHITE - mean) / stddev

    def expected(self, width: float) -> Outputs:
        """What the network as it was trained computes for the images."""
        if width not in self._outputs:
            model, images = self.trained.model, self.normalised(jnp.asarray(self.images))
            network = jax.jit(lambda variables, images: put_out(model.apply(variables, images, width=width)))
            self._outputs[width] = jax.tree.map(np.asarray, network(self.trained.variables, images))
        return self._outputs[width]

    @cached_property
    def outputs(self) -> dict[str, TensorEntry]:
        """What every program puts out for an image."""
        expected = self.expected(self.widths[0])
        named = expected if isinstance(expected, dict) else {LOGITS: expected}
        return {name: TensorEntry(array.shape[1:], array.dtype.name) for name, array in sorted(named.items())}


def put_out(computed: Any) -> Any:
    """What a network computes, as programs put it out; traced."""
    if hasattr(computed, "_asdict"):
        return {name: array for name, array in computed._asdict().items() if array is not None}
    return computed
