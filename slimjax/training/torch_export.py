"""Checkpoints of runs, handed on to PyTorch."""

from pathlib import Path

from etils import epath

from slimjax.configuration import config_of_run
from slimjax.interop import save_torch_checkpoint
from slimjax.training.checkpoints import Checkpoints
from slimjax.training.loading import load_checkpoint


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
    step = Checkpoints(workdir).find(which)
    model, variables = load_checkpoint(workdir, str(step))
    save_torch_checkpoint(model, variables, output, layout)
    name = config_of_run(workdir, str(step), overrides={}).model.name
    print(f"exported step {step} of {workdir}: {name}, widths {model.widths}, {model.num_classes} classes")
    print(f"checkpoint: {output} ({output.stat().st_size / 1e6:.1f} MB, layout {layout})")
    return 0
