"""The tables and figures of the comparisons: from results made by hand, and the committed ones."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "reproduce" / "results"
COMMITTED = sorted(RESULTS.glob("*.jsonl"))
assert COMMITTED, "tests of nothing would be skipped"
PAGE = ROOT / "docs" / "reproducing.md"


def test_errors_over_seeds_and_their_differences(made, reproduce):
    comparisons = reproduce("comparisons")
    errors = comparisons.Errors(made)
    narrow, half, *_ = comparisons.compare_individual(errors, "mobilenet_v1")
    assert narrow.reference.values == {0: 20.0, 1: 23.0}
    assert (narrow.reference.mean, narrow.other.mean) == (21.5, 20.0)
    # Two values 3 apart: 1.5 from their mean each, squared and summed 4.5, over n - 1 = 1.
    assert narrow.reference.deviation == pytest.approx(math.sqrt(4.5))
    assert narrow.difference.values == {0: -2.0, 1: -1.0}
    assert narrow.difference.deviation == pytest.approx(math.sqrt(0.5))
    assert narrow.better_in == 2
    assert half.reference.values == half.difference.values == {}
    # Only one seed has a naive network.
    naive = comparisons.compare_methods(errors, "mobilenet_v1", "slimmable", "naive")
    assert [row.difference.values for row in naive] == [{0: 70.0}, {0: 54.0}, {0: 46.0}, {0: 38.0}]
    assert [row.better_in for row in naive] == [0, 0, 0, 0]
    assert naive[0].other.deviation is None
    assert errors.in_training("mobilenet_v1", "slimmable", 0.25).values == {0: 18.0, 1: 22.0}


def test_tables_and_figures_are_made_by_one_command(run_script, made, raw_results, tmp_path):
    path, page = tmp_path / "digits_tiny.jsonl", tmp_path / "docs" / "page.md"
    for result in made:
        raw_results.add_result(path, result)
    page.parent.mkdir()
    page.write_text(
        "before\n\n<!-- tables of digits_tiny: begin -->\nold\n<!-- tables of digits_tiny: end -->\nafter\n"
    )
    code, out, err = run_script("make_tables.py", f"--results={path}", f"--page={page}")
    assert code == 0, err
    assert "figure2.png, table3.png" in out
    tables = (tmp_path / "digits_tiny" / "tables.md").read_text()
    lines, text = tables.splitlines(), " ".join(tables.split())
    assert "5 runs on digits (`--scale=tiny`: 2 epochs of `train[:1280]`, errors on `test[:256]`, 16 pixels)" in text
    assert "which took 23 minutes on 2 cores of Some CPU, 6 minutes of it for the training steps, at commit " in text
    assert max(map(len, (line for line in lines if not line.startswith("|")))) <= 120
    # Table 3: means, sample deviations and number of seeds; paired differences; the paper's 46.9 - 50.2.
    assert "| mobilenet_v1, 0.25 | 21.50 ± 2.12 (2) | 20.00 ± 2.83 (2) | -1.50 ± 0.71 (2) | 2 of 2 | -3.3 |" in lines
    assert "| mobilenet_v1, 1 | - | 14.50 ± 0.71 (2) | - | - | -0.6 |" in lines
    # Figure 2: naive in training and validation, then switchable.
    assert "| 0.5 | 70.00 (1) | 70.00 (1) | 16.75 ± 1.06 (2) | 16.75 ± 1.06 (2) |" in lines
    assert "| naive | `model.batch_norm=shared` |" in lines
    assert "Table 4" not in tables
    for name in ("figure2", "table3"):
        assert (tmp_path / "digits_tiny" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    text = page.read_text()
    assert text.startswith("before\n\n<!-- tables of digits_tiny: begin -->\n\n5 runs")
    assert text.endswith("<!-- tables of digits_tiny: end -->\nafter\n")
    assert "old" not in text
    assert "](../digits_tiny/figure2.png)" in text
    page.write_text("nothing")
    code, _, err = run_script("make_tables.py", f"--results={path}", f"--page={page}")
    assert code == 2
    assert "has no place for the tables; write the lines `<!-- tables of digits_tiny: begin -->` and" in err


def test_the_errors_of_a_finished_grid_are_printed(run_script, made, make_result, raw_results, tmp_path):
    path = tmp_path / "digits_tiny.jsonl"
    for result in [*made, make_result("naive", 1, {"0.25": 90.0, "0.5": 70.0, "0.75": 61.0, "1": 53.0})]:
        raw_results.add_result(path, result)
    grid = ("--scale=tiny", "--dataset=digits", "--experiments=figure2", f"--workdir={tmp_path}")
    code, out, err = run_script("run.py", *grid)
    assert (code, err) == (0, "")
    title, *table, finished, _ = out.splitlines()
    assert title == "mobilenet_v1: top-1 error by width, %, means over seeds"
    rows = [line.strip("│ ").split(" │ ") for line in table if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["slimmable", "20.00", "16.75", "15.25", "14.50"],
        ["naive", "89.00", "70.00", "61.00", "52.50"],
    ]
    assert finished == f"finished runs: 4 of 4, in {path}"


def test_commits_are_told_as_one_or_several(reproduce, make_result):
    results = [make_result("slimmable", seed, {"1": 21.0}) for seed in range(3)]
    for commits, told in (
        ("aaa", "at commit a. "),
        ("aab", "at commits a and b. "),
        ("abc", "at commits a, b and c. "),
    ):
        of_commits = [{**result, "commit": commit} for result, commit in zip(results, commits, strict=True)]
        assert told in reproduce("report_text")._measured(of_commits)


# Sample deviations of two values: their distance over the square root of 2. 1 apart: .71, 2: 1.41, 3: 2.12.
def test_table_4_compares_the_widths_that_both_have(reproduce, make_result):
    eight = dict(zip(("0.25", "0.35", "0.45", "0.55", "0.65", "0.75", "0.85", "1"), range(30, 22, -1), strict=True))
    results = [
        make_result("slimmable", 0, {"0.25": 29.0, "0.5": 27.0, "0.75": 26.0, "1": 21.0}),
        make_result("slimmable", 1, {"0.25": 31.0, "0.5": 27.0, "0.75": 26.0, "1": 24.0}),
        make_result("slimmable_8", 0, eight),
        make_result("slimmable_8", 1, {**eight, "0.25": 33.0, "0.75": 24.0}),
    ]
    assert rows_of(table(reproduce, "_table_4", results)) == [
        ["0.25", "30.00 ± 1.41 (2)", "31.50 ± 2.12 (2)", "+1.50 ± 0.71 (2)", "0 of 2"],
        ["0.35", "-", "29.00 ± 0.00 (2)", "-", "-"],
        ["0.45", "-", "28.00 ± 0.00 (2)", "-", "-"],
        ["0.55", "-", "27.00 ± 0.00 (2)", "-", "-"],
        ["0.65", "-", "26.00 ± 0.00 (2)", "-", "-"],
        ["0.75", "26.00 ± 0.00 (2)", "24.50 ± 0.71 (2)", "-1.50 ± 0.71 (2)", "2 of 2"],
        ["0.85", "-", "24.00 ± 0.00 (2)", "-", "-"],
        ["1", "22.50 ± 2.12 (2)", "23.00 ± 0.00 (2)", "+0.50 ± 2.12 (2)", "1 of 2"],
    ]


def test_shared_scales_are_set_against_private_ones_with_calibrated_statistics(reproduce, make_result):
    results = [
        make_result("slimmable", 0, {"0.5": 10.0}, calibrated={"0.5": 14.0}),
        make_result("slimmable", 1, {"0.5": 11.0}, calibrated={"0.5": 16.0}),
        make_result("shared_affine", 0, {"0.5": 20.0}, calibrated={"0.5": 13.0}),
        make_result("shared_affine", 1, {"0.5": 23.0}, calibrated={"0.5": 14.0}),
    ]
    spreads = ["10.50 ± 0.71 (2)", "15.00 ± 1.41 (2)", "21.50 ± 2.12 (2)", "13.50 ± 0.71 (2)"]
    assert rows_of(table(reproduce, "_affine", results)) == [["0.5", *spreads, "-1.50 ± 0.71 (2)", "2 of 2"]]


def test_incremental_training_is_set_against_joint_and_individual(reproduce, make_result):
    results = [
        make_result("individual=0.25", 0, {"0.25": 19.0}),
        make_result("individual=0.25", 1, {"0.25": 22.0}),
        make_result("slimmable", 0, {"0.25": 20.0, "0.5": 15.0}),
        make_result("slimmable", 1, {"0.25": 23.0, "0.5": 15.0}),
        make_result("incremental", 0, {"0.25": 18.0, "0.5": 16.0}),
        make_result("incremental", 1, {"0.25": 23.0, "0.5": 16.0}),
    ]
    text = table(reproduce, "_incremental", results)
    assert "| joint | incremental | against joint | better | against individual | better |" in text
    assert rows_of(text) == [
        ["0.25", "20.50 ± 2.12 (2)", "21.50 ± 2.12 (2)", "20.50 ± 3.54 (2)",
         "-1.00 ± 1.41 (2)", "1 of 2", "+0.00 ± 1.41 (2)", "1 of 2"],
        ["0.5", "-", "15.00 ± 0.00 (2)", "16.00 ± 0.00 (2)", "+1.00 ± 0.00 (2)", "0 of 2", "-", "-"],
    ]  # fmt: skip


def test_the_other_recipes_of_mobilenet_v2_are_set_against_its_own(reproduce, make_result):
    errors = {
        "individual=0.35_quarter_rate": (14, 18),
        "slimmable": (24, 26),
        "quarter_rate": (17, 17),
        "private_tail": (25, 23),
    }
    results = [
        make_result(method, seed, {"0.35": error}, family="mobilenet_v2")
        for method, of_seeds in errors.items()
        for seed, error in enumerate(map(float, of_seeds))
    ]
    nothing = ["-", "-", "-", "-"]
    itself, _, _, narrowest, *others = rows_of(table(reproduce, "_mobilenet_v2", results))
    assert itself == [
        "0.35", "25.00 ± 1.41 (2)", "17.00 ± 0.00 (2)", "-8.00 ± 1.41 (2)", "2 of 2",
        "24.00 ± 1.41 (2)", "-1.00 ± 2.83 (2)", "1 of 2",
    ]  # fmt: skip
    assert narrowest == ["0.35", "16.00 ± 2.83 (2)", "17.00 ± 0.00 (2)", "+1.00 ± 2.83 (2)", "1 of 2"]
    assert others == [[width, *nothing] for width in ("0.5", "0.75", "1")]
    # Without one of them there is no table.
    assert table(reproduce, "_mobilenet_v2", results[:-2]) == ""


def table(reproduce, section, results):
    comparisons, report_text = map(reproduce, ("comparisons", "report_text"))
    return getattr(report_text, section)(comparisons.Errors(results))


def rows_of(text):
    """The cells of a Markdown table, without its two first lines."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return lines[2:]


