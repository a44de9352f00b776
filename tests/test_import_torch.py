"""The command that imports PyTorch checkpoints, in real processes: import, then whatever a trained workdir can do."""

import re

import jax
import numpy as np
import pytest

from slimjax import create_model, load_torch_checkpoint
from slimjax.interop.assignments import assignments_of
from slimjax.interop.layouts import layouts_of

WIDTHS = (0.25, 1.0)
CONFIG = ("--config=configs/digits.py", "--config.model.widths=(0.25,1.0)")
# A rate at which nothing moves shows which weights a run has started from.
SHORT = ("--config.num_train_steps=1", "--config.schedule.warmup_steps=0", "--config.learning_rate=1e-12")
ROW = re.compile(r"│ +(0\.25|1) │ +[\d,]+ │ +[\d.]+ M │ +([\d.]+) │ +([\d.]+) │ +([\d.]+) │")


def checkpoint_file(folder, num_classes=10, name="mobilenet_v1_tiny"):
    """Random weights of a network, the digits' if not told, under PyTorch's names, and the same as variables."""
    import torch

    model = create_model(name, WIDTHS, num_classes)
    rng = np.random.default_rng(0)
    state = {
        entry: torch.from_numpy(rng.uniform(0.01, 1, assignment.entry_shape).astype(np.float32))
        for assignment in assignments_of(model, layouts_of(model)[0])
        for entry in assignment.entries
    }
    path = folder / f"{num_classes}_classes.pt"
    torch.save({"model": state}, path)
    return path, load_torch_checkpoint(model, path)


