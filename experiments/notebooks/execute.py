"""Executes the notebooks beside it, each from a new folder, and writes them with what they print and draw.

    python experiments/notebooks/execute.py                            all of them, in place
    python experiments/notebooks/execute.py quickstart --output DIR    one, into another folder
    python experiments/notebooks/execute.py finetune --set START=RUN   with a value of a cell set otherwise

Ends with exit code 1 and the error of the cell at the first that fails; nothing is written of that notebook.
"""

import argparse
import hashlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from slimjax.cli import told
from slimjax.errors import UserError
from slimjax.paths import check_writable

HERE = Path(__file__).parent
NAMES = ("quickstart", "finetune", "deploy")

CELL_SECONDS = 600
"""After which a cell counts as hung."""


def execute(notebook: Any, folder: Path, name: str) -> None:
    """Runs all cells in a folder, in place, and tidies what they leave.

    Args:
      notebook: as nbformat reads it.
      folder: the working directory.
      name: of the notebook, for the progress on stderr.

    Raises:
      CellExecutionError: if a cell fails.
    """
    count = sum(cell.cell_type == "code" for cell in notebook.cells)
    began = time.monotonic()

    def say(cell: Any, **_: Any) -> None:
        if cell.cell_type == "code":
            number = 1 + [each for each in notebook.cells if each.cell_type == "code"].index(cell)
            print(f"{name}: cell {number} of {count}, {time.monotonic() - began:.0f} s", file=sys.stderr)

    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
        # What a kernel warns of, such as how it is connected, is nobody's who reads the notebook.
        extra_arguments=["--log-level=ERROR"],
        on_cell_start=say,
    )
    client.execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = _tidy(output.text, folder)
    # Which Python it was says nothing of the notebook.
    notebook.metadata.pop("language_info", None)
    notebook.metadata["executed_cells"] = digest_of(notebook)


def digest_of(notebook: Any) -> str:
    """A digest of what the code cells say, by which a notebook tells that its outputs are of these cells."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def _tidy(text: str, folder: Path) -> str:
    """Lines end as in files, and nothing is said of where on this machine it was."""
    return text.replace("\r\n", "\n").replace(f"{folder}/", "")


def _set_values(notebook: Any, values: Mapping[str, str]) -> None:
    """Sets strings that cells assign at the beginning of a line, as somebody would who fills the notebook in."""
    for name, value in values.items():
        assignment = re.compile(rf'^{name} = ".*?"', re.MULTILINE)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code" and assignment.search(cell.source)]
        if not cells:
            raise UserError(f"--set {name}={value}: no cell begins a line with {name} = and a string; see the notebook")
        for cell in cells:
            cell.source = assignment.sub(f'{name} = "{value}"', cell.source)


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} has to be NAME=TEXT")
    return name, value


def main() -> int:
    """Runs what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all where none is given")
    parser.add_argument("--output", type=Path, default=HERE, help="folder to write to; in place where it is not given")
    assigned = "set a string that a cell assigns"
    parser.add_argument("--set", action="append", default=[], type=_setting, metavar="NAME=TEXT", help=assigned)
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"{', '.join(sorted(unknown))}: there is no such notebook; choose among {', '.join(NAMES)}")
    check_writable(arguments.output, "--output")
    for name in arguments.names or NAMES:
        notebook = nbformat.read(HERE / f"{name}.ipynb", as_version=4)
        _set_values(notebook, dict(arguments.set))
        with tempfile.TemporaryDirectory() as folder:
            try:
                execute(notebook, Path(folder).resolve(), name)
            except CellExecutionError as error:
                print(error, file=sys.stderr)
                return 1
        arguments.output.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, arguments.output / f"{name}.ipynb")
        print(f"{name}: written to {arguments.output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(told(main))
