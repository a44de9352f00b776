"""Checkpoints made of weights that were trained elsewhere."""

from pathlib import Path

import jax
from etils import epath
from ml_collections import ConfigDict

from slimjax.errors import UserError
from slimjax.interop.state_dicts import read_state_dict
from slimjax.interop.torch_checkpoints import num_classes_in, variables_of
from slimjax.paths import check_writable
from slimjax.training.checkpoints import Checkpoints, describe
from slimjax.training.mesh import check_platform
from slimjax.training.planning import training_without_data
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
      UserError: if something in the configuration is wrong or it is a detector's, the workdir has checkpoints or cannot
        be written, or the file cannot be read or is of another network.
    """
    check_platform(config.platform)
    if config.task == "detection":
        raise UserError(
            "task=detection: PyTorch checkpoints are read of classifiers; import the backbone, such as with "
            "--config=s_resnet50, and give that workdir to the detector as --config.init_from"
        )
    checkpoints = Checkpoints(workdir, config.keep_checkpoints)
    if steps := checkpoints.steps():
        raise UserError(f"{workdir} has checkpoints of the steps {steps} already; give a new --workdir")
    check_writable(workdir, "--workdir")
    # Built before the file is read, so that a mistake in the configuration shows first. How many devices will train
    # nobody knows here.
    checked = config.copy_and_resolve_references()
    checked.batch_norm_group_size = 1
    training = training_without_data(checked, jax.devices()[:1], num_classes=1)
    arrays = read_state_dict(path)
    model = training.task.model.clone(num_classes=num_classes_in(arrays, str(path)))
    model.check_options()
    variables = variables_of(model, arrays, str(path))
    weights = Weights(variables["params"], variables["batch_stats"])
    state = state_of(weights, training.tx, averages=config.ema_decay > 0)
    checkpoints.save(state, describe(config, model.num_classes, step=0), figures={}, best_figure="")
    checkpoints.close()
    print(f"imported {path}: {config.model.name}, widths {model.widths}, {model.num_classes} classes")
    print(f"checkpoint: {checkpoints.directory / '0'} (evaluate it with --mode=eval --workdir={workdir})")
    return 0
