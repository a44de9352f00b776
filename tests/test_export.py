"""The export command on a network that has learned, and the bundle that comes of it."""

import json
import re
import signal

import numpy as np
import pytest

import slimjax
from slimjax import SlimmableRuntime
from slimjax.training.checkpoints import Checkpoints

ROW = re.compile(r"│ +(0\.25|1) │ +[\d,]+ │ +[\d.]+ M │ +[\d.]+ │ +([\d.]+) │ +[\d.]+ │")
PROGRAM = re.compile(r"│ stablehlo │ +([\d.e-]+), +([\d.]+)% │ +([\d.e-]+), +([\d.]+)% │")


@pytest.fixture(scope="module")
def exported(finished_run, run_program, tmp_path_factory):
    """What the command printed, and its bundle, which takes colours of 0 to 255."""
    bundle = tmp_path_factory.mktemp("exported") / "bundle"
    code, out, err = run_program(
        f"--workdir={finished_run}", f"--output={bundle}", "--input=uint8", module="slimjax.export"
    )
    assert code == 0, err
    return out, bundle


def test_it_prints_figures_and_comparisons_and_how_to_run_the_bundle(exported):
    out, bundle = exported
    rows = ROW.findall(out)
    assert [row[0] for row in rows] == ["0.25", "1"]
    ((*checks,),) = PROGRAM.findall(out)
    assert all(float(difference) < 1e-4 for difference in checks[::2])
    assert all(float(agreement) > 98 for agreement in checks[1::2])
    assert f"bundle: {bundle} (" in out
    (call,) = re.findall(r"^run it: (.*)$", out, re.MULTILINE)
    assert eval(call, {"slimjax": slimjax, "images": np.zeros((2, 16, 16, 3), np.uint8)}).shape == (2, 10)
    manifest = json.loads((bundle / "manifest.json").read_text())
    for (_, error), entry in zip(rows, manifest["widths"], strict=True):
        assert f"{entry['figures']['top1_error']:.2f}" == error
    assert manifest["class_names"] == [str(digit) for digit in range(10)]


def test_the_runtime_makes_the_errors_that_were_measured(exported):
    """On the digits as scikit-learn has them, resized by nobody: 8 pixels repeated would be other images."""
    from slimjax.configs import digits

    from slimjax.tasks.classification.data import eval_batches

    config = digits.get_config()
    runtime = SlimmableRuntime.load(exported[1])
    wrong, total = dict.fromkeys(runtime.widths, 0), 0
    for batch in eval_batches(config.dataset, batch_size=config.batch_size, process_index=0, process_count=1):
        there = batch["mask"] > 0
        total += there.sum()
        for width in runtime.widths:
            logits = runtime.predict(batch["image"][there], width=width)
            wrong[width] += (logits.argmax(-1) != batch["label"][there]).sum()
    for entry in runtime.manifest.widths:
        assert 100 * wrong[entry.width] / total == pytest.approx(entry.figures["top1_error"], abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output=O"], "--workdir is missing; give the folder of a trained run"),
        (["--workdir=W"], "--output is missing; give a folder for the bundle"),
        (["--workdir=W", "--output=O", "--config=configs/digits.py"], "--config is not for exporting"),
        (["--workdir=W", "--output=O", "--widths=a"], "--widths=a has to be numbers"),
        (["--workdir=W", "--output=O", "--formats=caffe"], "--formats=caffe is unknown; choose among stablehlo"),
        (
            ["--workdir=W", "--output=gs://bucket/O"],
            "--output=gs://bucket/O is not on this machine; give a folder",
        ),
        (["--workdir=/nowhere", "--output=O"], "/nowhere is no folder; train there first"),
    ],
)
def test_mistakes_are_told_in_one_line(run_program, assert_refused, arguments, message):
    assert_refused(run_program(*arguments, module="slimjax.export"), message)


def test_what_is_there_already_is_left_alone(exported, finished_run, run_program, assert_refused):
    before = (exported[1] / "manifest.json").read_bytes()
    result = run_program(f"--workdir={finished_run}", f"--output={exported[1]}", module="slimjax.export")
    assert_refused(result, "is there already; give a new folder, or remove it")
    result = run_program(f"--workdir={finished_run}", "--output=O", "--widths=.3", module="slimjax.export")
    assert_refused(result, "--widths=0.3 is not one of this network's widths (0.25, 1.0)")
    assert (exported[1] / "manifest.json").read_bytes() == before
    assert Checkpoints(finished_run).steps()


