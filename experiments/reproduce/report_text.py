"""The tables of the comparisons as Markdown, each with a line that says what the paper claims."""

import functools
import re
import statistics
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cells import (
    EIGHT_SWITCHES,
    EXPERIMENTS,
    FAMILIES,
    INCREMENTAL,
    NAIVE,
    PRIVATE_TAIL,
    QUARTER_RATE,
    SHARED_AFFINE,
    SLIMMABLE,
    individual,
    quarter_rate,
)
from comparisons import (
    PUBLISHED_INDIVIDUAL,
    PUBLISHED_SLIMMABLE,
    V1,
    Comparison,
    Errors,
    Spread,
    compare_individual,
    compare_methods,
)
from raw_results import Result

from slimjax.configuration import completed, leaves
from slimjax.errors import UserError


def report(results: Sequence[Result], pictures: Sequence[str], folder: str) -> str:
    """All tables for which there are results.

    Args:
      results: of one data set and scale.
      pictures: names of the figures that were drawn, without `.png`.
      folder: where they are, seen from the page, with a slash at its end; empty for the same folder.

    Returns:
      Markdown, without a line break at its end.
    """
    errors = Errors(results)
    parts = [_measured(results)]
    sections = {
        "figure2": _figure_2,
        "table3": _table_3,
        "table4": _table_4,
        "affine": _affine,
        "incremental": _incremental,
        "mobilenet_v2": _mobilenet_v2,
    }
    for name, section in sections.items():
        if text := section(errors):
            picture = (
                [f"![{text.splitlines()[0].lstrip('# ')}, drawn from these tables]({folder}{name}.png)"]
                if name in pictures
                else []
            )
            parts += [text, *picture]
    return "\n\n".join(_wrapped(part) for part in [*parts, _recipes(results), _seconds(errors)])


def _wrapped(text: str) -> str:
    """Markdown with lines of at most 120 characters, but for headings, pictures and tables."""
    fill = functools.partial(textwrap.fill, width=120, break_long_words=False, break_on_hyphens=False)
    return "\n".join(line if line.startswith(("#", "!", "|")) else fill(line) for line in text.split("\n"))


def check_place(page: Path, name: str) -> None:
    """UserError unless a page has a place for the tables of a file of results."""
    if not page.is_file():
        raise UserError(f"--page={page} is no file; give a page of Markdown that has a place for the tables")
    if not _place(name).search(page.read_text()):
        begin, end = _mark(name, "begin"), _mark(name, "end")
        raise UserError(f"--page={page} has no place for the tables; write the lines `{begin}` and `{end}` into it")


def with_tables(text: str, name: str, tables: str) -> str:
    """A page's text with other tables in the place of those of a file of results."""
    return _place(name).sub(lambda match: f"{match[1]}\n{tables}\n\n{match[2]}", text)


def _mark(name: str, which: str) -> str:
    return f"<!-- tables of {name}: {which} -->"


