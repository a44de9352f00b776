"""The command that exports PyTorch checkpoints, in real processes, on a run that has learned something."""

import os

import jax
import numpy as np
import pytest

from slimjax import create_model, load_torch_checkpoint


@pytest.mark.torch
def test_a_run_goes_to_pytorch_and_back_bit_for_bit(finished_run, run_program, tmp_path):
    import orbax.checkpoint as ocp

    path, again = tmp_path / "file.pt", tmp_path / "again"
    code, out, err = run_program(f"--workdir={finished_run}", f"--output={path}", module="slimjax.export_torch")
    assert code == 0, err
    assert "mobilenet_v1_tiny, widths (0.25, 1.0), 10 classes" in out
    assert f"checkpoint: {path} (" in out
    variables = load_torch_checkpoint(create_model("mobilenet_v1_tiny", (0.25, 1.0), 10), path)
    (newest,) = sorted((finished_run / "checkpoints").iterdir(), key=lambda folder: int(folder.name))[-1:]
    with ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.restore(newest.absolute() / "state")
    trained = {"params": stored["params"], "batch_stats": stored["batch_stats"]}
    jax.tree.map(np.testing.assert_array_equal, variables, trained)

    config = ("--config=configs/digits.py", "--config.model.widths=(0.25,1.0)")
    code, _, err = run_program(*config, f"--checkpoint={path}", f"--workdir={again}", module="slimjax.import_torch")
    assert code == 0, err
    tables = []
    for folder in (finished_run, again):
        code, out, err = run_program(f"--workdir={folder}", "--mode=eval")
        assert code == 0, err
        tables.append([line for line in out.splitlines() if line.startswith("│")])
    assert tables[0] == tables[1]
    assert len(tables[0]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--output=O", "--workdir is missing; give the folder of a trained run"),
        ("--workdir=W", "--output is missing; give the file to write"),
        ("--workdir=W --output=tests", "--output=tests is there already; give a new file, or remove it"),
        ("--workdir=W --output=/nowhere/O", "--output=/nowhere/O cannot be written; give a file in a folder that"),
        ("--workdir=W --output=O --layout=timm", "value should be one of <slimmable|torchvision>"),
        ("--workdir=/nowhere --output=O", "/nowhere is no folder; train there first"),
    ],
)
def test_mistakes_are_told_in_one_line(run_program, assert_refused, arguments, message):
    assert_refused(run_program(*arguments.split(), module="slimjax.export_torch"), message)


def test_what_the_run_cannot_give_is_told_in_one_line(finished_run, run_program, assert_refused, tmp_path):
    for arguments, message in [
        ("--checkpoint=7", "checkpoint='7' is not there; choose latest, best, or one of the steps"),
        ("--layout=torchvision", "layout='torchvision' is none of MobileNetV1's; choose one of slimmable"),
    ]:
        given = (f"--workdir={finished_run}", f"--output={tmp_path / 'file.pt'}", arguments)
        assert_refused(run_program(*given, module="slimjax.export_torch"), message)
    assert not os.listdir(tmp_path)
