"""Turns a checkpoint of slimjax into a PyTorch checkpoint, for the code of the public slimmable checkpoints.

python -m slimjax.export_torch --workdir=runs/digits --output=FILE.pt                     the newest checkpoint
python -m slimjax.export_torch --workdir=DIR --checkpoint=best --output=FILE.pt           the best one
python -m slimjax.export_torch --workdir=DIR --output=FILE.pt --layout=torchvision        a plain network of width 1

Needs PyTorch: pip install 'slimjax[torch]'. No data set is opened. `python -m slimjax.import_torch` is the way back.
"""

from pathlib import Path

from absl import flags

from slimjax import cli
from slimjax.errors import UserError
from slimjax.paths import check_writable, folder_path

LAYOUTS = ("slimmable", "torchvision")

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a trained run.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Of the run: latest, best, or a step.")
_OUTPUT = flags.DEFINE_string("output", None, "The file; it must not be there yet.")
_LAYOUT = flags.DEFINE_enum("layout", LAYOUTS[0], LAYOUTS, "Names: of the public checkpoints, or torchvision's.")


def main() -> int:
    """Exports the checkpoint that the flags name; returns the exit code."""
    if not _WORKDIR.value:
        raise UserError("--workdir is missing; give the folder of a trained run, such as --workdir=runs/digits")
    if not _OUTPUT.value:
        raise UserError("--output is missing; give the file to write, such as --output=FILE.pt")
    output = Path(_OUTPUT.value).expanduser()
    if output.exists() or output.is_symlink():
        raise UserError(f"--output={output} is there already; give a new file, or remove it")
    check_writable(output, "--output", is_file=True)
    workdir = folder_path(_WORKDIR.value, "--workdir")
    # Imported once the flags are known to be good.
    from slimjax.training.torch_export import export_torch_checkpoint

    return export_torch_checkpoint(workdir, _CHECKPOINT.value, output, _LAYOUT.value)


if __name__ == "__main__":
    cli.run(main)
