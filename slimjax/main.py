"""Trains, evaluates or calibrates a slimmable network.

python -m slimjax.main --workdir=runs/digits                                          the digits demo
python -m slimjax.main --config=configs/s_mobilenet_v2.py --workdir=DIR               a row of the paper
python -m slimjax.main --config=configs/cifar10.py --workdir=DIR --config.batch_size=256
python -m slimjax.main --workdir=DIR --mode=eval [--checkpoint=best]                  every width of a trained one
python -m slimjax.main --workdir=DIR --mode=calibrate                                 batch-norm statistics anew

On a TPU pod the same command on every host; for processes elsewhere add, to each of them,
--coordinator=HOST:PORT --num_processes=N --process_id=I
"""

from importlib.resources import files

from absl import flags
from ml_collections import config_flags

from slimjax import cli
from slimjax.allocator import keep_freed_memory
from slimjax.errors import UserError
from slimjax.paths import folder_path

config_flags.DEFINE_config_file(
    "config",
    None,
    "Configuration file, the digits where none is given; --config.KEY=VALUE overrides one key of it. "
    "configs/default.py has every key and its unit.",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints and logs. A run that is there is resumed.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "eval", "calibrate"], "What to do.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "For eval and calibrate: latest, best, or a step.")

_PROFILE_STEPS = flags.DEFINE_string(
    "profile_steps", None, "FIRST-LAST: steps to trace into the workdir's TensorBoard logs, for XProf."
)

_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where a run has several processes.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Of the run.", lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Of this process, counted from 0.", lower_bound=0)


def main() -> int:
    """Runs the mode that the flags ask for; returns the exit code."""
    if not _WORKDIR.value:
        raise UserError("--workdir is missing; give the folder for checkpoints and logs, such as --workdir=runs/digits")
    if _MODE.value == "train" and flags.FLAGS["checkpoint"].present:
        raise UserError("--checkpoint is for --mode=eval and calibrate; training goes on from the newest one")
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
            "train": lambda: modes.train(config, workdir, _PROFILE_STEPS.value),
            "eval": lambda: modes.evaluate(config, workdir, _CHECKPOINT.value),
            "calibrate": lambda: modes.calibrate(config, workdir, _CHECKPOINT.value),
        }[_MODE.value]()


if __name__ == "__main__":
    cli.run(main, default_config=str(files("slimjax.configs") / "digits.py"))
