"""The grid that repeats the paper's comparisons: its runs, and their raw results."""

import json
import re
import signal
from pathlib import Path

import jax
import pytest
from programs import lines_of, wait_for

from slimjax import UserError, create_model
from slimjax.configuration import check_keys, leaves, plain
from slimjax.tasks.dataset_info import DatasetInfo
from slimjax.training.mesh import data_mesh
from slimjax.training.setup import create_training

FOLDER = Path(__file__).parents[2] / "experiments" / "reproduce"


def test_the_grid_runs_each_cell_once_and_all_of_a_seed_before_the_next(cells):
    names = [cell.name for cell in cells.grid(["figure2", "table3_mobilenet_v1"], (3, 5))]
    of_seed = ["slimmable", "naive", "individual=0.25", "individual=0.5", "individual=0.75", "individual=1"]
    assert names == [f"mobilenet_v1/{method}/seed_{seed}" for seed in (3, 5) for method in of_seed]
    everything = cells.grid(cells.EXPERIMENTS, (0,))
    # A slimmable network and its individual ones: 5, 5, 4 and 5; six methods more, one with individual ones too.
    assert len(everything) == len(set(everything)) == 5 + 5 + 4 + 5 + 6 + 4
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
        a_quarter = {"learning_rate": reference.learning_rate / 4}
        of_reference = dict(leaves(plain(reference)))
        differing = {key: value for key, value in leaves(plain(config)) if value != of_reference[key]}
        method = cell.method.removesuffix("_quarter_rate")
        if method.startswith("individual="):
            expected = {"model.widths": [float(method.removeprefix("individual="))]}
        else:
            expected = allowed.get(method, {})
        assert differing == expected | (a_quarter if cell.method.endswith("quarter_rate") else {})
        assert config.seed == cell.seed


@pytest.mark.parametrize(("scale", "steps"), [("small", 2 * 19_200 // 64), ("full", 2 * 48_000 // 128)])
def test_every_cell_of_a_large_scale_trains_as_far_as_it_can_be_told_without_images(cells, scale, steps):
    splits = cells.SCALES[scale].train_split, cells.SCALES[scale].eval_split
    assert splits == {"small": ("train[:19200]", "test[:4000]"), "full": ("train[:48000]", "test")}[scale]
    info = DatasetInfo("fashion_mnist", 10, *{"small": (19_200, 4_000), "full": (48_000, 10_000)}[scale], ())
    for cell in cells.grid(cells.EXPERIMENTS, (0,)):
        training = create_training(cells.config_of(cell, "fashion_mnist", scale), data_mesh(jax.devices()[:1]), info)
        phases = len(training.task.model.widths) if cell.method == "incremental" else 1
        assert training.rule.num_steps == phases * steps


def test_help_breaks_no_name_of_what_can_be_compared(run_script, cells):
    code, out, err = run_script("run.py", "--help")
    assert (code, err) == (0, "")
    for name in cells.EXPERIMENTS:
        assert re.search(rf"\b{name}\b[,.]", out), out


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
def test_mistakes_are_told_before_anything_is_loaded(run_script, assert_refused, arguments, message):
    assert_refused(run_script("run.py", *arguments), message)


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
    assert f"finished runs: {count} of {count}, in {tmp_path / 'digits_tiny.jsonl'}" in out
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
    process = start_grid(*arguments)
    wait_for((workdir / "checkpoints" / "20").exists, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert "SIGTERM: saving after this step" in err

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
def test_every_comparison_comes_out_of_a_grid(run_script, start_grid, tmp_path):
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
    assert pictures == {"figure2", "affine", "incremental"}, "table 3 needs individual networks"
