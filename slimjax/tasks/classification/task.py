"""Image classification as a task of the one trainer."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from slimjax.errors import UserError
from slimjax.models import SlimmableNetwork, create_model
from slimjax.tasks.classification import data
from slimjax.tasks.classification.metrics import ClassificationMetrics, classification_metrics, cross_entropy
from slimjax.tasks.dataset_info import DatasetInfo
from slimjax.tasks.dtypes import compute_dtype
from slimjax.tasks.task import Batch, Figures, Tree, plain_figures


class ClassificationTask:
    """A slimmable network, a data set and cross-entropy; see slimjax.tasks.task.Task."""

    best_figure = "top1_error"
    has_running_figures = True
    shares_stem = True

    def __init__(self, config: ConfigDict, model: SlimmableNetwork, info: DatasetInfo) -> None:
        """Puts together what `create_task` has built.

        Args:
          config: a whole configuration, see configs/default.py.
          model: the network, with one output for each class.
          info: of the data set.
        """
        self._config = config
        self.model = model
        self.info = info
        self.num_train_examples = info.num_train_examples
        self.num_eval_batches = math.ceil(info.num_eval_examples / config.batch_size)
        self.image_size: int = config.dataset.image_size

    def loss(
        self, params: Tree, batch_stats: Tree, batch: Tree, width: float
    ) -> tuple[jax.Array, tuple[Tree, ClassificationMetrics]]:
        """See Task."""
        variables = {"params": params, "batch_stats": batch_stats}
        logits: Any
        logits, updated = self.model.apply(variables, batch["image"], width=width, train=True, mutable=["batch_stats"])
        losses = cross_entropy(logits, batch["label"], self._config.label_smoothing)
        metrics = classification_metrics(logits, batch["label"], losses)
        return jnp.mean(losses), (updated["batch_stats"], metrics)

    def metrics_at(self, params: Tree, batch_stats: Tree, batch: Tree, width: float) -> ClassificationMetrics:
        """See Task; the loss is the plain cross-entropy, without smoothing."""
        logits: Any = self.model.apply({"params": params, "batch_stats": batch_stats}, batch["image"], width=width)
        losses = cross_entropy(logits, batch["label"])
        return classification_metrics(logits, batch["label"], losses, batch["mask"])

    def figures(self, metrics: ClassificationMetrics, results: epath.Path | None = None) -> Figures:
        """See Task; without the top-5 error where no more than five classes make every answer one of the first five."""
        figures = plain_figures(metrics)
        if self.info.num_classes <= 5:
            del figures["top5_error"]
        return figures

    def frozen_parameters(self) -> None:
        """See Task: all of them are trained."""

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """See Task."""
        size = self.image_size
        return {
            "image": jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.float32),
            "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        }

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        """See Task."""
        return data.train_batches(
            self._config.dataset,
            batch_size=self._config.batch_size,
            seed=self._config.seed,
            start_step=start_step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            devices_per_process=jax.local_device_count(),
        )

    def eval_batches(self) -> Iterator[Batch]:
        """See Task."""
        return data.eval_batches(
            self._config.dataset,
            batch_size=self._config.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )


def create_network(config: ConfigDict, num_classes: int, platform: str, **options: Any) -> SlimmableNetwork:
    """Builds the network of a configuration.

    Args:
      config: a whole configuration, see configs/default.py.
      num_classes: outputs of the classifier.
      platform: of the devices that compute: cpu, gpu or tpu.
      **options: further attributes of the network, which no configuration has.

    Raises:
      UserError: if something in `config.model` or `config.dtype` is unknown or out of range.
    """
    given = {key: value for key, value in config.model.items() if value is not None}
    return create_model(**given, num_classes=num_classes, dtype=compute_dtype(config.dtype, platform), **options)


def create_task(
    config: ConfigDict,
    platform: str,
    batch_norm_axis: str | None = None,
    batch_norm_groups: tuple[tuple[int, ...], ...] | None = None,
    info: DatasetInfo | None = None,
) -> ClassificationTask:
    """Resolves the data set and builds the network for its classes.

    Args:
      config: a whole configuration, see configs/default.py.
      platform: of the devices that compute: cpu, gpu or tpu.
      batch_norm_axis: mapped device axis over which training statistics are averaged; None keeps them apart.
      batch_norm_groups: groups of devices along that axis.
      info: of the data set; None opens it.

    Raises:
      UserError: if something in the configuration is unknown, or the data set is not at hand.
    """
    if not 0.0 <= config.label_smoothing < 1.0:
        raise UserError(f"label_smoothing={config.label_smoothing} has to be at least 0 and below 1")
    options = {"batch_norm_axis": batch_norm_axis, "batch_norm_groups": batch_norm_groups}
    # Once without the data set's classes: a mistake in the model shows before any data set is prepared.
    create_network(config, 1, platform, **options)
    info = info or data.load_info(config.dataset)
    return ClassificationTask(config, create_network(config, info.num_classes, platform, **options), info)
