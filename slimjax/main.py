"""Trains, evaluates or calibrates a slimmable network.

python -m slimjax.main --workdir=runs/digits                                          the digits demo
python -m slimjax.main --config=s_mobilenet_v2 --workdir=DIR                          a row of the paper
python -m slimjax.main --config=s_resnet50:individual=0.5 --workdir=DIR               or naive, or incremental
python -m slimjax.main --config=cifar10 --workdir=DIR --config.batch_size=256         a key set otherwise
python -m slimjax.main --config=my_config.py --workdir=DIR --config.init_from=OTHER   another run's weights
python -m slimjax.main --workdir=DIR --mode=eval [--checkpoint=best]                  every width of a trained one
python -m slimjax.main --workdir=DIR --mode=eval --format=json --output=FILE          for a script; or csv
python -m slimjax.main --workdir=DIR --mode=calibrate                                 batch-norm statistics anew

A run that is stopped goes on where it was by the same command. On a TPU pod the same command on every host; for
processes elsewhere add, to each of them, --coordinator=HOST:PORT --num_processes=N --process_id=I
"""

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import config_flags

from slimjax import cli
from slimjax.allocator import keep_freed_memory
from slimjax.errors import UserError
from slimjax.paths import check_writable, folder_path

# What needs JAX is imported once the flags are known to be good.
if TYPE_CHECKING:
    from slimjax.analysis.figures_report import FiguresReport

config_flags.DEFINE_config_file(
    "config",
    None,
    "Configuration, a file or a short name: the digits where none is given. configs/default.py has every key.",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints and logs. A run that is there is resumed.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "eval", "calibrate"], "What to do.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "For eval and calibrate: latest, best, or a step.")
_FORMAT, _OUTPUT = cli.define_format("table", "csv", "json")
_QUIET = cli.define_quiet()

_PROFILE_STEPS = flags.DEFINE_string(
    "profile_steps", None, "FIRST-LAST: steps to trace into the workdir's TensorBoard logs, for XProf."
)

_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where a run has several processes.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the run.", lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", lower_bound=0)


def main() -> int:
    """Runs the mode that the flags ask for; returns the exit code."""
    if not _WORKDIR.value:
        raise UserError("--workdir is missing; give the folder for checkpoints and logs, such as --workdir=runs/digits")
    if _MODE.value == "train" and flags.FLAGS["checkpoint"].present:
        raise UserError("--checkpoint is for --mode=eval and calibrate; training goes on from the newest one")
    if _OUTPUT.value:
        check_writable(Path(_OUTPUT.value).expanduser(), "--output", is_file=True)
    workdir = folder_path(_WORKDIR.value, "--workdir")
    # A trained workdir brings its own configuration where --config is not given.
    is_own = _MODE.value != "train" and not cli.config_is_given()
    config = cli.given_config(workdir, _CHECKPOINT.value) if is_own else cli.given_config()
    keep_freed_memory()
    # Imported once the flags are known to be good.
    from slimjax.training import modes
    from slimjax.training.processes import connect_processes, ended_with_the_others

    connect_processes(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    cli.use_compilation_cache()
    with ended_with_the_others():
        return {
            "train": lambda: modes.train(config, workdir, _show, _QUIET.value, _PROFILE_STEPS.value),
            "eval": lambda: modes.evaluate(config, workdir, _show, _QUIET.value, _CHECKPOINT.value),
            "calibrate": lambda: modes.calibrate(config, workdir, _show, _QUIET.value, _CHECKPOINT.value),
        }[_MODE.value]()


def _show(report: "FiguresReport") -> None:
    from slimjax.analysis.figures_report import as_csv, as_json
    from slimjax.analysis.tables import print_figures

    with cli.opened(_OUTPUT.value) as file:
        if cli.asked_format(_FORMAT, _OUTPUT.value) == "table":
            print_figures(report, file)
        else:
            file.write({"csv": as_csv, "json": as_json}[cli.asked_format(_FORMAT, _OUTPUT.value)](report))


if __name__ == "__main__":
    cli.run(main, default_config=str(files("slimjax.configs") / "digits.py"))
