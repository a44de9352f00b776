"""What all command lines share: flags, configuration files, and mistakes told in one line."""

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TextIO

from absl import app, flags, logging
from etils import epath
from ml_collections import ConfigDict, config_flags

from slimjax.command_help import is_asked_for, print_help
from slimjax.configuration import check_keys, config_of_run, configuration_file, known_keys, let_overrides_win
from slimjax.errors import CLOSED_PIPE, INTERRUPTED, USAGE_ERROR, UserError, did_you_mean
from slimjax.paths import writing

# The flags that are defined here are their commands'.
flags.disclaim_key_flags()


def run(main: Callable[..., int], default_config: str | None = None, operand: str | None = None) -> NoReturn:
    """Parses the flags and runs a command; a UserError becomes one line on stderr and exit code 2.

    Args:
      main: the command, which takes the operand if there is one; returns the exit code.
      default_config: the configuration file where --config is not given; None for a command that has no --config.
      operand: what the command needs beside its flags, such as `BUNDLE`.
    """
    expected = 1 if operand else 0

    def guarded(argv: Sequence[str]) -> int:
        if len(argv) - 1 < expected:
            return _fail(f"{operand} is missing; give it behind the command, see --help")
        if len(argv) - 1 > expected:
            return _fail(f"{argv[1 + expected]!r} is not a flag; flags begin with --, see --help")
        return told(lambda: main(*argv[1:]))

    logging.set_verbosity(logging.ERROR)
    if is_asked_for(sys.argv):
        sys.exit(told(print_help))
    parse = _parse if default_config is None else partial(_parse_with_config, default_config=default_config)
    app.run(guarded, flags_parser=parse)
    raise AssertionError("app.run does not return")


def told(command: Callable[[], int | None]) -> int:
    """Runs a command; what its user has done to it ends in a line on stderr and an exit code."""
    try:
        code = command()
        sys.stdout.flush()
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever reads has enough, as `head` has; Python would try once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    return code or 0


def define_quiet() -> "flags.FlagHolder[bool]":
    """The flag --quiet, of commands that show progress."""
    return flags.DEFINE_boolean("quiet", False, "No progress on stderr: results and mistakes alone.")


def define_format(*formats: str) -> "tuple[flags.FlagHolder[str], flags.FlagHolder[str | None]]":
    """The flags --format, the first of which is the default, and --output, of commands that print results."""
    return (
        flags.DEFINE_enum("format", formats[0], formats, "How to print; by --output's ending where it is not given."),
        flags.DEFINE_string("output", None, "File to write to, rather than printing."),
    )


def asked_format(format_flag: "flags.FlagHolder[str]", output: str | None) -> str:
    """The value of --format, or what --output ends in where that is one of its values and --format is not given."""
    parser: Any = flags.FLAGS[format_flag.name].parser
    ending = Path(output or "").suffix.removeprefix(".")
    return ending if not format_flag.present and ending in parser.enum_values else format_flag.value


@contextmanager
def opened(output: str | None) -> Iterator[TextIO]:
    """The file of --output to write to, or stdout where it is not given; UserError if it cannot be written."""
    if output is None:
        yield sys.stdout
        return
    with writing(output, "--output"), Path(output).expanduser().open("w") as file:
        yield file


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, since compiling takes longer than many a run; JAX's own settings win."""
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "slimjax" / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def positive_integers(name: str, values: Sequence[str]) -> list[int]:
    """The numbers of a list flag, each once; UserError unless all are at least 1."""
    try:
        numbers = [int(value) for value in values]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise UserError(f"--{name}={','.join(values)} has to be numbers of at least 1, such as 1,8")
    return list(dict.fromkeys(numbers))


def num_classes(config: ConfigDict, given: int | None) -> int:
    """Outputs of the classifier: those given by --num_classes, or those of the data set, whose files are not needed."""
    if given is not None:
        return given
    # Imported late, since what tfds knows of a data set takes seconds.
    from slimjax.tasks.creation import count_classes

    try:
        return count_classes(config)
    except UserError as error:
        raise UserError(f"{error}; or give --num_classes") from error


def given_config(trained_workdir: epath.Path | None = None, which: str = "latest") -> ConfigDict:
    """The configuration of the flags, overrides included, once its keys are known to be right.

    Args:
      trained_workdir: of a run whose own configuration is taken instead of the file's.
      which: of that run's checkpoints: `latest`, `best` or a step.

    Raises:
      UserError: for a key that is unknown or missing, or a workdir without such a checkpoint.
    """
    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    if trained_workdir is not None:
        config = config_of_run(trained_workdir, which, overrides)
    else:
        config = flags.FLAGS.config
        let_overrides_win(config, overrides)
    check_keys(config)
    return config


def config_is_given() -> bool:
    """Whether the command line named a configuration file, rather than taking the default."""
    return bool(sys.orig_argv[_config_arguments(sys.orig_argv)])


