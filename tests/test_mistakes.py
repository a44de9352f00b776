"""Every mistake of a command line is one line that names the value, and nothing is left behind."""

import os
from importlib import import_module
from pathlib import Path

import pytest
from slimjax.configs import default

from slimjax.configuration import check_keys
from slimjax.errors import UserError
from slimjax.paths import check_writable
from slimjax.training.mesh import check_batch_size

MISTAKES = {
    "": "--workdir is missing; give the folder",
    "--workdir=W --config.lerning_rate=3": "has no key 'lerning_rate' (did you mean 'learning_rate'",
    "--workdir=W --config.foo.bar=1": "the configuration has no key 'foo.bar'",
    "--workdir=W --config.dataset.nme=x": "has no key 'dataset.nme' (did you mean 'dataset.name'",
    "--workdir=W --config=": "--config= names nothing; give a file or a name",
    "--workdir=W --config=digits --config s_resnet50": "--config is given twice; give one",
    "--workdir=W --config=digit": "--config=digit is neither a file nor one of cifar10, default, digits,",
    "--workdir=W --config=configs/nope.py": "--config=configs/nope.py: there is no such file",
    "--workdir=W --config=configs/nope.py:naive": "--config=configs/nope.py: there is no such file",
    "--workdir=W --config=configs/digits.py:naive": "configs/digits.py:naive: this file takes nothing behind a colon",
    "--workdir=W --config=configs/s_resnet50.py:naif": "configs/s_resnet50.py:naif: method 'naif' is unknown; behind",
    "--workdir=W --config s_resnet50:naif": "--config=s_resnet50:naif: method 'naif' is unknown; behind",
    "--workdir=W --config=configs/s_shufflenet.py:individual=0.4": "0.4 is not one of this row's widths (0.5, 1.0,",
    "--workdir=W --config=s_resnet50:individual=0.5": "'imagenet2012' is not in",
    "--workdir=W --config.learning_rate=fast": "--config.learning_rate=fast has to be a number",
    "--workdir=W --config.batch_size=abc": "--config.batch_size=abc has to be a whole number",
    "--workdir=W --config.learning_rate=-1": "learning_rate=-1.0 has to be finite and positive",
    "--wrkdir=W": "Did you mean: workdir",
    "--workdir=W --mode=evl": "train|eval|calibrate",
    "--workdir=W train": "'train' is not a flag",
    "--workdir=W --config.platform=tpu": "platform='tpu' was asked for, but JAX finds only 'cpu'",
    "--workdir=W --config.platform=npu": "platform='npu' is unknown; choose one of cpu, gpu, tpu",
    "--workdir=W --config.batch_size=0": "batch_size=0 has to be at least 1",
    "--workdir=W --config.accumulate_steps=0": "accumulate_steps=0 has to be at least 1",
    "--workdir=W --config.accumulate_steps=3": "batch_size=64 does not divide over 1 devices in accumulate_steps=3",
    "--workdir=W --config.ema_decay=1.0": "ema_decay=1.0 has to be between 0.0 and",
    "--workdir=s3://bucket/run": "--workdir=s3://bucket/run: s3:// is not known; give a folder, or gs://BUCKET/FOLDER",
    "--workdir=W --checkpoint=best": "--checkpoint is for --mode=eval and calibrate",
    "--workdir=W --config.optimizer.options=a={[]:1}": "has to read like 'momentum=0.9, nesterov=True'",
    "--workdir=W --profile_steps=5": "--profile_steps=5 has to be the first and the last step to trace, such as 10-20",
    "--workdir=W --profile_steps=9-400": "--profile_steps=9-400 goes beyond the 400 steps of this run",
    "--workdir=W --config.model.widths=(0.5,0.25)": "strictly ascending",
    "--workdir=W --config.model.name=mobilenet": "model.name='mobilenet' is unknown (did you mean",
    "--workdir=W --config.model.tail_bn=shared": "mobilenet_v1_tiny has no option tail_bn",
    "--workdir=W --config.dataset.name=digitz": "dataset.name='digitz' does not exist (did you mean 'digits'?)",
    "--workdir=W --config=configs/s_mobilenet_v2.py": "'imagenet2012' is not in",
    "--workdir=W --config.optimizer.name=sdg": "optimizer.name='sdg' is no optimiser of optax (did you mean 'sgd'",
    "--workdir=W --config.optimizer.options=momentun=1": "momentun is no argument of optax.sgd",
    "--workdir=W --config.schedule.name=cosin": "schedule.name='cosin' is unknown",
    "--workdir=W --config.switch_rule=some": "switch_rule='some' is unknown; choose one of all, sandwich, incremental",
    "--workdir=W --config.step_programs=two": "step_programs='two' is unknown",
    "--workdir=W --config.dtype=float8": "dtype='float8' is unknown",
    "--workdir=W --config.num_train_steps=0": "ask for no step",
    "--workdir=W --config.num_epochs=inf": "num_epochs=inf: give a finite duration of at least 0",
    "--workdir=W --config.schedule.warmup_epochs=nan": "warmup_epochs=nan: give a finite duration of at least 0",
    "--workdir=W --config.batch_norm_group_size=3": "batch_norm_group_size=3 does not divide 1 devices",
    "--workdir=W --config.init_from=/nowhere": "init_from='/nowhere': /nowhere is no folder; train there first",
    "--workdir=W --config.init_classifier=False": "init_classifier=False says nothing alone; give --config.init_from",
    "--workdir=W --mode=eval --output=/nowhere/file": "--output=/nowhere/file cannot be written; give a file",
    "--workdir=W --config.optimizer.clip_norm=-1": "optimizer.clip_norm=-1.0 has to be finite and at least 0.0",
    "--workdir=W --config.optimizer.name=lbfgs --config.optimizer.options=": "optimizer.name='lbfgs' with options=",
    "--workdir=W --config.eval_every_steps=0": "eval_every_steps or eval_every_epochs comes to 0 steps",
    "--workdir=W --mode=eval": "is no folder; train there first, or give another --workdir",
    "--workdir=W --mode=eval --config=s_mobilenet_v2": "is no folder; train there first, or give another --workdir",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_line(run_program, assert_refused, tmp_path, arguments):
    assert_refused(run_program(*arguments.replace("=W", f"={tmp_path / 'new'}").split()), MISTAKES[arguments])
    assert not (tmp_path / "new").exists(), "a run that never started leaves nothing"


OF_ONES_OWN = {
    "def get_config(:": "SyntaxError: invalid syntax (line 1)",
    "\ndef get_config():\n    return learning_rate": "NameError: name 'learning_rate' is not defined (line 3)",
    "config = {}": "it has no function get_config(), which returns the configuration",
    "def get_config():\n    pass": "its get_config() returns NoneType, not a ConfigDict",
}


@pytest.mark.parametrize("code", OF_ONES_OWN)
def test_a_mistake_in_a_configuration_of_ones_own_is_one_line(run_program, assert_refused, tmp_path, code):
    (tmp_path / "mine.py").write_text(code)
    arguments = (f"--workdir={tmp_path / 'new'}", f"--config={tmp_path / 'mine.py'}")
    assert_refused(run_program(*arguments), f"mine.py: {OF_ONES_OWN[code]}")


def test_a_reader_that_has_enough_is_no_error(start_program):
    """As `python -m slimjax.main --help | head -1`, for any length of what is printed."""
    reads, writes = os.pipe()
    os.close(reads)
    process = start_program("--help", stdout=writes)
    os.close(writes)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (141, "")


def test_a_batch_that_does_not_divide_is_one_line(run_program, assert_refused, tmp_path):
    message = "batch_size=60 does not divide over 8 devices; the nearest that does is 64"
    with pytest.raises(UserError, match=message):
        check_batch_size(60, 8)
    check_batch_size(64, 8)
    eight = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    workdir = tmp_path / "new"
    assert_refused(run_program(f"--workdir={workdir}", "--config.batch_size=60", environment=eight), message)
    assert not workdir.exists()


@pytest.mark.parametrize("mode", ["train", "calibrate"])
def test_a_workdir_below_a_file_is_one_line(run_program, assert_refused, tmp_path, mode):
    (tmp_path / "file").touch()
    workdir = tmp_path / "file" / "below"
    refused = run_program(f"--workdir={workdir}", f"--mode={mode}", "--config=configs/digits.py")
    assert_refused(refused, f"--workdir={workdir} cannot be written: {workdir.parent} is a file; give a folder that is")


def test_what_can_be_written_is_told_from_what_cannot(tmp_path, monkeypatch):
    file, link = tmp_path / "file", tmp_path / "link"
    file.touch()
    link.symlink_to(tmp_path / "nowhere")
    for folder in (file, file / "below", file / "far" / "below"):
        with pytest.raises(UserError, match=f"--workdir={folder} cannot be written: {file} is a file; give a folder"):
            check_writable(folder, "--workdir")
    with pytest.raises(UserError, match=f"--workdir={link} cannot be written; give a folder"):
        check_writable(link, "--workdir")
    for output, reason in ((tmp_path, f": {tmp_path} is a folder"), (tmp_path / "absent" / "file", "")):
        with pytest.raises(UserError, match=f"--output={output} cannot be written{reason}; give a file"):
            check_writable(output, "--output", is_file=True)
    with pytest.raises(UserError, match=r"cannot be written: .* is a file; give a file in a folder"):
        check_writable(file / "below", "--output", is_file=True)
    check_writable(tmp_path / "new" / "below", "--workdir")
    for output in (file, tmp_path / "new"):
        check_writable(output, "--output", is_file=True)
    assert not (tmp_path / "new").exists(), "looking makes nothing"
    # Root, as whom tests may run, can write everywhere.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UserError, match="cannot be written"):
        check_writable(tmp_path, "--workdir")


def test_every_configuration_has_exactly_the_keys_of_the_default():
    shared = ("__init__", "published")
    names = sorted(path.stem for path in Path(default.__file__).parent.glob("*.py") if path.stem not in shared)
    assert {"default", "digits", "fashion_mnist", "cifar10", "s_mobilenet_v1", "s_resnet50"} <= set(names)
    for name in names:
        module = import_module(f"slimjax.configs.{name}")
        check_keys(module.get_config())
        assert name == "default" or f"--config=configs/{name}.py" in module.__doc__
