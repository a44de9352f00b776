"""An orbax checkpoint of the weights as they were trained, for whoever builds the network in JAX or trains on.

Under `orbax/` is what `orbax.checkpoint.StandardCheckpointer().restore(path)` reads: `params` and `batch_stats`, nested
by the network's layers, float32. With all widths of the network they are those of `slimjax.create_model(...)`: kernels
at the widest, batch norms by switch. One width is a network of its own, see `slimjax.extract_subnet`. Some of the
widths keep the kernels at the network's widest, and the batch norms of these widths, by the switches that they had.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict

from slimjax.deploy.bundle import Outputs
from slimjax.deploy.formats import Written
from slimjax.deploy.source import Source, put_out
from slimjax.deploy.subnets import Network, extract_subnet
from slimjax.nn.tracing import variables_at

_FOLDER = "orbax"
_COMMITTED = "commit_success.txt"


def write(source: Source, bundle: Path) -> Iterator[Written]:
    """See `slimjax.deploy.formats`."""
    model, variables = _network(source)
    path = bundle.absolute() / _FOLDER
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, jax.tree.map(np.asarray, variables))
    if (path / _COMMITTED).exists():
        # Buckets need the file, nothing reads what is in it, and orbax writes this machine's path there.
        (path / _COMMITTED).write_text("Checkpoint commit was successful")
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(path)

    def run(width: float, images: np.ndarray) -> Outputs:
        def network(restored: Any, images: jax.Array) -> Any:
            return put_out(model.apply(restored, source.normalised(images), width=width))

        outputs: Outputs = jax.tree.map(np.asarray, jax.jit(network)(restored, images))
        return outputs

    yield Written("orbax", dict.fromkeys(source.widths, f"{_FOLDER}/_CHECKPOINT_METADATA"), run)


def _network(source: Source) -> Network:
    """What is saved, and the model that reads it."""
    model, variables = source.trained.model, source.trained.variables
    if len(source.widths) == 1:
        return extract_subnet(model, variables, source.widths[0])
    read: dict[Any, Any] = {}
    for width in source.widths:
        read |= flatten_dict(variables_at(model, variables, width))
    return Network(model, unflatten_dict(read))
