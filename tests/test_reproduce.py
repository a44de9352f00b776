"""The grid that repeats the paper's comparisons: its runs, their raw results, and the tables made from them."""

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from programs import lines_of, wait_for

from slimjax import UserError, create_model
from slimjax.configuration import check_keys, plain
from slimjax.tasks.dataset_info import DatasetInfo
from slimjax.training.mesh import data_mesh
from slimjax.training.setup import create_training

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "experiments" / "reproduce"
PAGE = ROOT / "docs" / "reproducing.md"


@pytest.fixture(scope="module")
def reproduce():
    """Imports a module of the folder, as its scripts import each other."""
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def cells(reproduce):
    return reproduce("cells")


@pytest.fixture(scope="module")
def raw_results(reproduce):
    return reproduce("raw_results")


def leaves(config, prefix=""):
    for key, value in config.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_the_grid_runs_each_cell_once_and_all_of_a_seed_before_the_next(cells):
    names = [cell.name for cell in cells.grid(["figure2", "table3_mobilenet_v1"], (3, 5))]
    of_seed = ["slimmable", "naive", "individual=0.25", "individual=0.5", "individual=0.75", "individual=1"]
    assert names == [f"mobilenet_v1/{method}/seed_{seed}" for seed in (3, 5) for method in of_seed]
    everything = cells.grid(cells.EXPERIMENTS, (0,))
    # A slimmable network and its individual ones: 5, 5, 4 and 5; and six methods more.
    assert len(everything) == len(set(everything)) == 5 + 5 + 4 + 5 + 6
    assert all(experiment.runs[0][1] == "slimmable" for experiment in cells.EXPERIMENTS.values())


@pytest.mark.parametrize(("dataset", "scale"), [("digits", "tiny"), ("fashion_mnist", "small"), ("cifar10", "full")])
def test_compared_runs_differ_in_nothing_but_their_method(cells, dataset, scale):
    allowed = {
        "naive": {"model.batch_norm": "shared"},
        "shared_affine": {"model.batch_norm": "shared_affine"},
        "incremental": {"switch_rule": "incremental"},
        "private_tail": {"model.tail_bn": "private"},
        "slimmable_8": {"model.widths": [0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 1.0]},
    }
    for cell in cells.grid(cells.EXPERIMENTS, (0, 1)):
        config = cells.config_of(cell, dataset, scale)
        check_keys(config)
        create_model(**{key: value for key, value in config.model.items() if value is not None}, num_classes=10)
        reference = cells.config_of(cells.Cell(cell.family, "slimmable", cell.seed), dataset, scale)
        allowed["quarter_rate"] = {"learning_rate": reference.learning_rate / 4}
        of_reference = dict(leaves(plain(reference)))
        differing = {key: value for key, value in leaves(plain(config)) if value != of_reference[key]}
        if cell.method.startswith("individual="):
            assert differing == {"model.widths": [float(cell.method.removeprefix("individual="))]}
        else:
            assert differing == allowed.get(cell.method, {})
        assert config.seed == cell.seed


