"""Every mistake of a command line is one line that names the value, and nothing is left behind."""

from importlib import import_module
from pathlib import Path

import pytest
from slimjax.configs import default

from slimjax.configuration import check_keys

MISTAKES = {
    "": "--workdir is missing; give the folder",
    "--workdir=W --config.lerning_rate=3": "has no key 'lerning_rate' (did you mean \"learning_rate\"?)",
    "--workdir=W --config.foo.bar=1": "the configuration has no key 'foo'",
    "--workdir=W --config.dataset.nme=x": "has no key 'nme' (did you mean \"name\"?)",
    "--workdir=W --config=configs/nope.py": "--config=configs/nope.py: there is no such file",
    "--workdir=W --config=configs/nope.py:naive": "--config=configs/nope.py: there is no such file",
    "--workdir=W --config=configs/digits.py:naive": "configs/digits.py:naive: this file takes nothing behind a colon",
    "--workdir=W --config=configs/s_resnet50.py:naif": "configs/s_resnet50.py:naif: method 'naif' is unknown; behind",
    "--workdir=W --config=configs/s_shufflenet.py:individual=0.4": "0.4 is not one of this row's widths (0.5, 1.0,",
    "--workdir=W --config=configs/s_resnet50.py:individual=0.5": "'imagenet2012' is not in",
    "--workdir=W --config.learning_rate=fast": "--config.learning_rate=fast",
    "--workdir=W --config.learning_rate=-1": "learning_rate=-1.0 has to be positive",
    "--wrkdir=W": "Did you mean: workdir",
    "--workdir=W --mode=evl": "train|eval|calibrate",
    "--workdir=W train": "'train' is not a flag",
    "--workdir=W --config.platform=tpu": "platform='tpu' was asked for, but JAX finds only 'cpu'",
    "--workdir=W --config.platform=npu": "platform='npu' is unknown; choose one of cpu, gpu, tpu",
    "--workdir=W --config.batch_size=0": "batch_size=0 does not divide over 1 devices",
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
    "--workdir=W --config.batch_norm_group_size=3": "batch_norm_group_size=3 does not divide 1 devices",
    "--workdir=W --config.init_from=/nowhere": "init_from='/nowhere': /nowhere/checkpoints holds no checkpoints",
    "--workdir=W --config.optimizer.clip_norm=-1": "optimizer.clip_norm=-1.0 has to be between 0.0 and inf",
    "--workdir=W --config.optimizer.name=lbfgs --config.optimizer.options=": "optimizer.name='lbfgs' with options=",
    "--workdir=W --config.eval_every_steps=0": "eval_every_steps or eval_every_epochs comes to 0 steps",
    "--workdir=W --mode=eval": "holds no checkpoints; train there first",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_line(run_program, assert_refused, tmp_path, arguments):
    assert_refused(run_program(*arguments.replace("=W", f"={tmp_path / 'new'}").split()), MISTAKES[arguments])
    assert not (tmp_path / "new").exists(), "a run that never started leaves nothing"


def test_help_shows_examples(run_program):
    code, out, _ = run_program("--help")
    assert code == 1  # absl's
    assert "python -m slimjax.main --workdir=runs/digits" in out


def test_every_configuration_has_exactly_the_keys_of_the_default():
    shared = ("__init__", "published")
    names = sorted(path.stem for path in Path(default.__file__).parent.glob("*.py") if path.stem not in shared)
    assert {"default", "digits", "fashion_mnist", "cifar10", "s_mobilenet_v1", "s_resnet50"} <= set(names)
    for name in names:
        module = import_module(f"slimjax.configs.{name}")
        check_keys(module.get_config())
        assert name == "default" or f"--config=configs/{name}.py" in module.__doc__
