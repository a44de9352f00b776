"""Tables (Markdown) and figures (PNG) of what run.py has recorded; nothing in them is written by hand.

python experiments/reproduce/make_tables.py --results=runs/reproduce/fashion_mnist_small.jsonl    of one's own runs
python experiments/reproduce/make_tables.py                                       of the recorded small set
python experiments/reproduce/make_tables.py --page=docs/reproducing.md            and into this page

They go to a folder beside the results. A page takes the tables between two lines, `<!-- tables of NAME: begin -->` and
`<!-- tables of NAME: end -->`, where NAME is that of the results, such as fashion_mnist_small.
"""

import os
from pathlib import Path

from absl import flags
from cells import DATASETS, SCALES
from comparisons import Errors
from raw_results import RECORDED, given_path, read_results, results_path
from report_text import check_place, report, with_tables

from slimjax import cli
from slimjax.errors import UserError
from slimjax.paths import check_writable

_DATASET = flags.DEFINE_enum("dataset", "fashion_mnist", list(DATASETS), "Whose results.")
_SCALE = flags.DEFINE_enum("scale", "small", list(SCALES), "Likewise.")
_RESULTS = flags.DEFINE_string("results", None, "File of results; the recorded one if not given.")
_PAGE = flags.DEFINE_string("page", None, "Markdown file that takes the tables as well.")


def main() -> int:
    """Writes what the flags ask for; returns the exit code."""
    recorded = results_path(RECORDED, _DATASET.value, _SCALE.value)
    path = recorded if _RESULTS.value is None else given_path(_RESULTS.value)
    results = read_results(path)
    if not results:
        mend = "make some with experiments/reproduce/run.py, and give --results=FILE, as it says at its end"
        raise UserError(f"{path} has no results; {mend}")
    page = Path(_PAGE.value) if _PAGE.value else None
    if page:
        check_place(page, path.stem)
    # matplotlib takes a second.
    from figures import plot_all

    folder = path.with_suffix("")
    check_writable(folder, "--results")
    folder.mkdir(exist_ok=True)
    pictures = plot_all(Errors(results), folder)
    (folder / "tables.md").write_text(f"{report(results, pictures, '')}\n")
    if page:
        relative = os.path.relpath(folder, page.parent)
        page.write_text(with_tables(page.read_text(), path.stem, report(results, pictures, f"{relative}/")))
    print(f"{folder}: tables.md and {', '.join(f'{name}.png' for name in pictures)}")
    return 0


if __name__ == "__main__":
    cli.run(main)
