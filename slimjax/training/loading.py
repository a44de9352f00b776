"""Trained networks, read back from the workdirs of their runs."""

import os
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding

from slimjax.configuration import config_of_run
from slimjax.models import SlimmableNetwork
from slimjax.nn.tracing import abstract_variables
from slimjax.paths import folder_path
from slimjax.tasks.creation import create_network
from slimjax.training.checkpoints import Checkpoints
from slimjax.training.state import Weights


def load_checkpoint(workdir: str | os.PathLike[str], which: str = "latest") -> tuple[SlimmableNetwork, Any]:
    """The network of a run with the variables that it has learned. The data set is not opened.

    Args:
      workdir: of the run, a folder or `gs://BUCKET/FOLDER`.
      which: of its checkpoints: `latest`, `best` or a step.

    Returns:
      model: the network. It takes images [batch, height, width, 3] float32, normalised as in training.
      variables: `params` and `batch_stats`, float32, on JAX's default device; moving averages where the run kept some.

    Raises:
      UserError: if there is no such checkpoint, or it is damaged.
    """
    folder = folder_path(os.fspath(workdir), "workdir")
    checkpoints = Checkpoints(folder)
    step = checkpoints.find(which)
    config = config_of_run(folder, str(step), overrides={})
    model = create_network(config, checkpoints.description(step).num_classes, jax.default_backend())
    sharding = SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract_variables(model)
    )
    weights = checkpoints.restore_weights(step, Weights(shapes["params"], shapes["batch_stats"]))
    checkpoints.close()
    return model, vars(weights)
