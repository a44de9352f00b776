"""The raw results: a file of JSON lines for every data set and scale, a line for every finished run."""

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cells import Cell, config_of

from slimjax.configuration import completed, plain
from slimjax.errors import UserError

RECORDED = Path(__file__).parent / "results"
"""Results that are kept with the code."""

SUFFIX = ".jsonl"

Result = dict[str, Any]
"""A line; `run_cell.py` says what is in it. Widths are keys such as `0.5`, as JSON has no numbers for keys."""

_KEYS = {"cell", "family", "method", "seed", "dataset", "scale", "config", "machine", "commit", "resumed_from_step"}
_KEYS |= {"seconds", "train_seconds", "figures", "calibrated", "curves"}


def results_path(folder: Path, dataset: str, scale: str) -> Path:
    """Where the results of a data set and a scale are, of those in a folder."""
    return folder / f"{dataset}_{scale}{SUFFIX}"


def given_path(results: str) -> Path:
    """The file of --results; UserError unless it is called as such files are."""
    path = Path(results).expanduser()
    if path.suffix != SUFFIX or path.is_dir():
        raise UserError(f"--results={results} has to be a file of JSON lines whose name ends in {SUFFIX}")
    return path


def read_results(path: Path) -> list[Result]:
    """The lines of a file, in the order in which they were written; none if there is no file.

    Raises:
      UserError: if a line cannot be read.
    """
    results: list[Result] = []
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], start=1):
        try:
            results.append(json.loads(line))
            if missing := _KEYS - results[-1].keys():
                raise ValueError(f"no {sorted(missing)}")
        except (ValueError, AttributeError):
            raise UserError(
                f"line {number} of {path} is no result; delete that line, and its run is evaluated anew"
            ) from None
    return results


def add_result(path: Path, result: Result) -> None:
    """Adds a line. It is there as a whole or not at all, whenever the process is killed."""
    before = path.read_text() if path.exists() else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    rewritten = path.with_suffix(".rewritten")
    rewritten.write_text(f"{before}{json.dumps(result)}\n")
    rewritten.replace(path)


def finished(path: Path, cells: Iterable[Cell], dataset: str, scale: str) -> dict[Cell, Result]:
    """The results that are there for some cells.

    Raises:
      UserError: if one of them comes from another configuration than its cell has now.
    """
    by_name = {result["cell"]: result for result in read_results(path)}
    found = {cell: by_name[cell.name] for cell in cells if cell.name in by_name}
    for cell, result in found.items():
        if completed(result["config"]) != plain(config_of(cell, dataset, scale)):
            raise UserError(
                f"{path} has {cell.name} with another configuration than it has now; move the file and the run's "
                "workdir away to train everything anew, or give another --results and --workdir"
            )
    return found


def remaining_seconds(left: list[Cell], done: Mapping[Cell, Result], dataset: str, scale: str) -> float:
    """What some cells will take, by those that are done; 0 if none is.

    A cell takes what the same one with another seed took; where there is none, the same for each of its widths as the
    others took for theirs.
    """
    of_same: dict[tuple[str, str], float] = {}
    of_width: list[float] = []
    for cell, result in done.items():
        if not result["resumed_from_step"]:
            of_same[cell.family, cell.method] = result["seconds"]
            of_width.append(result["seconds"] / len(result["figures"]))
    if not of_width:
        return 0.0
    return sum(
        of_same.get((cell.family, cell.method))
        or statistics.median(of_width) * len(config_of(cell, dataset, scale).model.widths)
        for cell in left
    )
