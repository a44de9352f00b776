"""Detection as a task of the one trainer."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from clu import metrics as clu_metrics
from etils import epath
from ml_collections import ConfigDict

from slimjax.models.network import BACKBONE
from slimjax.nn.tracing import parameter_roles
from slimjax.tasks.dataset_info import DatasetInfo
from slimjax.tasks.detection.data.examples import ExampleSettings
from slimjax.tasks.detection.detector import Detector
from slimjax.tasks.detection.matching import Objects
from slimjax.tasks.detection.metrics import Found, loss_metrics
from slimjax.tasks.detection.network import create_network
from slimjax.tasks.task import Batch, Figures, Tree

# What reads data sets imports TensorFlow, which takes seconds.
if TYPE_CHECKING:
    from slimjax.tasks.detection.data.opening import DetectionData


class DetectionTask:
    """A slimmable detector and a data set in COCO's format; see slimjax.tasks.task.Task.

    Each width's sampling has random numbers of its own, which follow from the step and the place in the batch.
    """

    best_figure = "box_ap"
    # COCO's tools take minutes over a large split, and are not for a part of one.
    has_running_figures = False
    # The stem is frozen as a rule, and then there is no gradient of it to be shared.
    shares_stem = False

    def __init__(
        self, config: ConfigDict, model: Detector, info: DatasetInfo, data: "DetectionData | None" = None
    ) -> None:
        """Puts together what `create_task` has built.

        Args:
          config: a whole configuration, see configs/default.py.
          model: the detector, with one class for each category.
          info: of the data set.
          data: what reads it; None for a task that is only planned.
        """
        self._config, self.model, self.info, self._data = config, model, info, data
        self._examples = example_settings(config)
        self.num_train_examples = info.num_train_examples
        self.num_eval_batches = data.num_eval_batches if data else math.ceil(info.num_eval_examples / config.batch_size)
        self.image_size = self._examples.square_side

    @property
    def data(self) -> "DetectionData":
        """What reads the data set."""
        assert self._data is not None, "only planned"
        return self._data

    def loss(
        self, params: Tree, batch_stats: Tree, batch: Tree, width: float
    ) -> tuple[jax.Array, tuple[Tree, clu_metrics.Collection]]:
        """See Task: the sum of the parts' losses."""
        keys = sampling_keys(batch["seed"], self.model.switch_of(width))
        variables = {"params": params, "batch_stats": batch_stats}
        losses: Any
        losses, updated = self.model.apply(
            variables,
            batch["image"],
            _objects_of(batch),
            batch["size"],
            keys,
            width,
            method="losses",
            mutable=["batch_stats"],
        )
        total = sum(losses.values())
        metrics = loss_metrics(tuple(losses)).single_from_model_output(loss=total, **losses)
        return jnp.mean(total), (updated["batch_stats"], metrics)

    def metrics_at(self, params: Tree, batch_stats: Tree, batch: Tree, width: float) -> Found:
        """See Task."""
        variables = {"params": params, "batch_stats": batch_stats}
        found: Any = self.model.apply(variables, batch["image"], width, sizes=batch["size"])
        return Found.of(found, batch)

    def figures(self, metrics: Found, results: epath.Path | None = None) -> Figures:
        """See Task: average precisions in percent, and results, as COCO computes and takes them."""
        return self.data.figures(metrics.on_host().batches, results)

    def frozen_parameters(self) -> Tree:
        """See Task: the backbone's batch norms, its stem and its first stages."""
        settings = self.model.settings
        blocks = sum(stage.repeats for stage in self.model.stages[: settings.frozen_stages])
        still = {"stem"} if blocks else set()
        still |= {f"block_{number}" for number in range(1, blocks + 1)}
        roles = parameter_roles(self.model)

        def is_frozen(path: Any, role: str) -> bool:
            keys = [key.key for key in path]
            is_norm = settings.frozen_batch_norm and role in ("scale", "bias")
            return keys[0] == BACKBONE and (keys[1] in still or is_norm)

        return jax.tree.map_with_path(is_frozen, roles)

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """See Task; of wide images."""
        section, settings = self._config.detection, self._examples
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            "image": ((*settings.padded_size(wide=True), 3), jnp.float32),
            "size": ((2,), jnp.float32),
            "boxes": ((section.most_objects, 4), jnp.float32),
            "labels": ((section.most_objects,), jnp.int32),
            "there": ((section.most_objects,), bool),
            "crowds": ((section.most_objects,), bool),
            "seed": ((), jnp.uint32),
        }
        if settings.mask_size:
            shapes["masks"] = ((section.most_objects, settings.mask_size, settings.mask_size), jnp.uint8)
        if settings.num_keypoints:
            shapes["keypoints"] = ((section.most_objects, settings.num_keypoints, 3), jnp.float32)
        return {name: jax.ShapeDtypeStruct((batch_size, *shape), dtype) for name, (shape, dtype) in shapes.items()}

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        """See Task."""
        return self.data.train_batches(start_step, jax.process_index(), jax.process_count())

    def eval_batches(self) -> Iterator[Batch]:
        """See Task."""
        return self.data.eval_batches(jax.process_index(), jax.process_count())


def sampling_keys(seeds: jax.Array, switch: int) -> jax.Array:
    """Of the seeds [batch] of images the keys [batch] of one width's sampling, the width given by its switch."""
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), switch))(seeds)


def _objects_of(batch: Mapping[str, Any]) -> Objects:
    fields: dict[str, Any] = {name: batch.get(name) for name in Objects._fields}
    return Objects(**fields)


def example_settings(config: ConfigDict) -> ExampleSettings:
    """How examples are laid out, of a configuration."""
    section = config.detection
    return ExampleSettings(
        section.short_side,
        section.long_side,
        section.most_objects,
        section.mask_size if section.masks else 0,
        section.num_keypoints,
        flip=config.dataset.flip,
    )


def create_task(config: ConfigDict, platform: str, info: DatasetInfo | None = None, **options: Any) -> DetectionTask:
    """Opens the data set and builds the detector for its categories.

    Args:
      config: a whole configuration, see configs/default.py.
      platform: of the devices that compute: cpu, gpu or tpu.
      info: of a data set that is not there, for a task that is only planned; None opens it.
      **options: further attributes of the backbone, such as `batch_norm_axis`.

    Raises:
      UserError: if something in the configuration is unknown, or the data set is not at hand.
    """
    if info is not None:
        return DetectionTask(config, create_network(config, info.num_classes, platform, **options), info)
    # Once without the data set's categories: a mistake in the model shows before any data set is prepared.
    create_network(config, 1, platform, **options)
    from slimjax.tasks.detection.data.opening import open_data

    data = open_data(config, example_settings(config))
    model = create_network(config, data.info.num_classes, platform, **options)
    return DetectionTask(config, model, data.info, data)
