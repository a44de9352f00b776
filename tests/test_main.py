"""The real program in real processes: training, real kills, evaluation, calibration, and every mistake in one line."""

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import termios
import time

import jax
import numpy as np
import pytest
from programs import SMALL, arrays_of, lines_of, wait_for

from slimjax.training.checkpoints import Checkpoints

ERROR_ROW = re.compile(r"│ +(0\.25|1) │ +[\d,]+ │ +[\d.]+ M │ +([\d.]+) │ +([\d.]+) │ +([\d.]+) │")


@pytest.fixture(scope="module")
def trained(run_program, tmp_path_factory):
    """A finished run: its workdir and what it printed."""
    workdir = tmp_path_factory.mktemp("trained")
    code, out, err = run_program(f"--workdir={workdir}", *SMALL)
    assert code == 0, err
    return workdir, out, err


def test_training_prints_figures_and_where_things_are(trained):
    workdir, out, err = trained
    rows = ERROR_ROW.findall(out)
    assert [row[0] for row in rows] == ["0.25", "1"]
    assert str(workdir / "checkpoints") in out
    assert str(workdir / "metrics.jsonl") in out
    assert "compiling the train step" in err
    assert re.search(r"training 80/80, 0:\d\d:\d\d elapsed, 0:00:00 left: loss 0\.25:", err)
    assert len(re.findall("^training ", err, re.MULTILINE)) <= 2, "nobody watches: a line now and then"
    assert "\x1b" not in out + err, "no terminal, no escape codes"
    assert "oneDNN" not in err
    assert list((workdir / "tensorboard").glob("events*"))


def test_metrics_are_written_per_width(trained):
    lines = lines_of(trained[0])
    train = [line for line in lines if "train/learning_rate" in line]
    assert [line["step"] for line in train] == list(range(10, 81, 10))
    for name in ("loss", "top1_error", "top5_error"):
        for width in ("0.25", "1"):
            assert f"train/{name}/width_{width}" in train[-1]
            assert [line["step"] for line in lines if f"eval/{name}/width_{width}" in line] == [40, 80]
    assert {"train/images_per_second", "train/gradient_norm", "train/parameter_norm"} <= train[-1].keys()
    # The cosine's value at the last step of each line, after 5 steps of warm-up to .1.
    expected = [0.05 * (1 + np.cos(np.pi * (line["step"] - 1 - 5) / 75)) for line in train]
    # The cosine is computed in float32: near the end 1 + cos loses digits.
    np.testing.assert_allclose([line["train/learning_rate"] for line in train], expected, rtol=1e-5, atol=1e-8)