def test_what_is_half_written_goes_when_it_is_told_to_end(finished_run, start_program, tmp_path):
    bundle = tmp_path / "bundle"
    # The second format takes long enough that it cannot be finished before the signal is there.
    arguments = [f"--workdir={finished_run}", f"--output={bundle}", "--formats=stablehlo,litert"]
    process = start_program(*arguments, module="slimjax.export")
    for line in process.stderr:
        if line.startswith("writing and comparing"):
            process.terminate()
            break
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())


@pytest.fixture
def benchmark(exported, run_program):
    """Runs the benchmark of the bundle."""
    return lambda *arguments: run_program(exported[1], *arguments, module="slimjax.benchmark")


def test_every_width_and_batch_size_of_a_bundle_is_timed(benchmark, exported, tmp_path):
    output, plot = tmp_path / "timings.json", tmp_path / "plot.svg"
    options = ("--backends=jax", "--batch_sizes=1,4", "--threads=1", "--repeats=3", "--format=json")
    code, out, err = benchmark(*options, f"--output={output}", f"--plot={plot}")
    assert (code, out) == (0, ""), err
    assert "jax stablehlo: 2 widths, batch 4" in err
    report = json.loads(output.read_text())
    assert (report["threads"], report["repeats"], report["machine"]["cores"]) == (1, 3, 1)
    manifest = json.loads((exported[1] / "manifest.json").read_text())
    errors = {entry["width"]: entry["figures"]["top1_error"] for entry in manifest["widths"]}
    assert [(row["batch_size"], row["width"]) for row in report["timings"]] == [(1, 0.25), (1, 1), (4, 0.25), (4, 1)]
    for row in report["timings"]:
        assert row["top1_error"] == errors[row["width"]]
        assert 0 < row["median_ms"] <= row["p95_ms"]
        assert row["images_per_second"] == pytest.approx(row["batch_size"] / row["median_ms"] * 1e3)
    drawn = plot.read_text()
    assert all(f"<!-- {text} -->" in drawn for text in ("batch 1", "batch 4", "top-1 error, %", "width 0.25"))


def test_timings_are_printed_as_a_table_or_csv(benchmark):
    code, table, err = benchmark("--backends=jax", "--repeats=1")
    assert code == 0, err
    assert len(re.findall(r"│ jax +│ stablehlo │ +1 │ +(?:0\.25|1) │", table)) == 2
    assert "ms: median and 95th percentile of 1 calls" in table
    code, rows, err = benchmark("--backends=jax", "--repeats=1", "--format=csv", "--quiet")
    assert (code, err) == (0, "")
    assert [row.split(",")[:4] for row in rows.splitlines()[1:]] == [
        ["jax", "stablehlo", "1", "0.25"],
        ["jax", "stablehlo", "1", "1.0"],
    ]


def test_a_full_disk_is_told_in_one_line(benchmark):
    code, out, err = benchmark("--backends=jax", "--repeats=1", "--quiet", "--output=/dev/full")
    assert (code, out) == (2, "")
    assert err == "error: --output=/dev/full cannot be written (No space left on device); give another place\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "BUNDLE is missing; give it behind the command"),
        (["B", "C"], "'C' is not a flag; flags begin with --"),
        (["/nowhere"], "/nowhere is no bundle: it has no manifest.json"),
        (["B", "--batch_sizes=0"], "--batch_sizes=0 has to be numbers of at least 1"),
        (["B", "--repeats=0"], "--repeats=0 has to be at least 1"),
        (["B", "--backends=caffe"], "--backends=caffe is unknown; choose among jax"),
        (["B", "--threads=1000"], "--threads=1000 has to be 1 to "),
        (["B", "--plot=plot.txt"], "--plot=plot.txt has to end in one of .pdf, .png, .svg"),
        (["B", "--output=/nowhere/file"], "--output=/nowhere/file cannot be written"),
    ],
)
def test_mistakes_in_timing_a_bundle_are_told_in_one_line(run_program, assert_refused, arguments, message):
    assert_refused(run_program(*arguments, module="slimjax.benchmark"), message)
