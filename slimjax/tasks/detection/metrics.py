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
      batches: of each batch the detections, and of its images `index`, `size` and `mask`, see `eval_batches`.
    """

    batches: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, detections: Detections, batch: Any) -> Self:
        """What was found in a batch."""
        found = {name: values for name, values in detections._asdict().items() if values is not None}
        return cls(({**found, **{name: batch[name] for name in ("index", "size", "mask")}},))

    def over_devices(self, axis_name: str) -> Self:
        """Those of all devices, on each of them; traced."""
        return jax.tree.map(lambda values: jax.lax.all_gather(values, axis_name, tiled=True), self)

    def merge(self, other: Self) -> Self:
        """Both, all but the latest batch in the host's memory: to fetch that one would be to wait for it."""
        return type(self)((*_on_host(self.batches), *other.batches))

    def on_host(self) -> Self:
        """All in the host's memory."""
        return type(self)(_on_host(self.batches))


def _on_host(batches: tuple[dict[str, Any], ...]) -> tuple[dict[str, np.ndarray], ...]:
    return tuple(_fetched(batch) if isinstance(batch["mask"], jax.Array) else batch for batch in batches)


def _fetched(batch: dict[str, Any]) -> dict[str, np.ndarray]:
    fetched: dict[str, np.ndarray] = jax.device_get(batch)
    if "masks" in fetched:
        # Of COCO's 5,000 images they are most of what is kept: 1.6 GB a width in float32.
        fetched["masks"] = fetched["masks"].astype(np.float16)
    return fetched