def weights_of(workdir, step):
    """Parameters of a checkpoint, read with plain orbax."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(workdir.absolute() / "checkpoints" / str(step) / "state")["params"]


def assert_close(given, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), given, dict(expected))


@pytest.fixture(scope="module")
def imported(run_program, tmp_path_factory):
    """The workdir of an imported checkpoint, its file, its variables and what was printed."""
    folder = tmp_path_factory.mktemp("imported")
    path, variables = checkpoint_file(folder)
    workdir = folder / "workdir"
    arguments = (*CONFIG, f"--checkpoint={path}", f"--workdir={workdir}")
    code, out, err = run_program(*arguments, module="slimjax.import_torch")
    assert code == 0, err
    return workdir, path, variables, out


@pytest.mark.torch
def test_importing_says_what_and_where(imported):
    workdir, path, variables, out = imported
    assert f"imported {path}: mobilenet_v1_tiny, widths (0.25, 1.0), 10 classes" in out
    assert f"{workdir}/checkpoints/0 (evaluate it with --mode=eval --workdir={workdir})" in out
    assert_close(weights_of(workdir, 0), variables["params"])


@pytest.mark.torch
def test_an_imported_checkpoint_evaluates(imported, run_program):
    code, out, err = run_program(f"--workdir={imported[0]}", "--mode=eval")
    assert code == 0, err
    assert [row[0] for row in ROW.findall(out)] == ["0.25", "1"]


@pytest.mark.torch
def test_an_imported_checkpoint_calibrates(imported, run_program):
    code, _, err = run_program(f"--workdir={imported[0]}", "--mode=calibrate", "--config.calibration_batches=2")
    assert code == 0, err
    assert_close(weights_of(imported[0] / "calibrated", 0), imported[2]["params"])


@pytest.mark.torch
def test_another_run_starts_from_it(imported, run_program, tmp_path):
    workdir = imported[0]
    code, _, err = run_program(f"--workdir={tmp_path}", f"--config.init_from={workdir}", *CONFIG, *SHORT)
    assert code == 0, err
    assert f"starting from the weights of {workdir}" in err
    assert_close(weights_of(tmp_path, 1), imported[2]["params"])


@pytest.mark.torch
def test_training_in_its_workdir_goes_on_from_it(run_program, tmp_path):
    path, variables = checkpoint_file(tmp_path)
    workdir = tmp_path / "workdir"
    code, _, err = run_program(*CONFIG, f"--checkpoint={path}", f"--workdir={workdir}", module="slimjax.import_torch")
    assert code == 0, err
    code, _, err = run_program(f"--workdir={workdir}", *CONFIG, *SHORT)
    assert code == 0, err
    assert f"resuming {workdir} from step 0 of 1" in err
    assert_close(weights_of(workdir, 1), variables["params"])


@pytest.mark.torch
def test_a_detector_starts_from_it(run_program, tmp_path):
    path, variables = checkpoint_file(tmp_path, name="resnet_pyramid_tiny")
    network, detector = (*CONFIG, "--config.model.name=resnet_pyramid_tiny"), tmp_path / "detector"
    arguments = (*network, f"--checkpoint={path}", f"--workdir={tmp_path / 'imported'}")
    code, _, err = run_program(*arguments, module="slimjax.import_torch")
    assert code == 0, err
    start = (f"--config.init_from={tmp_path / 'imported'}", "--config.dataset.train_split=validation")
    config = ("--config=shapes_faster_rcnn", CONFIG[1])
    code, _, err = run_program(*config, *start, *SHORT, f"--workdir={detector}", seconds=900)
    assert code == 0, err
    assert f"starting from the weights of {tmp_path / 'imported'}" in err
    backbone = {name: block for name, block in variables["params"].items() if name != "classifier"}
    assert_close(weights_of(detector, 1)["backbone"], backbone)


COMPLETE = "--config=configs/digits.py --checkpoint=/nowhere.pt --workdir=W"
MISTAKES = {
    "": "--config is missing; give the network's",
    "--config=configs/digits.py": "--checkpoint is missing; give the file",
    "--config=configs/digits.py --checkpoint=/nowhere.pt": "--workdir is missing; give the folder",
    COMPLETE: "checkpoint=/nowhere.pt: there is no such file",
    f"{COMPLETE} --config.model.name=mobilnet_v1": "did you mean",
    f"{COMPLETE} --config.learning_rate=-1": "learning_rate=-1.0 has to be finite and positive",
    f"{COMPLETE} --config.keep_checkpoints=0": "keep_checkpoints=0 has to be",
    f"{COMPLETE} --config.keep_checkpoints=-1": "keep_checkpoints=-1",
    f"{COMPLETE} --config.platform=tpu": "platform='tpu' was asked",
    f"{COMPLETE} --config.batch_size=0": "batch_size=0 has to be at least 1",
    f"{COMPLETE} --config.schedule.name=foo": "schedule.name='foo' is unknown",
    COMPLETE.replace("digits", "s_faster_rcnn"): "PyTorch checkpoints are read of classifiers; import the backbone",
    COMPLETE.replace("/nowhere.pt", "/"): "checkpoint=/: it is no file; give one",
}
MISFITS = {
    "--config=configs/digits.py --checkpoint=FILE --workdir=W": "batch norms of 2 widths, but the model has 4",
    "--config=configs/s_mobilenet_v2.py --checkpoint=FILE --workdir=W --config.model.widths=(0.25,1)": "of MobileNetV2",
    "--config=configs/digits.py --checkpoint=configs/digits.py --workdir=W": "configs/digits.py cannot be read",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(run_program, assert_refused, tmp_path, arguments):
    given = arguments.replace("=W", f"={tmp_path / 'new'}").split()
    assert_refused(run_program(*given, module="slimjax.import_torch"), MISTAKES[arguments])
    assert not (tmp_path / "new").exists()


@pytest.mark.torch
@pytest.mark.parametrize("arguments", MISFITS)
def test_a_file_that_does_not_fit_is_one_line_and_leaves_nothing(
    imported, run_program, assert_refused, tmp_path, arguments
):
    given = arguments.replace("FILE", str(imported[1])).replace("=W", f"={tmp_path / 'new'}").split()
    assert_refused(run_program(*given, module="slimjax.import_torch"), MISFITS[arguments])
    assert not (tmp_path / "new").exists()


@pytest.mark.torch
def test_a_workdir_with_checkpoints_is_left_alone(imported, run_program, assert_refused):
    workdir, path, _, _ = imported
    result = run_program(*CONFIG, f"--checkpoint={path}", f"--workdir={workdir}", module="slimjax.import_torch")
    assert_refused(result, f"{workdir} has checkpoints of the steps [0] already; give a new --workdir")
