"""What the command line does: train, evaluate, calibrate."""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import TypeAlias

import jax
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from slimjax.analysis.figures_report import FiguresReport
from slimjax.analysis.profile import profile_model
from slimjax.errors import UserError
from slimjax.paths import check_writable
from slimjax.tasks.task import Figures
from slimjax.training.checkpoints import Checkpoints
from slimjax.training.evaluation import Evaluator, calibrate_statistics
from slimjax.training.progress import Progress
from slimjax.training.run import Run, check_start, create_run, state_to_calibrate, trained_weights
from slimjax.training.step_trace import parse_steps
from slimjax.versions import package_versions

CALIBRATED = "calibrated"
RESULTS = "results"

Show: TypeAlias = Callable[[FiguresReport], None]
"""Prints a report; called in the process that writes logs alone."""


def train(
    config: ConfigDict, workdir: epath.Path, show: Show, quiet: bool = False, profile_steps: str | None = None
) -> int:
    """Trains, or resumes, and shows every width's figures; returns the exit code.

    Args:
      config: of the run.
      workdir: of checkpoints and logs.
      show: prints the figures.
      quiet: whether no progress is shown.
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

    outcome = train_loop(run, traced, quiet)
    if outcome.figures:
        logs = f"logs: {workdir / JSON_LINES} and {workdir / TENSORBOARD} (tensorboard --logdir {workdir})"
        notes = (f"checkpoints: {run.checkpoints.directory}", logs)
        _show_figures(show, run, outcome.step, outcome.figures, run.checkpoints.directory, notes)
    run.checkpoints.close()
    return outcome.exit_code


def evaluate(config: ConfigDict, workdir: epath.Path, show: Show, quiet: bool = False, which: str = "latest") -> int:
    """Evaluates a checkpoint at every width and shows its figures; see `train` for the arguments."""
    _check_is_trained(workdir, which)
    run = create_run(config, workdir)
    step, weights = trained_weights(run, which)
    with _progress(quiet) as progress, progress.announced(f"evaluating step {step} of {workdir}"):
        evaluate, results = Evaluator(run.task, run.mesh, progress), _results_folder(workdir, step)
        if results is None and _leads() and config.task == "detection":
            progress.say(f"{workdir} cannot be written to: there will be figures, but no files of what was found")
        figures = evaluate(weights.params, weights.batch_stats, results=results)
    notes = (f"results, as the data set's evaluation takes them: {results}",) if results and results.exists() else ()
    _show_figures(show, run, step, figures, run.checkpoints.directory, notes)
    return 0


def calibrate(config: ConfigDict, workdir: epath.Path, show: Show, quiet: bool = False, which: str = "latest") -> int:
    """Recomputes a checkpoint's batch-norm statistics per width into a workdir of its own, `<workdir>/calibrated`.

    What an earlier calibration has left there is replaced. The result is described as the checkpoint was: how it is
    calibrated, such as the batch size, is not how it was trained.
    """
    check_writable(workdir, "--workdir")
    _check_is_trained(workdir, which)
    run = create_run(config, workdir)
    step = run.checkpoints.find(which)
    state, description = state_to_calibrate(run, step)
    weights = state.weights
    with _progress(quiet) as progress:
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
    note = f"calibrated checkpoint: {target.directory} (evaluate it: --mode=eval --workdir={workdir / CALIBRATED})"
    _show_figures(show, run, step, figures, target.directory, (note,))
    return 0


def _check_is_trained(workdir: epath.Path, which: str) -> None:
    """UserError if a workdir has no such checkpoint, before the data set is opened, which takes seconds."""
    checkpoints = Checkpoints(workdir)
    checkpoints.find(which)
    checkpoints.close()


def _results_folder(workdir: epath.Path, step: int) -> epath.Path | None:
    """For what is found, in one process alone; None in a workdir that may be read only."""
    folder = workdir / RESULTS / f"step_{step}"
    try:
        check_writable(folder, "--workdir")
    except UserError:
        return None
    return folder if _leads() else None


def _leads() -> bool:
    """Whether this process is the one that prints and writes logs."""
    return jax.process_index() == 0


def _progress(quiet: bool) -> Progress:
    return Progress(enabled=_leads() and not quiet)


def _show_figures(
    show: Show,
    run: Run,
    step: int,
    figures: Mapping[float, Figures],
    checkpoints: epath.Path,
    notes: tuple[str, ...] = (),
) -> None:
    if not _leads():
        return
    task, config = run.task, run.config
    report = FiguresReport(
        model=config.model.name,
        num_classes=run.num_classes,
        image_size=task.image_size,
        dataset=config.dataset.name,
        eval_split=config.dataset.eval_split,
        step=step,
        checkpoints=str(checkpoints),
        widths=profile_model(task.model, task.image_size),
        figures=figures,
        versions=package_versions(),
        notes=notes,
    )
    show(report)