@pytest.mark.parametrize(("scale", "steps"), [("small", 2 * 19_200 // 64), ("full", 3 * 48_000 // 128)])
def test_every_cell_of_a_large_scale_trains_as_far_as_it_can_be_told_without_images(cells, scale, steps):
    splits = cells.SCALES[scale].train_split, cells.SCALES[scale].eval_split
    assert splits == {"small": ("train[:19200]", "test[:4000]"), "full": ("train[:48000]", "test")}[scale]
    info = DatasetInfo("fashion_mnist", 10, *{"small": (19_200, 4_000), "full": (48_000, 10_000)}[scale], ())
    for cell in cells.grid(cells.EXPERIMENTS, (0,)):
        training = create_training(cells.config_of(cell, "fashion_mnist", scale), data_mesh(jax.devices()[:1]), info)
        stages = len(training.task.model.widths) if cell.method == "incremental" else 1
        assert training.rule.num_steps == stages * steps


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--experiments=figure3"], "--experiments=figure3 is unknown; choose among figure2, table3_mobilenet_v1"),
        (
            ["--experiments=table4", "--methods=naive"],
            "--methods=naive is not compared in table4; choose among slimmab",
        ),
        (["--seeds=0,-1"], "--seeds=0,-1 has to be whole numbers of at least 0"),
        (["--dataset=mnist"], "--dataset=mnist --scale=small: the data sets are fashion_mnist, cifar10, digits"),
        (["--dataset=digits"], "--dataset=digits has too few images for --scale=small; it takes --scale=tiny"),
        (["--workdir=/dev/null/runs"], "--workdir=/dev/null/runs/fashion_mnist_small cannot be written"),
        (["--results=/nowhere/of.jsonl"], "--results=/nowhere/of.jsonl cannot be written"),
        (["--results=/tmp"], "--results=/tmp has to be a file of JSON lines whose name ends in .jsonl"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(assert_refused, arguments, message):
    assert_refused(run_script("run.py", *arguments), message)


def run_script(script, *arguments, environment=None):
    result = subprocess.run(
        [sys.executable, str(FOLDER / script), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": "", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return result.returncode, result.stdout, result.stderr


# Hand-made results: errors by width, of two seeds.
MADE = {
    ("individual=0.25", 0): {"0.25": 20.0},
    ("individual=0.25", 1): {"0.25": 23.0},
    ("slimmable", 0): {"0.25": 18.0, "0.5": 16.0, "0.75": 15.0, "1": 14.0},
    ("slimmable", 1): {"0.25": 22.0, "0.5": 17.5, "0.75": 15.5, "1": 15.0},
    ("naive", 0): {"0.25": 88.0, "0.5": 70.0, "0.75": 61.0, "1": 52.0},
}


@pytest.fixture
def made(cells):
    def point(epoch, errors):
        return {"step": int(10 * epoch), "epoch": epoch, "top1_error": errors, "loss": dict.fromkeys(errors, 1.0)}

    def result(method, seed, errors):
        cell = cells.Cell("mobilenet_v1", method, seed)
        figures = {width: {"loss": 0.5, "top1_error": error} for width, error in errors.items()}
        curve = [point(epoch, {width: error + 2 - epoch for width, error in errors.items()}) for epoch in (1.0, 2.0)]
        return {
            "cell": cell.name, "family": cell.family, "method": method, "seed": seed, "dataset": "digits",
            "scale": "tiny", "config": plain(cells.config_of(cell, "digits", "tiny")), "commit": "0123456789ab",
            "machine": {"platform": "cpu", "device": "cpu", "cores": 2, "processor": "Some CPU"},
            "resumed_from_step": 0, "seconds": 100.0 * len(errors) + seed, "train_seconds": 72.0,
            "figures": figures, "calibrated": None, "curves": {"train": curve, "eval": curve},
        }  # fmt: skip

    return [result(method, seed, errors) for (method, seed), errors in MADE.items()]


def test_results_are_kept_line_by_line_and_recognised(made, cells, raw_results, tmp_path):
    path = tmp_path / "results" / "digits_tiny.jsonl"
    grid = cells.grid(["figure2"], (0, 1))
    assert raw_results.finished(path, grid, "digits", "tiny") == {}
    for result in made:
        raw_results.add_result(path, result)
    assert raw_results.read_results(path) == made
    assert [json.loads(line) for line in path.read_text().splitlines()] == made
    done = raw_results.finished(path, grid, "digits", "tiny")
    assert [cell.name for cell in done] == [
        "mobilenet_v1/slimmable/seed_0", "mobilenet_v1/naive/seed_0", "mobilenet_v1/slimmable/seed_1"
    ]  # fmt: skip

    # The last slimmable network took 401 s; widths took 100, 100 and 100.25 s, of which the median counts for others.
    left = [cells.Cell("mobilenet_v1", method, 2) for method in ("slimmable", "individual=0.25")]
    assert raw_results.remaining_seconds(left, done, "digits", "tiny") == 401 + 100
    assert raw_results.remaining_seconds(left, {}, "digits", "tiny") == 0

    made[2]["config"]["learning_rate"] = 7.0
    path.write_text("".join(json.dumps(result) + "\n" for result in made))
    with pytest.raises(UserError, match="has mobilenet_v1/slimmable/seed_0 with another configuration than it has now"):
        raw_results.finished(path, grid, "digits", "tiny")
    path.write_text(json.dumps(made[0]) + '\n{"cell": "mobile')
    with pytest.raises(UserError, match=r"line 2 of .*digits_tiny.jsonl is no result"):
        raw_results.read_results(path)


def test_curves_and_seconds_come_from_the_lines_of_metrics(reproduce):
    run_cell = reproduce("run_cell")
    lines = [
        {"step": 10, "train/loss/width_0.5": 2.0, "train/top1_error/width_0.5": 75.12346,
         "train/top5_error/width_0.5": 9, "train/images_per_second": 320.0, "train/learning_rate": 0.1},
        {"step": 10, "eval/loss/width_0.5": 1.5, "eval/top1_error/width_0.5": 60.0},
        {"step": 15, "train/loss/width_0.5": 1.0, "train/top1_error/width_0.5": 50.0, "train/images_per_second": 640.0},
    ]  # fmt: skip
    assert run_cell.curves_of(lines, 20.0) == {
        "train": [
            {"step": 10, "epoch": 0.5, "loss": {"0.5": 2.0}, "top1_error": {"0.5": 75.1235}},
            {"step": 15, "epoch": 0.75, "loss": {"0.5": 1.0}, "top1_error": {"0.5": 50.0}},
        ],
        "eval": [{"step": 10, "epoch": 0.5, "loss": {"0.5": 1.5}, "top1_error": {"0.5": 60.0}}],
    }
    # 10 steps of 64 images at 320 a second, 5 at 640.
    assert run_cell.train_seconds(lines, 64) == pytest.approx(2.0 + 0.5)


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


def test_tables_and_figures_are_made_by_one_command(made, raw_results, tmp_path):
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
    lines = tables.splitlines()
    assert "5 runs on digits (`--scale=tiny`: 2 epochs of `train[:1280]`, errors on `test[:256]`, 16 pixels)" in tables
    assert "which took 23 minutes on 2 cores of Some CPU, of them 6 for the training steps," in tables
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


def test_tables_without_results_are_refused(assert_refused, tmp_path):
    assert_refused(run_script("make_tables.py", f"--results={tmp_path / 'none.jsonl'}"), "has no results; make some")
    assert_refused(run_script("make_tables.py", "--results=none"), "--results=none has to be a file of JSON lines")
    (tmp_path / "part.jsonl").write_text('{"cell": "x"}\n')
    assert_refused(run_script("make_tables.py", f"--results={tmp_path / 'part.jsonl'}"), "part.jsonl is no result")


def test_a_table_of_another_family_has_its_picture(reproduce, made):
    comparisons, figures = map(reproduce, ("comparisons", "figures"))
    of_resnet = [{**result, "family": "resnet"} for result in made if result["method"] != "naive"]
    assert figures.drawable(comparisons.Errors(of_resnet)) == ["table3"]


@pytest.mark.parametrize("path", sorted((FOLDER / "results").glob("*.jsonl")), ids=lambda path: path.stem)
def test_committed_tables_are_those_of_the_committed_results(reproduce, raw_results, path):
    comparisons, figures, report_text = map(reproduce, ("comparisons", "figures", "report_text"))
    results = raw_results.read_results(path)
    pictures = figures.drawable(comparisons.Errors(results))
    folder = path.with_suffix("")
    assert (folder / "tables.md").read_text() == report_text.report(results, pictures, "") + "\n"
    assert {f"{name}.png" for name in pictures} == {picture.name for picture in folder.glob("*.png")}
    text = PAGE.read_text()
    assert f"<!-- tables of {path.stem}: begin -->" in text
    of_page = report_text.report(results, pictures, f"../experiments/reproduce/results/{path.stem}/")
    assert report_text.with_tables(text, path.stem, of_page) == text


@pytest.fixture
def start_grid(start_program, tmp_path):
    """Starts the grid on the digits, with results and runs below `tmp_path`."""
    places = [f"--results={tmp_path / 'digits_tiny.jsonl'}", f"--workdir={tmp_path / 'runs'}"]
    settings = ["--scale=tiny", "--dataset=digits", "--seeds=0", *places]
    environment = {"PYTHONPATH": str(FOLDER)}
    return lambda *arguments: start_program(*settings, *arguments, module="run", environment=environment)


def finished_grid(process, tmp_path, count):
    """The results of a grid that goes through to its end, and what it said on the way."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert f"all {count} runs are finished: {tmp_path / 'digits_tiny.jsonl'}" in out
    results = [json.loads(line) for line in (tmp_path / "digits_tiny.jsonl").read_text().splitlines()]
    assert len(results) == count
    for result in results:
        # 1,280 images in batches of 64 for two epochs, evaluated twice in each.
        assert [point["step"] for point in result["curves"]["eval"]] == [10, 20, 30, 40]
        assert [point["epoch"] for point in result["curves"]["eval"]] == [0.5, 1.0, 1.5, 2.0]
        assert [point["step"] for point in result["curves"]["train"]] == list(range(5, 45, 5))
        last = lines_of(tmp_path / "runs" / "digits_tiny" / result["cell"])[-1]
        for width, figures in result["figures"].items():
            assert figures["top1_error"] == pytest.approx(last[f"eval/top1_error/width_{width}"], abs=1e-4)
            assert result["curves"]["eval"][-1]["top1_error"][width] == figures["top1_error"]
        assert result["machine"]["platform"] == "cpu"
        assert result["train_seconds"] > 0
    return results, err


@pytest.mark.slow
def test_a_killed_grid_goes_on_where_it_was(start_grid, tmp_path):
    """Killed without warning in its first run: that is resumed, the second trained, and nothing done a third time."""
    arguments = ["--experiments=table3_mobilenet_v1", "--methods=individual=0.25,individual=0.5"]
    workdir = tmp_path / "runs" / "digits_tiny" / "mobilenet_v1" / "individual=0.25" / "seed_0"
    process = start_grid(*arguments)
    wait_for((workdir / "checkpoints" / "10").exists, process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "digits_tiny.jsonl").exists()

    (narrow, half), err = finished_grid(start_grid(*arguments), tmp_path, 2)
    assert "[1/2] mobilenet_v1/individual=0.25/seed_0: 0 min elapsed" in err
    assert "[2/2] mobilenet_v1/individual=0.5/seed_0: " in err
    assert narrow["resumed_from_step"] in (10, 20, 30)
    assert half["resumed_from_step"] == 0
    assert (set(narrow["figures"]), set(half["figures"])) == ({"0.25"}, {"0.5"})
    assert narrow["calibrated"] is half["calibrated"] is None

    before = (tmp_path / "digits_tiny.jsonl").read_text()
    _, err = finished_grid(start_grid(*arguments), tmp_path, 2)
    assert not err
    assert (tmp_path / "digits_tiny.jsonl").read_text() == before


@pytest.mark.slow
def test_every_comparison_comes_out_of_a_grid(start_grid, tmp_path):
    methods = "slimmable,naive,shared_affine,incremental"
    arguments = ["--experiments=figure2,affine,incremental", f"--methods={methods}"]
    process = start_grid(*arguments)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    results = [json.loads(line) for line in (tmp_path / "digits_tiny.jsonl").read_text().splitlines()]
    assert [result["method"] for result in results] == ["slimmable", "naive", "shared_affine", "incremental"]
    widths = {"0.25", "0.5", "0.75", "1"}
    for result in results:
        assert set(result["figures"]) == widths
        assert set(result["calibrated"] or widths) == widths
        assert (result["calibrated"] is None) == (result["method"] in ("naive", "incremental"))
    # Every width takes the whole recipe.
    assert [point["step"] for point in results[-1]["curves"]["eval"]][-1] == 4 * 40
    code, _, err = run_script("make_tables.py", f"--results={tmp_path / 'digits_tiny.jsonl'}")
    assert code == 0, err
    pictures = {path.stem for path in (tmp_path / "digits_tiny").glob("*.png")}
    assert pictures == {"figure2", "table3", "affine", "incremental"}
