"""Help explains itself, and configurations go by short names."""

import re
from pathlib import Path

import pytest
from slimjax.configs import default

import slimjax
from slimjax.__main__ import COMMANDS
from slimjax.configuration import configuration_file, named_configurations
from slimjax.errors import UserError

SHOW_PROGRESS = ("main", "profile", "plan", "prepare", "export", "benchmark", "report", "detect")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_every_flag_and_is_no_failure(run_program, command):
    code, out, err = run_program("--help", module=f"slimjax.{command}", environment={"COLUMNS": "100"})
    assert (code, err) == (0, "")
    assert f"\npython -m slimjax.{command} " in out
    flags, _, configurations = out.partition("\nflags:\n")[2].partition("\nconfigurations")
    used = set(re.findall(r"--(\w+)", out.partition("\nflags:\n")[0])) - {"config"}
    listed = set(re.findall(r"^  --(?:\[no\])?(\w+)", flags, re.MULTILINE))
    assert listed, out
    # Examples of other commands have other flags.
    own = re.findall(rf"python -m slimjax\.{command} (.*)", out)
    assert {flag for line in own for flag in re.findall(r"--(?:no)?(\w+)", line) if flag in used} - {"config"} <= listed
    assert ("quiet" in listed) == (command in SHOW_PROGRESS)
    assert all(len(line) <= 100 for line in flags.splitlines())
    takes_a_configuration = command in ("main", "profile", "plan", "import_torch")
    assert ("s_mobilenet_v2," in configurations) == takes_a_configuration


def test_every_command_is_listed_with_what_it_does(run_program):
    modules = Path(slimjax.__file__).parent.glob("*.py")
    assert set(COMMANDS) == {path.stem for path in modules if "\n    cli.run(" in path.read_text()} - {"__main__"}
    code, out, err = run_program(module="slimjax")
    assert (code, err) == (0, "")
    assert "  python -m slimjax.main          Trains, evaluates or calibrates a slimmable network.\n" in out
    assert re.findall(r"^  python -m slimjax\.(\w+) +\w.*[.?]$", out, re.MULTILINE) == list(COMMANDS)
    assert run_program("--help", module="slimjax")[::2] == (0, "")


def test_configurations_have_short_names_and_files_win(tmp_path, monkeypatch):
    named = named_configurations()
    assert {"digits", "cifar10", "s_resnet50", "s_mobilenet_v2_pod"} <= named.keys()
    page = Path("docs/configuration.md").read_text()
    assert set(re.findall(r"`configs/(\w+)\.py`", page.partition("## All keys")[0])) == named.keys() - {"default"}
    assert not {"__init__", "published"} & named.keys()
    assert configuration_file("default").read_text().startswith(f'"""{default.__doc__}')
    monkeypatch.chdir(tmp_path)
    assert configuration_file("digits") == named["digits"]
    (tmp_path / "digits").write_text("mine")
    assert configuration_file("digits").read_text() == "mine"
    assert configuration_file(str(tmp_path / "digits")).read_text() == "mine"
    with pytest.raises(UserError, match=r"--config=configs/cifar10.py: there is no such file; .*: --config=cifar10$"):
        configuration_file("configs/cifar10.py")