def test_what_is_drawn_over_widths_is_the_means_with_their_deviations(reproduce, make_result):
    comparisons, figures = map(reproduce, ("comparisons", "figures"))
    errors = comparisons.Errors(
        [
            make_result("individual=0.5", 0, {"0.5": 19.0}),
            make_result("slimmable", 0, {"0.25": 20.0, "0.5": 15.0}, calibrated={"0.25": 30.0, "0.5": 25.0}),
            make_result("slimmable", 1, {"0.25": 23.0, "0.5": 15.0}, calibrated={"0.25": 34.0, "0.5": 27.0}),
            make_result("incremental", 0, {"0.25": 18.0, "0.5": 16.0}),
        ]
    )
    series = figures.series_of(errors, "mobilenet_v1", ("slimmable", "incremental"), "joint")
    assert drawn_over_widths(figures.plot_widths(series)) == {
        "joint": ([0.25, 0.5], [21.5, 15.0], [2.1213, 0.0]),
        "incremental": ([0.25, 0.5], [18.0, 16.0], [0.0, 0.0]),
        "individual": ([0.5], [19.0], [0.0]),
    }
    assert drawn_over_widths(figures.plot_table_3(errors)) == {
        "slimmable": ([0.25, 0.5], [21.5, 15.0], [2.1213, 0.0]),
        "individual": ([0.5], [19.0], [0.0]),
    }
    assert drawn_over_widths(figures.plot_widths(figures.affine_series(errors, "mobilenet_v1"))) == {
        "private, running statistics": ([0.25, 0.5], [21.5, 15.0], [2.1213, 0.0]),
        "private, calibrated statistics": ([0.25, 0.5], [32.0, 26.0], [2.8284, 1.4142]),
    }