def _config_arguments(argv: Sequence[str]) -> slice:
    """Where a command line has `--config=FILE`, or `--config FILE`; an empty slice at its end if it has neither."""
    for index, argument in enumerate(argv):
        if argument.startswith(("--config=", "-config=")):
            return slice(index, index + 1)
        if argument in ("--config", "-config"):
            return slice(index, index + 2)
    return slice(len(argv), len(argv))


def _parse(argv: Sequence[str]) -> Sequence[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(_fail(_mistake_in_flag(error)))


def _parse_with_config(argv: Sequence[str], default_config: str) -> Sequence[str]:
    try:
        given, others = _put_config_first(argv, default_config)
        return _parse_and_load(given, others)
    except UserError as error:
        sys.exit(_fail(str(error)))


def _put_config_first(argv: Sequence[str], default_config: str) -> tuple[str, Sequence[str]]:
    """Has sys.argv begin with the configuration's file; returns what --config names, and the other arguments.

    The file comes first, since overrides are known only once it is loaded. The default is not the flag's own: that is
    loaded when the flag is defined, before anything here could tell its overrides' mistakes.
    """
    place = _config_arguments(argv)
    config = argv[place] or [f"--config={default_config}"]
    others = [*argv[1 : place.start], *argv[place.stop :]]
    if others[_config_arguments(others)]:
        raise UserError("--config is given twice; give one")
    given = config[0].partition("=")[2] if "=" in config[0] else "".join(config[1:])
    if not given:
        raise UserError("--config= names nothing; give a file or a name, such as --config=digits, or leave it out")
    # What follows a colon is for the file's get_config.
    name, colon, method = given.partition(":")
    # ml_collections looks for overrides in sys.argv, and only behind the file.
    sys.argv[1:] = [f"--config={configuration_file(name)}{colon}{method}", *others]
    return given, others


def _parse_and_load(given: str, others: Sequence[str]) -> Sequence[str]:
    """Parses sys.argv and loads the configuration, whose file is somebody's code and may raise anything."""
    try:
        rest = flags.FLAGS(sys.argv)
        config = flags.FLAGS.config
        # A configuration that cannot be loaded says so when its content is first asked for.
        if config is not None:
            list(config)
    except flags.Error as error:
        cause = _raised_by_config(error)
        raise UserError(_mistake_in_flag(error) if cause is None else _mistake_in(given, cause)) from error
    except (AttributeError, KeyError) as error:
        known = known_keys()
        unknown = next((key for key in _overridden_keys(others) if not _is_part_of(key, known)), None)
        if unknown is None:
            raise UserError(_mistake_in(given, error)) from error
        hint = did_you_mean(unknown, known)
        raise UserError(f"the configuration has no key {unknown!r}{hint}; configs/default.py has every key") from error
    except Exception as error:
        raise UserError(_mistake_in(given, error)) from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={given}: its get_config() returns {type(config).__name__}, not a ConfigDict")
    return rest


def _mistake_in_flag(error: flags.Error) -> str:
    """What absl says of a flag, in a line, with what Python says of numbers in words for everybody."""
    text = " ".join(str(error).split())
    text = re.sub(r"^flag (.*): invalid literal for int\(\).*", r"\1 has to be a whole number", text)
    return re.sub(r"^flag (.*): could not convert string to float.*", r"\1 has to be a number", text)


def _mistake_in(given: str, error: BaseException) -> str:
    """What a configuration file has raised, in a line, with the place in the file."""
    if isinstance(error, UserError):
        return f"--config={given}: {error}"
    text = " ".join(str(error.args[0] if error.args else error).split())
    if given.count(":") and "get_config() takes 0 positional" in text:
        return f"--config={given}: this file takes nothing behind a colon; the published rows' do"
    if text.endswith("has no attribute 'get_config'"):
        return f"--config={given}: it has no function get_config(), which returns the configuration"
    file = str(configuration_file(given.partition(":")[0]))
    lines = [error.lineno] if isinstance(error, SyntaxError) else []
    lines += [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    place = f" (line {lines[-1]})" if lines else ""
    return f"--config={given}: {type(error).__name__}: {text}{place}"


def _overridden_keys(arguments: Sequence[str]) -> Iterator[str]:
    """Dotted keys that a command line overrides, as in `--config.seed=1` and `--noconfig.dataset.flip`."""
    for argument in arguments:
        if match := re.match(r"--?(?:no)?config\.([^=\[]*)", argument):
            yield match[1]


def _is_part_of(key: str, known: Sequence[str]) -> bool:
    """Whether a key is known, or a section of known ones."""
    return any(f"{other}.".startswith(f"{key}.") for other in known)


def _raised_by_config(error: BaseException) -> BaseException | None:
    """What a configuration file raised while it loaded; None if the error came from elsewhere.

    ml_collections raises its own error with the whole traceback as the message, and absl another on top of it.
    """
    while error.__context__ is not None:
        wrapper, error = error, error.__context__
        if "Error whilst parsing config file" in str(wrapper) and "Error whilst" not in str(error):
            return error
    return None


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return USAGE_ERROR
