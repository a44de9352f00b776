"""One cell of the grid, through the one trainer, and what its raw result says."""

import json
import re
import time
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import jax
from cells import Cell, config_of, is_calibrated
from etils import epath
from ml_collections import ConfigDict
from raw_results import Result

from slimjax.analysis.machine import commit_of, describe_machine
from slimjax.configuration import plain
from slimjax.tasks.task import Figures
from slimjax.training.evaluation import Evaluator, calibrate_statistics
from slimjax.training.loop import Outcome, train
from slimjax.training.metric_writers import JSON_LINES
from slimjax.training.progress import Progress
from slimjax.training.run import Run, create_run
from slimjax.training.setup import steps_of_an_epoch

CURVES = ("loss", "top1_error")
_SCALAR = re.compile(rf"(train|eval)/({'|'.join(CURVES)})/width_(.+)")


def run_cell(cell: Cell, dataset: str, scale: str, workdir: Path, quiet: bool) -> Result | int:
    """Trains a cell, or goes on with it, in a workdir of its own.

    Args:
      cell: what is trained.
      dataset: of DATASETS.
      scale: of SCALES.
      workdir: of the whole grid.
      quiet: whether no progress is shown.

    Returns:
      The raw result, or the exit code if a signal has stopped the run, which is saved and goes on when it is called
      again.

    Raises:
      UserError: as training raises it.
    """
    began, config = time.monotonic(), config_of(cell, dataset, scale)
    # What earlier cells have compiled is of no use to this one.
    jax.clear_caches()
    run = create_run(config, epath.Path(workdir / cell.name).absolute())
    resumed_from = max(run.checkpoints.steps(), default=0)
    outcome = train(run, quiet=quiet)
    run.checkpoints.close()
    if not outcome.figures:
        return outcome.exit_code
    lines = [json.loads(line) for line in Path(run.workdir / JSON_LINES).read_text().splitlines()]
    return {
        **_about(cell, dataset, scale, config),
        "resumed_from_step": resumed_from,
        "seconds": round(time.monotonic() - began, 1),
        "train_seconds": round(train_seconds(lines, config.batch_size), 1),
        "figures": by_key(outcome.figures),
        "calibrated": by_key(_calibrated(run, outcome, quiet)) if is_calibrated(cell) else None,
        "curves": curves_of(lines, steps_of_an_epoch(config, run.task)),
    }


def _about(cell: Cell, dataset: str, scale: str, config: ConfigDict) -> dict[str, Any]:
    return {
        "cell": cell.name,
        "family": cell.family,
        "method": cell.method,
        "seed": cell.seed,
        "dataset": dataset,
        "scale": scale,
        "config": plain(config),
        "machine": describe_machine(),
        "commit": commit_of(Path(__file__).parent),
    }


def _calibrated(run: Run, outcome: Outcome, quiet: bool) -> dict[float, Figures]:
    """Figures with the batch-norm statistics computed anew for every width, as --mode=calibrate does."""
    weights, count = outcome.state.weights, run.config.calibration_batches
    with Progress(enabled=not quiet) as progress:
        batches = progress.track(islice(run.task.train_batches(outcome.step), count), "calibrating", count)
        statistics = calibrate_statistics(run.task, run.mesh, weights.params, weights.batch_stats, batches)
        return Evaluator(run.task, run.mesh, progress)(weights.params, statistics)


def by_key(figures: Mapping[float, Figures]) -> dict[str, Figures]:
    """Figures by width as JSON has them."""
    return {f"{width:g}": {name: round(value, 4) for name, value in of.items()} for width, of in figures.items()}


def curves_of(lines: Iterable[Mapping[str, Any]], steps_per_epoch: float) -> dict[str, list[dict[str, Any]]]:
    """The curves of a run.

    Args:
      lines: of its metrics, in order.
      steps_per_epoch: for the place of every point.

    Returns:
      Points of training (`train`: means since the point before) and of the evaluations (`eval`), each with `step`,
      `epoch` and, by figure and width, values.
    """
    curves: dict[str, list[dict[str, Any]]] = {"train": [], "eval": []}
    for line in lines:
        points: dict[str, dict[str, Any]] = {}
        for name, value in line.items():
            if match := _SCALAR.fullmatch(name):
                split, figure, width = match.groups()
                place = {"step": line["step"], "epoch": round(line["step"] / steps_per_epoch, 4)}
                points.setdefault(split, place).setdefault(figure, {})[width] = round(value, 4)
        for split, point in points.items():
            curves[split].append(point)
    return curves


def train_seconds(lines: Iterable[Mapping[str, Any]], batch_size: int) -> float:
    """Seconds that the steps of a run took, without compiling and evaluating, over all processes that it was run in.

    Args:
      lines: of its metrics, in order.
      batch_size: images of a step.
    """
    seconds, before = 0.0, 0
    for line in lines:
        if "train/images_per_second" in line:
            seconds += (line["step"] - before) * batch_size / line["train/images_per_second"]
            before = line["step"]
    return seconds