def drawn_over_widths(figure):
    """By label the widths of a figure's only panel, its points, and half the lengths of its error bars."""
    (axes,) = figure.axes
    return {
        bars.get_label(): (
            # Methods are drawn some hundredths beside each other.
            [round(20 * x) / 20 for x in bars.lines[0].get_xdata()],
            list(bars.lines[0].get_ydata()),
            [round((top - bottom) / 2, 4) for (_, bottom), (_, top) in bars.lines[2][0].get_segments()],
        )
        for bars in axes.containers
    }


def test_a_method_has_one_colour_and_marker_in_all_pictures_and_no_other_has_them(reproduce, make_result):
    comparisons, figures = map(reproduce, ("comparisons", "figures"))
    methods = ("slimmable", "slimmable_8", "incremental", "shared_affine", "individual=0.25")
    errors = comparisons.Errors([make_result(m, 0, {"0.25": 9.0}, calibrated={"0.25": 8.0}) for m in methods])
    table_4, incremental = (figures.series_of(errors, "mobilenet_v1", ("slimmable", m)) for m in methods[1:3])
    affine = figures.affine_series(errors, "mobilenet_v1")
    drawn = [
        *styles_of(figures.plot_table_3(errors), ("slimmable", "individual")),
        *styles_of(figures.plot_widths(table_4), ("slimmable", "slimmable_8", "individual")),
        *styles_of(figures.plot_widths(incremental), ("slimmable", "incremental", "individual")),
        *styles_of(figures.plot_widths(affine), ("slimmable", "slimmable", "shared_affine", "shared_affine")),
    ]
    assert len({method for method, _ in drawn}) == len(set(drawn)) == len({style for _, style in drawn}) == 5
    dashes = [bars.lines[0].get_linestyle() for bars in figures.plot_widths(affine).axes[0].containers]
    assert dashes == ["-", "--", "-", "--"], "calibrated statistics"


