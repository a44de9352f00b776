"""Turns a PyTorch checkpoint into a checkpoint of slimjax, as a run would have saved it before its first step.

python -m slimjax.import_torch --config=s_mobilenet_v2 --checkpoint=FILE.pt --workdir=DIR
python -m slimjax.main --workdir=DIR --mode=eval                                   then: its figures at every width
python -m slimjax.main --config=s_mobilenet_v2 --workdir=DIR                       or: train on from it
python -m slimjax.main --config=... --workdir=OTHER --config.init_from=DIR         or: start another run with it

Needs PyTorch: pip install 'slimjax[torch]'. No data set is opened; the number of classes is the file's. Published
slimmable weights carry a non-commercial licence and are yours to fetch.
"""

from importlib.resources import files
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from slimjax import cli
from slimjax.errors import UserError
from slimjax.paths import folder_path

config_flags.DEFINE_config_file(
    "config",
    None,
    "Configuration, a file or a short name; its section `model` is the checkpoint's network.",
)
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "The file: a state_dict, or a dict that has one under `model`.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the checkpoint; it must not have any yet.")


def main() -> int:
    """Imports the checkpoint that the flags name; returns the exit code."""
    if not cli.config_is_given():
        raise UserError("--config is missing; give the network's, such as --config=configs/s_mobilenet_v2.py")
    if not _CHECKPOINT.value:
        raise UserError("--checkpoint is missing; give the file that torch.save wrote, such as --checkpoint=FILE.pt")
    if not _WORKDIR.value:
        raise UserError("--workdir is missing; give the folder for the checkpoint, such as --workdir=runs/imported")
    config = cli.given_config()
    # Imported once the flags are known to be good.
    from slimjax.training.importing import import_torch_checkpoint

    return import_torch_checkpoint(config, Path(_CHECKPOINT.value), folder_path(_WORKDIR.value, "--workdir"))


if __name__ == "__main__":
    cli.run(main, default_config=str(files("slimjax.configs") / "digits.py"))
