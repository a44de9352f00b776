"""The package's names are there when asked for, and nothing that needs JAX is imported before."""

import re
from importlib import import_module

import pytest

import slimjax

HEAVY = re.compile(r"\| +((?:jax|jaxlib|flax|optax|orbax|tensorflow|torch)(?:\.\S+)?)$", re.MULTILINE)


@pytest.mark.parametrize(
    "module", ["slimjax.main", "slimjax.profile", "slimjax.import_torch", "slimjax.export", "slimjax.report"]
)
@pytest.mark.parametrize(
    ("argument", "message"),
    [("--help", "--workdir"), ("--nonsense", "Unknown command line flag 'nonsense'"), ("--config.sed=1", "'seed'")],
)
def test_help_and_mistakes_in_flags_do_not_wait_for_jax(run_program, module, argument, message):
    _, out, err = run_program(argument, module=module, environment={"PYTHONPROFILEIMPORTTIME": "1"})
    assert message in out + err
    assert re.search(r"\| +slimjax\.cli$", err, re.MULTILINE), "imports are listed"
    assert not HEAVY.findall(err)


@pytest.mark.parametrize(
    ("module", "flag"), [("slimjax.export_torch", "--workdir"), ("slimjax.benchmark", "--threads")]
)
@pytest.mark.parametrize("argument", ["--help", "--nonsense"])
def test_neither_does_a_command_without_a_configuration(run_program, module, flag, argument):
    message = flag if argument == "--help" else "Unknown command line flag 'nonsense'"
    _, out, err = run_program(argument, module=module, environment={"PYTHONPROFILEIMPORTTIME": "1"})
    assert message in out + err
    assert re.search(r"\| +slimjax\.cli$", err, re.MULTILINE), "imports are listed"
    assert not HEAVY.findall(err)


def test_all_names_are_there():
    assert set(slimjax.__all__) <= set(dir(slimjax))
    assert slimjax.create_model is import_module("slimjax.models").create_model
    for name in slimjax.__all__:
        assert getattr(slimjax, name) is not None
    with pytest.raises(AttributeError, match="module 'slimjax' has no attribute 'create_modle'"):
        _ = slimjax.create_modle