def styles_of(figure, methods):
    """Methods with the colours and markers that they are drawn in, in their order."""
    lines = [bars.lines[0] for bars in figure.axes[0].containers]
    return [(method, (line.get_color(), line.get_marker())) for method, line in zip(methods, lines, strict=True)]


def test_the_curves_of_figure_2_are_means_between_the_smallest_and_the_largest(reproduce, made):
    comparisons, figures = map(reproduce, ("comparisons", "figures"))
    for result in made:
        for point in result["curves"]["train"]:
            point["epoch"] /= 2
        result["curves"]["eval"] = [{**point, "epoch": point["epoch"] + 1} for point in result["curves"]["eval"]]
    figure = figures.plot_curves(comparisons.Errors(made), "mobilenet_v1")
    training, validation = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["training error", "validation error"]
    assert training.get_xlim() == validation.get_xlim()
    for axes, epochs in ((training, [0.5, 1.0]), (validation, [1.5, 2.0])):
        lines = {line.get_label(): line for line in axes.lines}
        assert list(lines) == [f"{name}, {width}" for name in ("switchable", "naive") for width in (0.25, 0.5, 0.75, 1)]
        assert all(list(line.get_xdata()) == epochs for line in lines.values())
        # The mean of 18 and 22 in the last point, and one more in the point before.
        assert list(lines["switchable, 0.25"].get_ydata()) == [21.0, 20.0]
        assert list(lines["naive, 0.75"].get_ydata()) == [62.0, 61.0]
        heights = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == (18.0, 23.0)


