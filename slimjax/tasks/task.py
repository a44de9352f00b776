"""The protocol by which the one trainer drives a task."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, Self

import jax
import numpy as np
from clu import metrics as clu_metrics
from etils import epath

from slimjax.models.network import SlimmableNetwork
from slimjax.tasks.dataset_info import DatasetInfo

Tree = Any
"""A pytree of arrays."""

Batch = Mapping[str, np.ndarray]
Figures = dict[str, float]
"""Named figures of one width, such as `top1_error`."""


class EvalMetrics(Protocol):
    """What an evaluation keeps of a batch at a width; a pytree."""

    def over_devices(self, axis_name: str) -> Self:
        """Those of the examples of all devices, on each of them; traced."""
        ...

    def merge(self, other: Self) -> Self:
        """Those of both, outside of compiled programs."""
        ...


class Task(Protocol):
    """What is trained: a model, a loss of one width, data and an evaluation.

    Attributes:
      info: of the data set.
      num_train_examples: examples of one epoch.
      num_eval_batches: of one evaluation, on every host.
      image_size: pixels of the square images that the network sees, or of a square as large as they are.
      best_figure: name of the evaluation's figure by which the best checkpoint is kept; see `larger_is_better`.
      has_running_figures: whether `figures` of a part of the batches are quick to have and mean something.
      shares_stem: whether the widths of a step may share what the first convolution makes of the images.
    """

    info: DatasetInfo
    num_train_examples: int
    num_eval_batches: int
    image_size: int
    best_figure: str
    has_running_figures: bool
    shares_stem: bool

    @property
    def model(self) -> SlimmableNetwork:
        """The slimmable network, as it trains."""
        ...

    def loss(
        self, params: Tree, batch_stats: Tree, batch: Tree, width: float
    ) -> tuple[jax.Array, tuple[Tree, clu_metrics.Collection]]:
        """The mean loss of a batch at a width, with the updated statistics and the metrics of the batch.

        It is traced, differentiated by its first argument and runs on every device by itself: `batch` is the device's
        share. Where `shares_stem`, the network has to be given its `image` as it is, since widths share what the first
        convolution makes of that. Metrics have to add up over devices and batches, as those built on
        `clu.metrics.Average` do.
        """
        ...

    def metrics_at(self, params: Tree, batch_stats: Tree, batch: Tree, width: float) -> EvalMetrics:
        """The metrics of a batch in evaluation at a width; traced. A `mask` of the batch leaves padding out."""
        ...

    def figures(self, metrics: Any, results: epath.Path | None = None) -> Figures:
        """What the merged metrics of all batches of an evaluation come to.

        Where `results` is given, and the data set has a format in which results are handed in, they are written to
        files whose names begin so.
        """
        ...

    def frozen_parameters(self) -> Tree | None:
        """Which parameters never change: a tree like `params` of booleans; None if all are trained."""
        ...

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of a training batch of so many examples, as `loss` takes it."""
        ...

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        """Endless batches of this host from a step on, the same as an uninterrupted run would have seen.

        Their images are colours, uint8, which `slimjax.tasks.colours.normalised` takes and devices normalise.
        """
        ...

    def eval_batches(self) -> Iterator[Batch]:
        """Every example of the evaluation split exactly once, over all hosts, padded and masked; images as above."""
        ...


def plain_figures(metrics: Any) -> Figures:
    """A collection of metrics as plain numbers; waits for the device."""
    return {name: float(value) for name, value in metrics.compute().items()}


def larger_is_better(figure: str) -> bool:
    """Whether a figure is an average precision, such as `box_ap50`, and no loss or error."""
    return re.search(r"_ap\d*$", figure) is not None
