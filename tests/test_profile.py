"""The real command in real processes: golden numbers, every format, a trained run, and every mistake in one line."""

import csv
import json
import re
from functools import partial

import jax
import optax
import pytest
from slimjax.configs import default

from slimjax import create_model, profile_model
from slimjax.nn.plans import WidthPlan
from slimjax.training.checkpoints import Checkpoints, describe
from slimjax.training.state import initial_state

TIMED = ["--batch_sizes=1,2", "--repeats=2"]
GOLDEN = ["--config=s_mobilenet_v2", "--nolatency"]
SMALL = ["--num_classes=10", "--config.model.widths=(0.25,1.0)"]


@pytest.fixture(scope="module")
def run_profile(run_program):
    """Runs `python -m slimjax.profile` to the end: exit code, stdout, stderr."""
    return partial(run_program, module="slimjax.profile")


# config: millions of multiply-adds by width, parameters of the widest and of the whole network
ROWS = {
    "s_mobilenet_v1": ({0.25: 41.0, 0.5: 149.5, 0.75: 325.4, 1.0: 568.8}, 4_210_088 + 21_888, 4_264_808),
    "s_mobilenet_v2": ({0.35: 59.3, 0.5: 97.2, 0.75: 209.1, 1.0: 300.8}, 3_470_760 + 34_112, 3_556_456),
    # The facts' 37.6 are rounded from what is counted by hand in tests/models/test_golden.py.
    "s_shufflenet": ({0.5: 37.55, 1.0: 137.3, 2.0: 523.5}, 5_401_816 + 48_960, 5_487_496),
    "s_resnet50": ({0.25: 278.1, 0.5: 1052.4, 0.75: 2322.8, 1.0: 4089.3}, 25_503_912 + 53_120, 25_636_712),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_table_has_the_golden_numbers_without_any_data(run_profile, name):
    millions, of_widest, of_whole = ROWS[name]
    code, out, err = run_profile(f"--config=configs/{name}.py", "--nolatency")
    assert code == 0, err
    assert f"{name.removeprefix('s_')}: 1000 classes, 224x224 pixels, float32" in out
    rows = re.findall(r"│ +([\d.]+) │ +([\d,]+) │ +([\d,.]+) M │ +([\d.]+) MB │ +([\d.]+) MB │", out)
    assert [float(row[0]) for row in rows] == list(millions)
    assert [float(row[2].replace(",", "")) for row in rows] == pytest.approx(list(millions.values()), rel=1e-3)
    assert rows[-1][1] == f"{of_widest:,}"
    assert f"parameters of the whole slimmable network: {of_whole:,}" in out
    assert not err
    assert "\x1b" not in out, "no terminal, no escape codes"


def test_any_plan_of_widths_is_counted(run_profile, tmp_path):
    """Against the same plan given to the network in Python; a whole width among them counts as the uniform one."""
    model = create_model("mobilenet_v1_tiny", (0.5, 1.0), 10)
    narrow, wide = (dict(plan.features) for plan in model.resolved_plans())
    mixed = {layer: (narrow if index % 2 else wide)[layer] for index, layer in enumerate(wide)}
    (tmp_path / "plans.json").write_text(json.dumps({"1": wide, "0.7": mixed}))
    code, out, err = run_profile(f"--plans={tmp_path / 'plans.json'}", "--nolatency", "--format=json")
    assert code == 0, err
    found = {row["width"]: row["macs"] for row in json.loads(out)["widths"]}
    plans = (WidthPlan(0.7, tuple(mixed.items())), model.resolved_plans()[1])
    planned = create_model("mobilenet_v1_tiny", (0.7, 1.0), 10, plans=plans)
    assert found == {row.width: row.macs for row in profile_model(planned, 16)}
    assert found[1.0] == profile_model(model, 16)[1].macs > found[0.7] > profile_model(model, 16)[0].macs


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "has to be JSON such as"),
        ("[1]", "has to be JSON such as"),
        ('{"a": {}}', "has to be JSON such as"),
        ('{"0.5": {"stem": 8.5}}', "the plan of width 0.5 gives stem no whole number of channels"),
        ('{"0.5": {"stem": 8}}', "the plan of width 0.5 lacks the layers"),
    ],
)
def test_plans_that_are_none_are_refused(run_profile, assert_refused, tmp_path, content, message):
    (tmp_path / "plans.json").write_text(content)
    assert_refused(run_profile(f"--plans={tmp_path / 'plans.json'}", "--nolatency"), message)


def test_counting_allocates_nothing(run_profile):
    code, out, err = run_profile("--nolatency", "--num_classes=1000000000", "--config.model.widths=(0.5,)")
    assert code == 0, err
    # As with the digits' 10 classes, but for the classifier's 128 inputs and bias of each class.
    assert f"{37_162 + 129 * (10**9 - 10):,}" in out


