"""Trains the networks that the paper compares, on small images: a grid of runs that is resumed where it was stopped.

python experiments/reproduce/run.py --scale=small                                 everything, for 2 CPU cores
python experiments/reproduce/run.py --scale=small --experiments=figure2           one comparison
python experiments/reproduce/run.py --scale=full --dataset=cifar10                everything, for a GPU
python experiments/reproduce/run.py --scale=tiny --dataset=digits                 to see that it works

Finished runs are skipped, an interrupted one (exit code 130 after Ctrl-C, 143 after SIGTERM) goes on from its last
checkpoint. Each leaves a line in runs/reproduce/DATASET_SCALE.jsonl. At the end their errors are printed;
make_tables.py --results=FILE makes tables and figures of all that is in there.
"""

import re
import time
from collections.abc import Mapping
from pathlib import Path

from absl import flags
from cells import EXPERIMENTS, SCALES, Cell, config_of, grid
from comparisons import Errors
from raw_results import Result, add_result, finished, given_path, remaining_seconds, results_path

from slimjax import cli
from slimjax.allocator import keep_freed_memory
from slimjax.errors import TERMINATED, UserError
from slimjax.paths import check_writable
from slimjax.training.locks import lock

_EXPERIMENTS = flags.DEFINE_list("experiments", list(EXPERIMENTS), "What to compare.")
_METHODS = flags.DEFINE_list("methods", [], "Only these of the compared methods, such as naive,individual=0.5.")
_DATASET = flags.DEFINE_string("dataset", "fashion_mnist", "fashion_mnist, cifar10, or, to try it, digits.")
_SCALE = flags.DEFINE_enum("scale", "small", list(SCALES), "How many images, epochs and seeds.")
_SEEDS = flags.DEFINE_list("seeds", [], "Such as 0,1; the scale's own if not given.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/reproduce", "Folder of the runs' checkpoints and logs.")
_RESULTS = flags.DEFINE_string("results", None, "File of results, JSON lines; DATASET_SCALE.jsonl in --workdir else.")
_QUIET = cli.define_quiet()


def main() -> int:
    """Runs what is not finished of the grid that the flags ask for; returns the exit code."""
    dataset, scale = _DATASET.value, _SCALE.value
    cells = grid(_EXPERIMENTS.value, _seeds(_SEEDS.value) or SCALES[scale].seeds, _METHODS.value)
    for cell in cells:
        config_of(cell, dataset, scale)
    everything = Path(_WORKDIR.value).expanduser()
    path = given_path(_RESULTS.value) if _RESULTS.value else results_path(everything, dataset, scale)
    workdir = everything / f"{dataset}_{scale}"
    check_writable(workdir, "--workdir")
    if _RESULTS.value:
        check_writable(path, "--results", is_file=True)
    # Of two grids the second would overwrite what the first one adds to the results.
    held = lock(workdir)
    done = finished(path, cells, dataset, scale)
    left = [cell for cell in cells if cell not in done]
    if left:
        keep_freed_memory()
        code = _run(left, done, path, workdir)
        if code is not None:
            return code
    if held:
        held.close()
    _print_errors({cell: done[cell] for cell in cells})
    print(f"finished runs: {len(cells)} of {len(cells)}, in {path}")
    print(f"tables and figures: python experiments/reproduce/make_tables.py --results={path}")
    return 0


def _seeds(values: list[str]) -> tuple[int, ...]:
    """The seeds of the flag; UserError unless they are whole numbers from 0 on."""
    if not all(value.isdecimal() for value in values):
        raise UserError(f"--seeds={','.join(values)} has to be whole numbers of at least 0, such as 0,1,2")
    return tuple(dict.fromkeys(map(int, values)))


def _run(left: list[Cell], done: dict[Cell, Result], path: Path, workdir: Path) -> int | None:
    """Runs cells and records them; returns the exit code if a signal has stopped one, else None."""
    # Imported once there is something to train: they need JAX and TensorFlow, which take seconds.
    from run_cell import run_cell

    from slimjax.training.progress import Progress, figures_line

    cli.use_compilation_cache()
    progress, began, total = Progress(enabled=not _QUIET.value), time.monotonic(), len(left) + len(done)
    dataset, scale = _DATASET.value, _SCALE.value
    for number, cell in enumerate(left):
        place = f"[{total - len(left) + number + 1}/{total}] {cell.name}"
        seconds_left = remaining_seconds(left[number:], done, dataset, scale)
        about = f", about {seconds_left / 60:.0f} min left" if seconds_left else ""
        progress.say(f"{place}: {(time.monotonic() - began) / 60:.0f} min elapsed{about}")
        result = run_cell(cell, dataset, scale, workdir, quiet=_QUIET.value)
        if isinstance(result, int):
            # Of a run alone SIGTERM is no failure; but the grid is not done.
            return result or TERMINATED
        add_result(path, result)
        done[cell] = result
        figures = {float(width): of for width, of in result["figures"].items()}
        progress.say(f"{place}: {result['seconds']:.0f} s, {figures_line(figures, 'top1_error', '%')}")
    return None


def _print_errors(results: Mapping[Cell, Result]) -> None:
    """A table for each family: the methods' errors by width, means over the seeds; individual networks are one row."""
    from slimjax.analysis.tables import errors_table, print_table

    errors = Errors(results.values())
    for family in dict.fromkeys(cell.family for cell in results):
        rows: dict[str, dict[float, float]] = {}
        for method in dict.fromkeys(cell.method for cell in results if cell.family == family):
            row = rows.setdefault(re.sub(r"=[\d.]+", "", method), {})
            row.update({width: errors.at(family, method, width).mean for width in errors.widths(family, method)})
        print_table(errors_table(f"{family}: top-1 error by width, %, means over seeds", rows))


if __name__ == "__main__":
    cli.run(main)
