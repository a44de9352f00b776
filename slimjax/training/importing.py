"""Checkpoints made of weights that were trained elsewhere."""

from pathlib import Path

import jax
from etils import epath
from ml_collections import ConfigDict

from slimjax.errors import UserError
from slimjax.interop.state_dicts import read_state_dict
from slimjax.interop.torch_checkpoints import num_classes_in, variables_of
from slimjax.paths import check_writable
from slimjax.tasks.creation import create_network
from slimjax.training.checkpoints import Checkpoints, describe
from slimjax.training.mesh import check_platform
from slimjax.training.optimizers import check_optimizer, create_optimizer, decay_mask
from slimjax.training.setup import check_ranges
from slimjax.training.state import Weights, state_of


def import_torch_checkpoint(config: ConfigDict, path: Path, workdir: epath.Path) -> int:
    """Saves a PyTorch checkpoint as what a run of the configuration would have saved before its first step.

    It is a whole checkpoint, so a run in the workdir goes on from it. The data set is not opened.

    Args:
      config: of the run; its network is the one that the file holds.
      path: of the file.
      workdir: where it is saved, as step 0.

    Returns:
      The exit code.

    Raises:
      UserError: if a number or the platform of the configuration is wrong, the workdir has checkpoints or cannot be
        written, or the file cannot be read or is of another network.
    """
    check_platform(config.platform)
    check_ranges(config)
    checkpoints = Checkpoints(workdir, config.keep_checkpoints)
    if steps := checkpoints.steps():
        raise UserError(f"{workdir} has checkpoints of the steps {steps} already; give a new --workdir")
    check_writable(workdir, "--workdir")
    check_optimizer(config.optimizer)
    # Once with any number of classes: a mistake in the model shows before the file is read.
    create_network(config, 1, jax.default_backend())
    arrays = read_state_dict(path)
    model = create_network(config, num_classes_in(arrays, str(path)), jax.default_backend())
    variables = variables_of(model, arrays, str(path))
    # What an optimiser keeps does not depend on the schedule, whose length only the data set tells.
    tx = create_optimizer(config.optimizer, lambda step: config.learning_rate, decay_mask(model))
    weights = Weights(variables["params"], variables["batch_stats"])
    state = state_of(weights, tx, averages=config.ema_decay > 0)
    checkpoints.save(state, describe(config, model.num_classes, step=0), figures={}, best_figure="")
    checkpoints.close()
    print(f"imported {path}: {config.model.name}, widths {model.widths}, {model.num_classes} classes")
    print(f"checkpoint: {checkpoints.directory / '0'} (evaluate it with --mode=eval --workdir={workdir})")
    return 0
