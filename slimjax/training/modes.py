"""What the command line does: train, evaluate, calibrate."""

from itertools import islice

import jax
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from slimjax.analysis.tables import print_table, width_table
from slimjax.errors import UserError
from slimjax.paths import check_writable
from slimjax.tasks.task import Figures
from slimjax.training.checkpoints import Checkpoints
from slimjax.training.evaluation import Evaluator, calibrate_statistics
from slimjax.training.progress import Progress
from slimjax.training.run import Run, check_start, create_run, state_to_calibrate, trained_weights
from slimjax.training.step_trace import parse_steps

CALIBRATED = "calibrated"


def train(config: ConfigDict, workdir: epath.Path, profile_steps: str | None = None) -> int:
    """Trains, or resumes, and prints every width's figures; returns the exit code.

    Args:
      config: of the run.
      workdir: of checkpoints and logs.
      profile_steps: the steps to trace, such as `10-20`.

    Raises:
      UserError: for whatever in the arguments or the workdir is wrong.
    """
    traced = parse_steps(profile_steps) if profile_steps is not None else range(0)
    check_writable(workdir, "--workdir")
    check_start(config, workdir)
    run = create_run(config, workdir)
    if traced.stop > run.rule.num_steps:
        raise UserError(f"--profile_steps={profile_steps} goes beyond the {run.rule.num_steps} steps of this run")
    # Imported once the run is known to be good: the metric writers need TensorFlow, which takes seconds.
    from slimjax.training.loop import train as train_loop
    from slimjax.training.metric_writers import JSON_LINES, TENSORBOARD

    outcome = train_loop(run, traced)
    if outcome.figures:
        _print_figures(run, outcome.figures)
        if _leads():
            print(f"checkpoints: {run.checkpoints.directory}")
            print(f"logs: {workdir / JSON_LINES} and {workdir / TENSORBOARD} (tensorboard --logdir {workdir})")
    run.checkpoints.close()
    return outcome.exit_code


def evaluate(config: ConfigDict, workdir: epath.Path, which: str) -> int:
    """Evaluates a checkpoint at every width and prints its figures."""
    run = create_run(config, workdir)
    step, weights = trained_weights(run, which)
    with _progress() as progress, progress.announced(f"evaluating step {step} of {workdir}"):
        figures = Evaluator(run.task, run.mesh, progress)(weights.params, weights.batch_stats)
    _print_figures(run, figures)
    return 0


def calibrate(config: ConfigDict, workdir: epath.Path, which: str) -> int:
    """Recomputes a checkpoint's batch-norm statistics per width into a workdir of its own, `<workdir>/calibrated`.

    What an earlier calibration has left there is replaced. The result is described as the checkpoint was: how it is
    calibrated, such as the batch size, is not how it was trained.
    """
    check_writable(workdir, "--workdir")
    run = create_run(config, workdir)
    step = run.checkpoints.find(which)
    state, description = state_to_calibrate(run, step)
    weights = state.weights
    with _progress() as progress:
        count = config.calibration_batches
        with progress.announced(f"calibrating step {step} on {count} batches"):
            batches = progress.track(islice(run.task.train_batches(step), count), "calibrating", count)
            statistics = calibrate_statistics(run.task, run.mesh, weights.params, weights.batch_stats, batches)
        with progress.announced("evaluating"):
            figures = Evaluator(run.task, run.mesh, progress)(weights.params, statistics)
    target = Checkpoints(workdir / CALIBRATED)
    target.claim()
    if _leads() and target.directory.exists():
        target.directory.rmtree()
    # Nobody may write before what was there is gone.
    multihost_utils.sync_global_devices("an earlier calibration is removed")
    target.save(state.with_statistics(statistics), description, figures, run.task.best_figure)
    target.close()
    _print_figures(run, figures)
    if _leads():
        print(f"calibrated checkpoint: {target.directory} (evaluate it: --mode=eval --workdir={workdir / CALIBRATED})")
    return 0


def _leads() -> bool:
    """Whether this process is the one that prints and writes logs."""
    return jax.process_index() == 0


def _progress() -> Progress:
    return Progress(enabled=_leads())


def _print_figures(run: Run, figures: dict[float, Figures]) -> None:
    if _leads():
        print_table(width_table(run.task.model, run.task.image_size, figures))