def _place(name: str) -> re.Pattern[str]:
    return re.compile(f"({_mark(name, 'begin')}\n).*?({_mark(name, 'end')})", re.DOTALL)


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table whose columns after the first `left` are numbers."""
    rules = ["---"] * left + ["---:"] * (len(headers) - left)
    return "\n".join(f"| {' | '.join(row)} |" for row in (headers, rules, *rows))


def spread_text(spread: Spread, signed: bool = False) -> str:
    """Mean, standard deviation and number of seeds, such as `15.32 ± 0.41 (3)`."""
    if not spread.values:
        return "-"
    deviation = "" if spread.deviation is None else f" ± {spread.deviation:.2f}"
    return f"{spread.mean:{'+' if signed else ''}.2f}{deviation} ({len(spread.values)})"


def _measured(results: Sequence[Result]) -> str:
    """What was run where."""
    first = results[0]
    config = first["config"]
    machines = sorted({_machine(result["machine"]) for result in results})
    commits = sorted({result["commit"] for result in results})
    took, in_steps = (_minutes(sum(result[key] for result in results)) for key in ("seconds", "train_seconds"))
    data = config["dataset"]
    return (
        f"{len(results)} runs on {first['dataset']} (`--scale={first['scale']}`: {config['num_epochs']:g} epochs of "
        f"`{data['train_split']}`, errors on `{data['eval_split']}`, {data['image_size']} pixels), which took "
        f"{took} on {'; '.join(machines)}, {in_steps} of it for the training steps, at "
        f"{_commits_text(commits)}. Errors are top-1, in percent: mean ± standard deviation over the seeds, whose "
        "number is in brackets. Differences are between runs of the same seed; beside them, in how many of the seeds "
        "the method of the later column has the smaller error. In the pictures bars are standard deviations, shades "
        "reach from the lowest to the highest seed, and points of one width are drawn beside each other."
    )


def _minutes(seconds: float) -> str:
    number = round(seconds / 60)
    return f"{number} minutes" if number > 1 else f"{seconds:.0f} seconds"


def _commits_text(commits: Sequence[str]) -> str:
    *others, last = commits
    return f"commits {', '.join(others)} and {last}" if others else f"commit {last}"


def _machine(machine: dict[str, Any]) -> str:
    """The accelerator, or the processor with its cores."""
    processor = f"{machine['cores']} cores of {machine['processor']}"
    return processor if machine["platform"] == "cpu" else f"{machine['device']} ({processor})"


def _figure_2(errors: Errors) -> str:
    if not errors.of_runs(V1, NAIVE):
        return ""
    rows = [
        [
            f"{width:g}",
            *(spread_text(of(V1, m, width)) for m in (NAIVE, SLIMMABLE) for of in (errors.in_training, errors.at)),
        ]
        for width in FAMILIES[V1].widths
    ]
    headers = ("width", "naive: training", "naive: validation", "switchable: training", "switchable: validation")
    return _section(
        "Figure 2: naive and switchable batch norm (mobilenet_v1)",
        "The paper: with one batch norm for all widths training looks normal, and validation fails at every width "
        "(about 0.1 % accuracy); with switchable batch norm it does not.",
        markdown_table(headers, rows),
    )


def _table_3(errors: Errors) -> str:
    rows: list[list[str]] = []
    for family in FAMILIES:
        published = zip(PUBLISHED_INDIVIDUAL[family], PUBLISHED_SLIMMABLE[family], strict=True)
        compared = compare_individual(errors, family)
        if not any(row.reference.values for row in compared):
            continue
        for row, (alone, slimmable) in zip(compared, published, strict=True):
            if row.reference.values or row.other.values:
                rows.append([f"{family}, {row.width:g}", *_cells_of(row), f"{slimmable - alone:+.1f}"])
    if not rows:
        return ""
    headers = ("network, width", "individual", "slimmable", "difference", "slimmable better", "difference on ImageNet")
    return _section(
        "Table 3: individual and slimmable networks",
        "The paper: one slimmable network does about as well as the individual ones, and better at the narrow widths "
        "of MobileNet v1, ShuffleNet and ResNet-50. Its differences are in the last column. The last batch norm of "
        "MobileNet v2 is one for all widths, as in the published networks.",
        markdown_table(headers, rows),
    )


def _table_4(errors: Errors) -> str:
    widths = errors.widths(V1, EIGHT_SWITCHES)
    if not widths:
        return ""
    shared = {row.width: row for row in compare_methods(errors, V1, SLIMMABLE, EIGHT_SWITCHES)}
    rows = [[f"{width:g}", *_cells_of(shared.get(width) or _alone(errors, EIGHT_SWITCHES, width))] for width in widths]
    return _section(
        "Table 4: 4 and 8 switches (mobilenet_v1)",
        "The paper: 8 switches do as well as 4 (.25: 47.6 against 46.9, .75: 30.2 against 30.5, 1: 28.4 against 28.5).",
        markdown_table(("width", "4 switches", "8 switches", "difference", "8 better"), rows),
    )


def _affine(errors: Errors) -> str:
    widths = errors.widths(V1, SHARED_AFFINE)
    if not widths:
        return ""
    columns = [(m, figures) for m in (SLIMMABLE, SHARED_AFFINE) for figures in ("figures", "calibrated")]
    rows = []
    for width in widths:
        spreads = [errors.at(V1, method, width, figures) for method, figures in columns]
        row = Comparison(width, spreads[1], spreads[3])
        rows.append([f"{width:g}", *map(spread_text, spreads), *_cells_of(row)[2:]])
    headers = ("width", "private, running", "private, calibrated", "shared, running", "shared, calibrated")
    return _section(
        "Private and shared scale and bias (mobilenet_v1)",
        "The paper keeps scale and bias private to each width; US-Nets share them and calibrate the statistics, which "
        "are private in both. The difference is between the two with calibrated statistics.",
        markdown_table((*headers, "difference", "shared better"), rows),
    )


def _incremental(errors: Errors) -> str:
    rows = []
    for row in compare_methods(errors, V1, SLIMMABLE, INCREMENTAL):
        alone = Comparison(row.width, errors.at(V1, individual(row.width), row.width), row.other)
        rows.append([f"{row.width:g}", spread_text(alone.reference), *_cells_of(row), *_cells_of(alone)[2:]])
    if not rows:
        return ""
    headers = ("width", "individual", "joint", "incremental", "against joint", "better", "against individual", "better")
    return _section(
        "Incremental and joint training (mobilenet_v1)",
        "The paper: a width whose narrower part was trained before and is frozen does worse than an individual network "
        "(MobileNet v2 at .5: error 39.0 against 34.6), so widths are trained jointly. The narrowest is trained alone.",
        markdown_table(headers, rows),
    )


def _mobilenet_v2(errors: Errors) -> str:
    quarter, private = (compare_methods(errors, "mobilenet_v2", SLIMMABLE, m) for m in (QUARTER_RATE, PRIVATE_TAIL))
    if not quarter or not private:
        return ""
    headers = ("width", "slimmable", "a quarter of the rate", "difference", "better")
    against_itself = markdown_table(
        (*headers, "private last batch norm", "difference", "better"),
        [
            [f"{row.width:g}", *_cells_of(row), *_cells_of(other)[1:]]
            for row, other in zip(quarter, private, strict=True)
        ],
    )
    against_individual = markdown_table(
        ("width", "individual", "slimmable", "difference", "slimmable better"),
        [[f"{row.width:g}", *_cells_of(row)] for row in compare_individual(errors, "mobilenet_v2", quarter_rate)],
    )
    return _section(
        "MobileNet v2 with another recipe",
        "Not of the paper: the slimmable network with a quarter of the learning rate, and with a last batch norm for "
        "each width; differences are to the one of table 3.",
        f"{against_itself}\n\nIndividual and slimmable networks, both with a quarter of the learning rate:\n\n"
        f"{against_individual}",
    )


def _section(title: str, claim: str, table: str) -> str:
    return f"### {title}\n\n{claim}\n\n{table}"


def _alone(errors: Errors, method: str, width: float) -> Comparison:
    """A width that the reference does not have."""
    return Comparison(width, Spread({}), errors.at(V1, method, width))


def _cells_of(row: Comparison) -> list[str]:
    """Reference, other, their difference, and in how many seeds the other is better."""
    difference = row.difference
    better = f"{row.better_in} of {len(difference.values)}" if difference.values else "-"
    return [spread_text(row.reference), spread_text(row.other), spread_text(difference, signed=True), better]


def _recipes(results: Sequence[Result]) -> str:
    """In which settings the runs differ from the slimmable network of the same family and seed."""
    # Of an older version's results, keys that have been added since have their default.
    settings = {result["cell"]: dict(leaves(completed(result["config"]))) for result in results}
    slimmable = {(r["family"], r["seed"]): settings[r["cell"]] for r in results if r["method"] == SLIMMABLE}
    differing: dict[str, set[str]] = {}
    for result in results:
        reference = slimmable.get((result["family"], result["seed"]))
        if reference and result["method"] != SLIMMABLE:
            own = settings[result["cell"]]
            changed = {f"`{key}={value}`" for key, value in own.items() if value != reference[key]}
            differing.setdefault(result["method"], set()).update(changed)
    table = markdown_table(("method", "settings"), [[m, ", ".join(sorted(of))] for m, of in differing.items()], left=2)
    return (
        "### What differs between compared runs\n\nThe settings of each run's configuration that are not those of the "
        "slimmable network of the same family and seed. All others are equal, the number of epochs among them; "
        f"incremental training takes it for each width.\n\n{table}"
    )


def _seconds(errors: Errors) -> str:
    """What the runs took."""
    rows = []
    for family, method in dict.fromkeys(run for experiment in EXPERIMENTS.values() for run in experiment.runs):
        if runs := errors.of_runs(family, method):
            seconds = statistics.mean(run["train_seconds"] for run in runs)
            commits = ", ".join(sorted({run["commit"] for run in runs}))
            rows.append([f"{family}, {method}", commits, f"{len(runs)}", f"{seconds:.0f}"])
    return (
        "### Time\n\nSeconds of the training steps of a run, without compiling and evaluating; mean over the seeds. "
        "Runs at different commits were run at different times, and other programs may have slowed them more or less."
        "\n\n" + markdown_table(("run", "commit", "seeds", "s"), rows, left=2)
    )
