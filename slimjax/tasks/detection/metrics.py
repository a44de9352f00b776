"""What a step and an evaluation of a detector report."""

from functools import lru_cache
from typing import Any, Self

import jax
import numpy as np
from clu import metrics as clu_metrics
from flax import struct

from slimjax.tasks.detection.proposals import Detections


@lru_cache
def loss_metrics(names: tuple[str, ...]) -> type[clu_metrics.Collection]:
    """Means of the loss and of its parts, which add up over devices and batches."""
    return clu_metrics.Collection.create(**{name: clu_metrics.Average.from_output(name) for name in ("loss", *names)})


class Found(struct.PyTreeNode):
    """Detections of images, which are collected: what they are worth is known of all images together only.

    Attributes:
      batches: of each batch the detections, and of its images `id`, `scale` and `mask`, which is 0 for padding.
    """

    batches: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, detections: Detections, batch: Any) -> Self:
        """What was found in a batch."""
        found = {name: values for name, values in detections._asdict().items() if values is not None}
        return cls(({**found, **{name: batch[name] for name in ("id", "scale", "mask")}},))

    def over_devices(self, axis_name: str) -> Self:
        """Those of all devices, on each of them; traced."""
        return jax.tree.map(lambda values: jax.lax.all_gather(values, axis_name, tiled=True), self)

    def merge(self, other: Self) -> Self:
        """Both, in the host's memory."""
        return type(self)((*self._on_host(), *other._on_host()))

    def _on_host(self) -> tuple[dict[str, np.ndarray], ...]:
        return tuple(jax.device_get(batch) for batch in self.batches)
