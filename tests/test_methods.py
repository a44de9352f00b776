"""The paper's comparison methods and others through the real program, and losses that stop being finite."""

import re

import numpy as np
import pytest
from programs import SMALL, arrays_of, lines_of, wait_for

from slimjax.training.checkpoints import Checkpoints


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_good_checkpoint(run_program, tmp_path):
    arguments = [*SMALL, "--config.schedule.name=multistep", "--config.schedule.boundaries_steps=(30,)"]
    code, _, err = run_program(f"--workdir={tmp_path}", *arguments, "--config.schedule.factor=1e30")
    assert code == 2
    assert re.search(r"error: the (loss of width (0.25|1)|norm of the [a-z ]+) is (nan|inf) at step 3\d", err)
    assert "the last good checkpoint is of step 20" in err
    assert "Traceback" not in err
    assert Checkpoints(tmp_path).steps() == [20]
    assert all(np.isfinite(value).all() for _, value in arrays_of(tmp_path, 20))


@pytest.mark.parametrize(
    ("method", "phases"),
    [
        (["--config.model.widths=(0.5,)"], 1),
        (["--config.switch_rule=incremental"], 2),
        pytest.param(
            ["--config.switch_rule=sandwich", "--config.model.widths=(0.25,0.5,0.75,0.9,1.0)"],
            1,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["--config.optimizer.name=adamw", "--config.optimizer.options=", "--config.learning_rate=0.01"],
            1,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["individual", "incremental", "sandwich", "adamw"],
)
def test_every_method_trains_through_the_program(run_program, tmp_path, method, phases):
    settings = ["--config.num_train_steps=24", "--config.log_every_steps=4"]
    # Repeated tuples add up, so the widths are given once.
    small = SMALL[1:] if any("model.widths" in argument for argument in method) else SMALL
    code, _, err = run_program(f"--workdir={tmp_path}", *small, *settings, *method)
    assert code == 0, err
    lines = [line for line in lines_of(tmp_path) if "train/learning_rate" in line]
    assert lines[-1]["step"] == 24 * phases

    first, last = lines[0], lines[24 // 4 - 1]
    learned = {name for name in first.keys() & last.keys() if name.startswith("train/loss/")}
    assert (
        learned >= {name for name in first if name.endswith(("width_0.25", "width_0.5")) and "/loss/" in name} != set()
    )
    assert all(last[name] < first[name] for name in learned)
    if phases == 2:
        assert "train/loss/width_0.25" in lines[5]
        assert "train/loss/width_1" not in lines[5]
        assert "train/loss/width_1" in lines[-1]
        assert "phase 1: training width 0.25, nothing is frozen" in err
        assert "phase 2: training width 1, what width 0.25 reads is frozen" in err
        assert lines[6]["train/learning_rate"] == pytest.approx(lines[0]["train/learning_rate"]), "it starts anew"


@pytest.mark.slow
def test_incremental_training_resumes_in_its_second_phase(start_program, run_program, tmp_path):
    settings = [*SMALL, "--config.switch_rule=incremental", "--config.num_train_steps=40"]
    code, _, err = run_program(f"--workdir={tmp_path / 'whole'}", *settings)
    assert code == 0, err
    process = start_program(f"--workdir={tmp_path / 'killed'}", *settings)
    wait_for((tmp_path / "killed" / "checkpoints" / "60").exists, process)
    process.kill()
    process.communicate()
    code, _, err = run_program(f"--workdir={tmp_path / 'killed'}", *settings)
    assert code == 0, err
    for (path, value), (_, expected) in zip(
        arrays_of(tmp_path / "killed", 80), arrays_of(tmp_path / "whole", 80), strict=True
    ):
        np.testing.assert_array_equal(value, expected, err_msg=str(path))
