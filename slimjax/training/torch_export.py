"""Checkpoints of runs, handed on to PyTorch."""

from pathlib import Path

import jax
from etils import epath
from jax.sharding import SingleDeviceSharding

from slimjax.configuration import config_of_run
from slimjax.interop import save_torch_checkpoint
from slimjax.nn.tracing import abstract_variables
from slimjax.tasks.classification.task import create_network
from slimjax.training.checkpoints import Checkpoints
from slimjax.training.state import Weights


def export_torch_checkpoint(workdir: epath.Path, which: str, output: Path, layout: str) -> int:
    """Writes a run's checkpoint as PyTorch's, moving averages where it has some. The data set is not opened.

    Args:
      workdir: of the run.
      which: `latest`, `best` or a step.
      output: the file, see `save_torch_checkpoint`.
      layout: `slimmable` or `torchvision`.

    Returns:
      The exit code.

    Raises:
      UserError: if there is no such checkpoint or it is damaged, the layout cannot hold its network, or the file is
        there or cannot be written.
    """
    config = config_of_run(workdir, which, overrides={})
    checkpoints = Checkpoints(workdir)
    step = checkpoints.find(which)
    model = create_network(config, checkpoints.description(step).num_classes, jax.default_backend())
    sharding = SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract_variables(model)
    )
    weights = checkpoints.restore_weights(step, Weights(shapes["params"], shapes["batch_stats"]))
    checkpoints.close()
    save_torch_checkpoint(model, vars(weights), output, layout)
    print(f"exported step {step} of {workdir}: {config.model.name}, widths {model.widths}, {model.num_classes} classes")
    print(f"checkpoint: {output} ({output.stat().st_size / 1e6:.1f} MB, layout {layout})")
    return 0