def test_a_killed_run_goes_on_to_bit_identical_parameters(trained, start_program, tmp_path):
    uninterrupted, workdir = trained[0], tmp_path / "killed"
    process = start_program(f"--workdir={workdir}", *SMALL)
    wait_for((workdir / "checkpoints" / "20").exists, process)
    process.kill()
    process.communicate()
    process = start_program(f"--workdir={workdir}", *SMALL)
    seen = lines_of(workdir)[-1]["step"]
    wait_for(lambda: lines_of(workdir)[-1]["step"] > max(seen, 20), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert re.search(rf"resuming {workdir} from step \d+ of 80", err)
    stopped = int(re.search(r"SIGTERM: saved step (\d+)", err)[1])
    assert 20 < stopped < 80
    process = start_program(f"--workdir={workdir}", *SMALL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f"resuming {workdir} from step {stopped} of 80" in err
    for (path, value), (_, expected) in zip(arrays_of(workdir, 80), arrays_of(uninterrupted, 80), strict=True):
        np.testing.assert_array_equal(value, expected, err_msg=str(path))
    steps = [line["step"] for line in lines_of(workdir) if "train/learning_rate" in line]
    assert steps == sorted(set(steps)), "lines of steps that were done again are dropped"


def test_ctrl_c_saves_and_exits_with_130(start_program, tmp_path):
    process = start_program(f"--workdir={tmp_path}", *SMALL, "--config.num_train_steps=100000")
    wait_for((tmp_path / "checkpoints" / "20").exists, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    stopped = int(re.search(r"SIGINT: saved step (\d+)", err)[1])
    assert (tmp_path / "checkpoints" / str(stopped)).exists()
    assert "Traceback" not in err


def test_a_terminal_gets_a_live_bar_with_figures(start_program, tmp_path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    drawn = {"TERM": "xterm-256color"}
    steps = "--config.num_train_steps=20"
    process = start_program(f"--workdir={tmp_path}", *SMALL, steps, stderr=theirs, environment=drawn)
    os.close(theirs)
    shown = b""
    # Reading a terminal whose other end has been closed fails.
    with contextlib.suppress(OSError):
        while chunk := os.read(ours, 4096):
            shown += chunk
    os.close(ours)
    assert process.wait() == 0
    process.stdout.close()
    text = shown.decode()
    assert "\x1b[" in text, "the bar is redrawn in place"
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert re.search(r"training .*20/20 .*\s+loss 0\.25: [\d.]+  1: [\d.]+ \| \d+ images/s", text)
    assert re.search(r"compiling the train step +\S+ +0:00:\d\d", text)
    assert re.search(r"compiling the train step: [\d.]+ s", text)
    assert " left: " not in text, "that is for where there is no terminal"
    assert "compiling the train step ..." not in text


def test_a_finished_run_says_so_and_evaluates(trained, run_program):
    code, out, err = run_program(f"--workdir={trained[0]}", *SMALL, "--config.learning_rate=0.3")
    assert code == 0
    assert "is trained to step 80 already" in err
    assert "changed since, without effect on what is trained: learning_rate: " in err
    assert ERROR_ROW.findall(out) == ERROR_ROW.findall(trained[1])


def test_evaluation_needs_the_workdir_alone_and_agrees(trained, run_program):
    code, out, err = run_program(f"--workdir={trained[0]}", "--mode=eval", "--config.batch_size=50")
    assert code == 0, err
    assert ERROR_ROW.findall(out) == ERROR_ROW.findall(trained[1])


def test_evaluation_for_a_script_is_quiet_and_has_every_digit(trained, run_program):
    code, out, err = run_program(f"--workdir={trained[0]}", "--mode=eval", "--quiet", "--format=json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (report["model"], report["dataset"], report["eval_split"]) == ("mobilenet_v1_tiny", "digits", "test")
    assert (report["step"], report["checkpoints"]) == (80, str(trained[0] / "checkpoints"))
    last = next(line for line in lines_of(trained[0]) if line["step"] == 80 and "eval/loss/width_1" in line)
    for row, width in zip(report["widths"], ("0.25", "1"), strict=True):
        assert f"{row['width']:g}" == width
        for name in ("loss", "top1_error", "top5_error"):
            assert row[name] == pytest.approx(last[f"eval/{name}/width_{width}"], rel=1e-6)


def test_calibration_writes_a_workdir_that_evaluates(trained, run_program):
    # Neither says how the network was trained, nor has to agree with that.
    settings = ("--config.batch_size=32", "--config.optimizer.name=adam", "--config.optimizer.options=")
    code, out, err = run_program(f"--workdir={trained[0]}", "--mode=calibrate", *settings)
    assert code == 0, err
    calibrated = trained[0] / "calibrated"
    assert Checkpoints(calibrated).description(80) == Checkpoints(trained[0]).description(80)
    code, repeated, err = run_program(f"--workdir={trained[0]}", "--mode=calibrate", *settings)
    assert code == 0, err
    assert repeated == out, "a calibration replaces the one before"
    code, again, _ = run_program(f"--workdir={calibrated}", "--mode=eval", "--checkpoint=best")
    assert code == 0
    assert ERROR_ROW.findall(again) == ERROR_ROW.findall(out)
    before, after = (dict(arrays_of(workdir, 80)) for workdir in (trained[0], calibrated))
    for path in before:
        changed = (np.asarray(before[path]) != np.asarray(after[path])).any()
        if ".params" in str(path) or "'params'" in str(path):
            assert not changed, path
        if "'batch_stats'" in str(path):
            assert changed, path


def test_the_newest_and_the_best_checkpoints_stay(trained):
    steps = Checkpoints(trained[0]).steps()
    assert steps[-3:] == [40, 60, 80]
    errors = {
        line["step"]: np.mean([line[f"eval/top1_error/width_{w}"] for w in ("0.25", "1")])
        for line in lines_of(trained[0])
        if "eval/top1_error/width_1" in line
    }
    assert Checkpoints(trained[0]).find("best") == min(errors, key=lambda step: (errors[step], -step))


@pytest.fixture(params=["state", "description", "metrics"])
def truncated(trained, tmp_path, request):
    """A copy of the finished run in which files of the newest checkpoint have lost their second half."""
    workdir = tmp_path / "truncated"
    shutil.copytree(trained[0], workdir)
    for path in (workdir / "checkpoints" / "80" / request.param).rglob("*"):
        if path.is_file() and not path.name.startswith("_"):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return workdir


def test_a_truncated_checkpoint_is_refused_by_name(truncated, run_program, assert_refused):
    newest = truncated / "checkpoints" / "80"
    assert_refused(run_program(f"--workdir={truncated}", *SMALL), f"delete {newest}")


@pytest.mark.parametrize("truncated", ["state"], indirect=True)
def test_once_it_is_deleted_the_run_goes_on_from_the_one_before(truncated, run_program):
    shutil.rmtree(truncated / "checkpoints" / "80")
    code, _, err = run_program(f"--workdir={truncated}", *SMALL)
    assert code == 0
    assert "from step 60 of 80" in err


def test_only_one_process_writes_and_readers_touch_nothing(start_program, run_program, assert_refused, tmp_path):
    arguments = [f"--workdir={tmp_path}", *SMALL, "--config.num_train_steps=100000", "--config.keep_checkpoints=1000"]
    process = start_program(*arguments)
    try:
        wait_for((tmp_path / "checkpoints" / "20").exists, process)
        assert_refused(run_program(*arguments), f"another process writes to {tmp_path}; wait for it")
        # What another process is writing now looks like what a killed one has left.
        unfinished = tmp_path / "checkpoints" / "999999.orbax-checkpoint-tmp"
        unfinished.mkdir()
        code, _, err = run_program(f"--workdir={tmp_path}", "--mode=eval", "--checkpoint=20")
        assert code == 0, err
        assert unfinished.exists()
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once_even_while_compiling(start_program, tmp_path):
    never_compiled = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    process = start_program(f"--workdir={tmp_path}", "--config.model.name=mobilenet_v2", environment=never_compiled)
    shown = ""
    while "compiling the train step ..." not in shown:
        shown += process.stderr.readline()
    process.send_signal(signal.SIGINT)
    while "once more to end at once" not in shown:
        shown += process.stderr.readline()
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    # All widths of a whole MobileNet v2 take more than a minute to compile.
    assert time.monotonic() - began < 20
    assert process.returncode == 130
    assert "Traceback" not in shown + err


def test_what_is_not_part_of_the_network_may_change(trained, run_program):
    code, out, err = run_program(f"--workdir={trained[0]}", "--mode=eval", "--config.model.batch_norm_momentum=0.5")
    assert code == 0, err
    assert ERROR_ROW.findall(out) == ERROR_ROW.findall(trained[1])


def test_a_new_run_starts_from_anothers_weights(trained, run_program, tmp_path):
    code, _, err = run_program(
        f"--workdir={tmp_path}", f"--config.init_from={trained[0]}", *SMALL, "--config.num_train_steps=6"
    )
    assert code == 0
    assert f"starting from the weights of {trained[0]}" in err
    first = next(line for line in lines_of(tmp_path) if "train/learning_rate" in line)
    assert first["train/top1_error/width_1"] < 20, "a new network is wrong nine times out of ten"


def test_steps_are_traced_for_xprof(run_program, tmp_path):
    arguments = [*SMALL, "--config.step_programs=per_width", "--config.num_train_steps=12", "--profile_steps=3-4"]
    code, _, err = run_program(f"--workdir={tmp_path}", *arguments)
    assert code == 0, err
    (trace,) = (tmp_path / "tensorboard" / "plugins" / "profile").rglob("*.xplane.pb")
    assert f"trace: {tmp_path / 'tensorboard' / 'plugins' / 'profile'}" in err
    names = trace.read_bytes()
    # XLA's module names carry the function's: two steps of two widths and an update.
    assert names.count(b"jit_program") >= 6


@pytest.mark.slow
def test_moving_averages_are_saved_resumed_evaluated_and_handed_on(run_program, tmp_path):
    """The averages differ from the parameters, and what is told of the run, then and later, is told of them."""
    settings = [*SMALL, "--config.num_train_steps=40", "--config.ema_decay=0.5"]
    workdir = tmp_path / "averaged"
    for steps in (20, 40):
        code, out, err = run_program(f"--workdir={workdir}", *settings, f"--config.num_train_steps={steps}")
        assert code == 0, err
    assert "resuming" in err
    code, again, err = run_program(f"--workdir={workdir}", "--mode=eval")
    assert code == 0, err
    assert ERROR_ROW.findall(again) == ERROR_ROW.findall(out)
    stored = {jax.tree_util.keystr(path): np.asarray(value) for path, value in arrays_of(workdir, 40)}
    averages = {key.replace("['averaged']", ""): value for key, value in stored.items() if "['averaged']" in key}
    assert {key.split("'")[1] for key in averages} == {"params", "batch_stats"}
    assert any((stored[key] != value).any() for key, value in averages.items())
    code, calibrated, err = run_program(f"--workdir={workdir}", "--mode=calibrate", "--config.ema_decay=0.0")
    assert code == 0, err
    assert len(ERROR_ROW.findall(calibrated)) == 2

    other = tmp_path / "other"
    code, _, err = run_program(
        f"--workdir={other}", f"--config.init_from={workdir}", *SMALL, "--config.num_train_steps=6"
    )
    assert code == 0, err
    first = next(line for line in lines_of(other) if "train/learning_rate" in line)
    assert first["train/top1_error/width_1"] < 40, "a new network is wrong nine times out of ten"


@pytest.mark.slow
def test_the_demo_gets_every_width_above_95_percent(run_program, tmp_path):
    code, out, err = run_program(f"--workdir={tmp_path}")
    assert code == 0, err
    rows = re.findall(r"│ +([\d.]+) │ +[\d,]+ │ +[\d.]+ M │ +[\d.]+ │ +([\d.]+) │", out)
    assert [row[0] for row in rows] == ["0.25", "0.5", "0.75", "1"]
    assert all(float(error) < 5 for _, error in rows), out
    train = [line for line in lines_of(tmp_path) if "train/images_per_second" in line]
    assert train[-1]["step"] == 400
    # Every line has the speed since the line before; compiling and evaluating are not in it.
    steps = np.diff([line["step"] for line in train], prepend=0)
    seconds = sum(64 * steps / [line["train/images_per_second"] for line in train])
    assert seconds < 120


MISFITS = {
    "--workdir=T --mode=eval --checkpoint=7": "checkpoint='7' is not there; choose latest, best, or one of the steps",
    "--workdir=T --config.model.widths=(0.5,1.0)": "model.widths: (0.25, 1.0) in the checkpoint, (0.5, 1.0) here",
    "--workdir=T --config.model.name=mobilenet_v2_tiny": "model.name: mobilenet_v1_tiny in the checkpoint",
    "--workdir=T --config.model.widths=(0.25,1.0) --config.dataset.train_split=test": (
        "dataset.train_split: train in the checkpoint, test here"
    ),
    "--workdir=T --config.model.widths=(0.25,1.0) --config.batch_size=32": "batch_size: 64 in the checkpoint, 32 here",
}


@pytest.mark.parametrize("arguments", MISFITS)
def test_what_does_not_fit_the_checkpoints_is_one_line(trained, run_program, assert_refused, arguments):
    assert_refused(run_program(*arguments.replace("=T", f"={trained[0]}").split()), MISFITS[arguments])
