"""Batches on their way to the devices while these compute."""

from collections import deque
from collections.abc import Iterable, Iterator

import jax
from jax.sharding import Mesh

from slimjax.tasks.task import Batch
from slimjax.training.mesh import put_batch

_BATCHES_AHEAD = 1


def device_batches(mesh: Mesh, batches: Iterable[Batch]) -> Iterator[dict[str, jax.Array]]:
    """The batches, in order, each split over the devices; see `put_batch`.

    A batch is handed out once the transfer of the next one has been started, so that it runs beside the step that takes
    the first. The devices hold one batch more for it.

    Args:
      mesh: of all devices.
      batches: this host's share of each.
    """
    on_their_way: deque[dict[str, jax.Array]] = deque()
    for batch in batches:
        on_their_way.append(put_batch(mesh, dict(batch)))
        if len(on_their_way) > _BATCHES_AHEAD:
            yield on_their_way.popleft()
    yield from on_their_way