def test_tables_without_results_are_refused(run_script, assert_refused, tmp_path):
    assert_refused(run_script("make_tables.py", f"--results={tmp_path / 'none.jsonl'}"), "has no results; make some")
    assert_refused(run_script("make_tables.py", "--results=none"), "--results=none has to be a file of JSON lines")
    (tmp_path / "part.jsonl").write_text('{"cell": "x"}\n')
    assert_refused(run_script("make_tables.py", f"--results={tmp_path / 'part.jsonl'}"), "part.jsonl is no result")


def test_a_table_of_another_family_has_its_picture(reproduce, made):
    comparisons, figures = map(reproduce, ("comparisons", "figures"))
    of_resnet = [{**result, "family": "resnet"} for result in made if result["method"] != "naive"]
    assert figures.drawable(comparisons.Errors(of_resnet)) == ["table3"]


def test_without_individual_networks_nothing_is_set_against_them(reproduce, made):
    of_figure_2 = [result for result in made if not result["method"].startswith("individual")]
    assert table(reproduce, "_table_3", of_figure_2) == ""
    assert reproduce("figures").drawable(reproduce("comparisons").Errors(of_figure_2)) == ["figure2"]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_tables_are_those_of_the_committed_results(reproduce, raw_results, path):
    comparisons, figures, report_text = map(reproduce, ("comparisons", "figures", "report_text"))
    results = raw_results.read_results(path)
    pictures = figures.drawable(comparisons.Errors(results))
    assert (path.with_suffix("") / "tables.md").read_text() == report_text.report(results, pictures, "") + "\n"
    text = PAGE.read_text()
    assert f"<!-- tables of {path.stem}: begin -->" in text
    of_page = report_text.report(results, pictures, f"../experiments/reproduce/results/{path.stem}/")
    assert report_text.with_tables(text, path.stem, of_page) == text


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_pictures_are_those_of_the_committed_results(reproduce, raw_results, path, tmp_path):
    """Pixel by pixel: the lock has one version of what draws, which brings its own letters."""
    comparisons, figures = map(reproduce, ("comparisons", "figures"))
    names = figures.plot_all(comparisons.Errors(raw_results.read_results(path)), tmp_path)
    assert {f"{name}.png" for name in names} == {picture.name for picture in path.with_suffix("").glob("*.png")}
    differing = [
        name
        for name in names
        if not np.array_equal(*(pixels_of(folder / f"{name}.png") for folder in (tmp_path, path.with_suffix(""))))
    ]
    assert not differing, f"python experiments/reproduce/make_tables.py --results={path.relative_to(ROOT)}"


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGBA"))


def grid_of(cells, path):
    """The whole grid of a file of results, its data set and its scale."""
    dataset, _, scale = path.stem.rpartition("_")
    return cells.grid(cells.EXPERIMENTS, cells.SCALES[scale].seeds), dataset, scale


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_results_have_the_configurations_that_the_grid_has_today(cells, raw_results, path):
    grid, dataset, scale = grid_of(cells, path)
    # Refuses what has another configuration.
    found = raw_results.finished(path, grid, dataset, scale)
    names = [result["cell"] for result in raw_results.read_results(path)]
    assert sorted(cell.name for cell in found) == sorted(names), "each of the grid, and once"
    assert {(result["dataset"], result["scale"]) for result in found.values()} == {(dataset, scale)}


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_results_are_of_the_whole_grid(cells, raw_results, path):
    grid, *where = grid_of(cells, path)
    found = raw_results.finished(path, grid, *where)
    assert [cell.name for cell in grid if cell not in found] == []
