"""Every family through the whole program, on the real digits: all widths learn, and one shared batch norm fails."""

import json
import re

import pytest

from slimjax import MODELS

SETTINGS = ["--config.num_train_steps=250", "--config.eval_every_steps=250"]
# At the digits' own rate, .1, its first steps go so far (a loss of 8) that rounding decides whether it recovers.
LEARNING_RATES = {"mobilenet_v2_tiny": 0.02}
ERROR_ROW = re.compile(r"│ +([\d.]+) │ +[\d,]+ │ +[\d.]+ M │ +[\d.]+ │ +([\d.]+) │")
TINY = sorted(name for name in MODELS if name.endswith("_tiny"))


# The widths' statistics part further where steps are larger: at .1 the worst errs on three digits of four or five.
NAIVE_LEARNING_RATES = LEARNING_RATES | {"mobilenet_v1_tiny": 0.2, "shufflenet_tiny": 0.2}
# Its narrowest width, of 2,104 parameters, needs more steps to look as if it learned.
NAIVE_STEPS = {"shufflenet_tiny": ["--config.num_train_steps=500", "--config.eval_every_steps=500"]}


def settings(name, rates):
    rate = [f"--config.learning_rate={rates[name]}"] if name in rates else []
    return [f"--config.model.name={name}", *SETTINGS, *rate]


def errors_of(out):
    """Top-1 error in evaluation, %, by width."""
    return {float(width): float(error) for width, error in ERROR_ROW.findall(out)}


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_every_width_learns(run_program, tmp_path, name):
    code, out, err = run_program(f"--workdir={tmp_path}", *settings(name, LEARNING_RATES))
    assert code == 0, err
    errors = errors_of(out)
    assert sorted(errors) == [0.25, 0.5, 0.75, 1.0]
    assert all(error < 30 for error in errors.values()), f"guessing is wrong 90 times of 100: {errors}"


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_naive_training_looks_normal_and_fails_in_evaluation(run_program, tmp_path, name):
    naive = "--config.model.batch_norm=shared"
    code, out, err = run_program(
        f"--workdir={tmp_path}", naive, *settings(name, NAIVE_LEARNING_RATES), *NAIVE_STEPS.get(name, [])
    )
    assert code == 0, err
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if "train/learning_rate" in line)
    for width in ("0.25", "0.5", "0.75", "1"):
        assert last[f"train/top1_error/width_{width}"] < 30, "with the batch's own statistics it seems to learn"
    errors = errors_of(out)
    print(f"{name}: {errors}")
    assert max(errors.values()) > 80, f"guessing is wrong 90 times of 100: {errors}"
