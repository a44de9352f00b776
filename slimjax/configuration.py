"""Configurations: their keys checked against `configs/default.py`, and those that a trained run carries."""

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from slimjax.configs import default
from slimjax.errors import UserError, did_you_mean

EXCLUSIVE = (
    ("num_train_steps", "num_epochs"),
    ("eval_every_steps", "eval_every_epochs"),
    ("checkpoint_every_steps", "checkpoint_every_epochs"),
    ("schedule.warmup_steps", "schedule.warmup_epochs"),
    ("schedule.boundaries_steps", "schedule.boundaries_epochs"),
)
"""Keys that say the same thing in two units."""


_SHARED = ("__init__", "published")
"""What is beside the configurations and is none."""


def named_configurations() -> dict[str, Path]:
    """The files of slimjax's own configurations by their short names, such as `s_mobilenet_v2`."""
    found = {path.stem: path for path in Path(str(files("slimjax.configs"))).glob("*.py")}
    return {name: found[name] for name in sorted(found) if name not in _SHARED}


def configuration_file(given: str) -> Path:
    """The file that `--config` names: one of that path, or else slimjax's own of that short name.

    Raises:
      UserError: if there is neither.
    """
    if Path(given).is_file():
        return Path(given)
    named = named_configurations()
    if given in named:
        return named[given]
    if "/" in given or given.endswith(".py"):
        own = Path(given).stem
        hint = (
            f"slimjax's own need no path: --config={own}" if own in named else f"slimjax's own are {', '.join(named)}"
        )
        raise UserError(f"--config={given}: there is no such file; {hint}")
    hint = did_you_mean(given, named)
    raise UserError(f"--config={given} is neither a file nor one of {', '.join(named)}{hint}")


def known_keys() -> list[str]:
    """Every key of a configuration, dotted."""
    return list(_keys(default.get_config()))


def check_keys(config: ConfigDict) -> None:
    """UserError that names the key, if a configuration has one that nothing reads or lacks one that something does."""
    known, given = set(known_keys()), set(_keys(config))
    for key in sorted(given - known):
        raise UserError(f"config.{key} is unknown{did_you_mean(key, known)}; configs/default.py has every key")
    for key in sorted(known - given):
        raise UserError(f"config.{key} is missing; start from configs/default.py, which has every key")


def let_overrides_win(config: ConfigDict, overrides: Iterable[str]) -> None:
    """Unsets what an override of the command line replaces: a duration in epochs replaces the one in steps.

    Args:
      config: changed in place.
      overrides: dotted keys that the command line has set.
    """
    given = set(overrides)
    for first, second in EXCLUSIVE:
        for winner, loser in ((first, second), (second, first)):
            if winner in given and loser not in given:
                _set(config, loser, () if loser.endswith(("boundaries_steps", "boundaries_epochs")) else None)


def config_of_run(workdir: epath.Path, which: str, overrides: Mapping[str, Any]) -> ConfigDict:
    """The configuration that a checkpoint was trained with.

    Args:
      workdir: of the run.
      which: `latest`, `best` or a step.
      overrides: values by dotted key that replace the stored ones.

    Raises:
      UserError: if there is no such checkpoint, or it has keys that this version does not know.
    """
    from slimjax.training.checkpoints import Checkpoints

    checkpoints = Checkpoints(workdir)
    stored = checkpoints.description(checkpoints.find(which)).config
    config, known = default.get_config(), set(known_keys())
    for key, value in leaves(stored):
        if key not in known:
            raise UserError(f"the checkpoints of {workdir} have the unknown key {key}; they are of another version")
        _set(config, key, value)
    for key, value in overrides.items():
        _set(config, key, value)
    let_overrides_win(config, overrides)
    return config


def plain(config: ConfigDict) -> dict[str, Any]:
    """A configuration as JSON has it."""
    values: dict[str, Any] = json.loads(config.to_json())
    return values


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that was stored, as `plain` gives it, with the keys that were added since.

    Their defaults do what was done without them.
    """
    return _completed(stored, plain(default.get_config()))


def _completed(stored: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    sections = {
        key: _completed(stored.get(key, {}), value) for key, value in defaults.items() if isinstance(value, dict)
    }
    return {**defaults, **stored, **sections}


def _set(config: ConfigDict, key: str, value: Any) -> None:
    """Sets a dotted key; JSON has lists where configurations have tuples."""
    config.update_from_flattened_dict({key: tuple(value) if isinstance(value, list) else value})


def _keys(config: Mapping[str, Any]) -> Iterator[str]:
    return (key for key, _ in leaves(config))


def leaves(config: Mapping[str, Any] | ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of a configuration, or of one that was stored, by its dotted key.

    Args:
      config: the whole, or one of its sections.
      prefix: in front of the keys.
    """
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