def test_csv_has_plain_golden_numbers_that_its_layers_add_up_to(run_profile):
    code, out, err = run_profile(*GOLDEN, "--num_classes=1000", "--format=csv", "--layers")
    assert code == 0, err
    reader = csv.DictReader(out.splitlines())
    rows = list(reader)
    assert reader.fieldnames[:6] == ["width", "path", "kind", "input_shape", "output_shape", "params"]
    networks = [row for row in rows if row["kind"] == "network"]
    assert [float(row["width"]) for row in networks] == [0.35, 0.5, 0.75, 1.0]
    assert [int(row["macs"]) / 1e6 for row in networks] == pytest.approx([59.3, 97.2, 209.1, 300.8], rel=1e-3)
    widest = networks[-1]
    assert (widest["kernel_params"], widest["batch_norm_params"]) == ("3470760", "34112")
    assert widest["total_params"] == "3556456"
    for network in networks:
        layers = [row for row in rows if row["width"] == network["width"] and row["kind"] != "network"]
        assert len(layers) == 2 * 52 + 1
        for column in ("params", "macs", "activation_bytes"):
            assert sum(int(layer[column]) for layer in layers) == int(network[column])
    stem = next(row for row in rows if row["width"] == "0.35" and row["path"] == "stem/conv")
    assert (stem["kind"], stem["input_shape"], stem["output_shape"]) == ("Conv", "224x224x3", "112x112x16")


def test_json_has_latencies_of_widths_and_layers(run_profile, tmp_path):
    output = tmp_path / "profile.json"
    code, out, err = run_profile(*SMALL, *TIMED, "--layers", "--format=json", f"--output={output}")
    assert code == 0, err
    assert not out
    assert "compiling and timing 2 widths, batch 2: " in err
    assert "compiling and timing every layer by itself, batch 1: " in err
    profile = json.loads(output.read_text())
    assert (profile["model"], profile["num_classes"], profile["image_size"]) == ("mobilenet_v1_tiny", 10, 16)
    assert profile["machine"]["platform"] == "cpu"
    assert profile["machine"]["versions"]["jax"] == jax.__version__
    assert [row["width"] for row in profile["widths"]] == [0.25, 1.0]
    for row in profile["widths"]:
        assert row["params"] == sum(layer["params"] for layer in row["layers"])
        for timed in (row, *row["layers"]):
            assert [latency["batch_size"] for latency in timed["latency"]] == [1, 2]
            assert all(0 < latency["median_ms"] <= latency["p95_ms"] for latency in timed["latency"])


def test_the_table_has_latencies_too(run_profile):
    code, out, err = run_profile(*SMALL[:1], "--config.model.widths=(0.25,)", *TIMED, "--layers", "--image_size=8")
    assert code == 0, err
    assert out.count("batch 1") == out.count("batch 2") == 2 * 2, "median and p95 of the width and of its layers"
    assert "ms: median and 95th percentile of 2 calls on cpu" in out
    assert re.search(r"│ classifier +│ Dense +│ +64 │ +10 │ +650 │ +640 │ +40 B │( +[\d.]+ │){4}", out)
    lines = [line for line in out.splitlines() if line.startswith("│")]
    assert all(line.endswith("│") for line in lines), "no row is broken"


def test_a_trained_run_brings_its_network_and_classes(run_profile, tmp_path):
    config = default.get_config()
    config.model.widths = (0.5, 1.0)
    model = create_model("mobilenet_v1_tiny", (0.5, 1.0), 7)
    checkpoints = Checkpoints(tmp_path)
    state = jax.jit(lambda: initial_state(model, optax.sgd(0.1), 0, 16))()
    checkpoints.save(state, describe(config, 7, 3), {}, "top1_error")
    checkpoints.close()
    output = tmp_path / "profile.csv"
    code, out, err = run_profile(f"--workdir={tmp_path}", "--nolatency", f"--output={output}")
    assert code == 0, err
    assert not out
    rows = list(csv.DictReader(output.read_text().splitlines()))
    assert [row["width"] for row in rows] == ["0.5", "1.0"]
    assert int(rows[0]["total_params"]) == sum(leaf.size for leaf in jax.tree.leaves(state.params))
    code, _, err = run_profile(f"--workdir={tmp_path}", "--nolatency", "--config.model.widths=(0.1,)")
    assert code == 2
    assert "is of another network: model.widths: " in err


def test_a_detector_is_counted_at_the_area_of_its_images(run_profile):
    """128 x 128 pixels."""
    arguments = ("--config=configs/shapes_faster_rcnn.py", "--nolatency", "--num_classes=3", "--format=json")
    code, out, err = run_profile(*arguments)
    assert code == 0, err
    assert json.loads(out)["image_size"] == 128


MISTAKES = {
    "--format=xml": "table|csv|json",
    "--batch_sizes=1,0": "--batch_sizes=1,0 has to be numbers of at least 1, such as 1,8",
    "--batch_sizes=two": "--batch_sizes=two has to be numbers",
    "--repeats=0": "repeats=0 has to be at least 1",
    "--config=configs/nope.py": "--config=configs/nope.py: there is no such file",
    "--config.model.name=mobilenet": "model.name='mobilenet' is unknown",
    "--image_size=0": "image_size=0 has to be at least 1 pixel",
    "--image_size=1000000": "image_size=1000000 needs",
    "--num_classes=1000000000": "num_classes=1000000000 and widths=(0.25, 0.5, 0.75, 1.0) need",
    "--num_classes=0": "num_classes=0 has to be a whole number of at least 1",
    "--config.dataset.name=folder": "give the folder that holds train/CLASS/*.jpg; or give --num_classes",
    "--workdir=/nowhere": "/nowhere is no folder; train there first",
    "--workdir=/nowhere --config=configs/digits.py": "--config and --workdir exclude each other",
    "--workdir=": "--workdir= names nothing; give the folder of a trained run, or leave it out",
    "--workdir=/nowhere --num_classes=5": "--num_classes and --workdir exclude each other",
    "--output=/nowhere/profile.csv": "--output=/nowhere/profile.csv cannot be written",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_line(run_profile, assert_refused, arguments):
    assert_refused(run_profile(*arguments.split()), MISTAKES[arguments])
