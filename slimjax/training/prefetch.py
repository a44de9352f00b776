"""Batches on their way to the devices while these compute: as bytes, which the devices normalise."""

from collections import deque
from collections.abc import Iterable, Iterator

import jax
from jax.sharding import Mesh

from slimjax.tasks import colours
from slimjax.tasks.task import Batch
from slimjax.training.mesh import put_batch, settled

_BATCHES_AHEAD = 1

_seen_by_networks = jax.jit(colours.normalised)


def device_batches(mesh: Mesh, batches: Iterable[Batch]) -> Iterator[dict[str, jax.Array]]:
    """The batches, in order, each split over the devices, with images as networks see them.

    A batch is handed out once the transfer of the next one has been started, so that it runs beside the step that takes
    the first. The devices hold one batch more for it, still as bytes.

    Args:
      mesh: of all devices.
      batches: this host's share of each, with images as `colours.normalised` takes them.
    """
    on_their_way: deque[dict[str, jax.Array]] = deque()
    for batch in batches:
        on_their_way.append(put_batch(mesh, dict(batch)))
        if len(on_their_way) > _BATCHES_AHEAD:
            yield _handed_out(mesh, on_their_way.popleft())
    for arrays in on_their_way:
        yield _handed_out(mesh, arrays)


def _handed_out(mesh: Mesh, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    images = _seen_by_networks({name: batch[name] for name in colours.SEEN if name in batch})
    others = {name: array for name, array in batch.items() if name not in ("image", "noise")}
    return {"image": settled(mesh, images), **others}
