"""What the command line does: train, evaluate, calibrate."""

from itertools import islice
from pathlib import Path

import jax
from ml_collections import ConfigDict

from slimjax.analysis.tables import print_table, width_table
from slimjax.errors import UserError
from slimjax.tasks.task import Figures
from slimjax.training.checkpoints import Checkpoints
from slimjax.training.evaluation import Evaluator, calibrate_statistics
from slimjax.training.progress import Progress, announced
from slimjax.training.run import Run, create_run, new_state, trained_weights

CALIBRATED = "calibrated"


def train(config: ConfigDict, workdir: Path) -> int:
    """Trains, or resumes, and prints every width's figures; returns the exit code."""
    run = create_run(config, workdir)
    # Imported once the run is known to be good: the metric writers need TensorFlow, which takes seconds.
    from slimjax.training.loop import train as train_loop
    from slimjax.training.metric_writers import JSON_LINES

    outcome = train_loop(run)
    if outcome.figures:
        _print_figures(run, outcome.figures)
        if jax.process_index() == 0:
            print(f"checkpoints: {run.checkpoints.directory}")
            print(f"logs: {workdir / JSON_LINES} and {workdir / 'tensorboard'} (tensorboard --logdir {workdir})")
    run.checkpoints.close()
    return outcome.exit_code


def evaluate(config: ConfigDict, workdir: Path, which: str) -> int:
    """Evaluates a checkpoint at every width and prints its figures."""
    run = create_run(config, workdir)
    step, weights = trained_weights(run, which)
    with Progress("evaluating", 0) as progress, announced(progress, f"evaluating step {step} of {workdir}"):
        figures = Evaluator(run.task, run.mesh)(weights.params, weights.batch_stats)
    _print_figures(run, figures)
    return 0


def calibrate(config: ConfigDict, workdir: Path, which: str) -> int:
    """Recomputes a checkpoint's batch-norm statistics per width into a workdir of its own, `<workdir>/calibrated`."""
    run = create_run(config, workdir)
    if config.calibration_batches < 1:
        raise UserError(f"calibration_batches={config.calibration_batches} has to be at least 1")
    step, weights = trained_weights(run, which)
    with Progress("calibrating", 0) as progress:
        with announced(progress, f"calibrating step {step} on {config.calibration_batches} batches"):
            batches = islice(run.task.train_batches(step), config.calibration_batches)
            statistics = calibrate_statistics(run.task, run.mesh, weights.params, weights.batch_stats, batches)
        with announced(progress, "evaluating"):
            figures = Evaluator(run.task, run.mesh)(weights.params, statistics)
    state = new_state(run).replace(step=weights.step, params=weights.params, batch_stats=statistics)
    target = Checkpoints(workdir / CALIBRATED)
    target.save(state, run.description(step), figures, run.task.best_figure)
    target.close()
    _print_figures(run, figures)
    print(f"calibrated checkpoint: {target.directory}")
    return 0


def _print_figures(run: Run, figures: dict[float, Figures]) -> None:
    if jax.process_index() == 0:
        print_table(width_table(run.task.model, run.task.image_size, figures))
