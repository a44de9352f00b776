"""What a command prints for --help: what it does, examples, and its flags."""

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence

from absl import flags

from slimjax.configuration import named_configurations

_HELP = ("--help", "-help", "-h")
_INDENT = 26
_WIDEST = 120


def is_asked_for(argv: Sequence[str]) -> bool:
    """Whether a command line asks for help. absl has its own, which ends as if that were a mistake."""
    return any(argument in _HELP for argument in argv[1:])


def print_help() -> None:
    """Prints the main module's docstring, which has examples, and its flags."""
    columns = min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
    print((sys.modules["__main__"].__doc__ or "").strip())
    own = flags.FLAGS.get_key_flags_for_module(sys.argv[0])
    print("\nflags:" if own else "")
    for flag in own:
        print(_entry(_usage(flag), _meaning(flag), columns))
    if any(flag.name == "config" and not flag.help.startswith("--") for flag in own):
        print(_entry("--config.KEY=VALUE", "Sets one key of the configuration, such as --config.seed=1.", columns))
        print("\nconfigurations, each behind --config= by its name here or as a file:")
        print(textwrap.fill(", ".join(named_configurations()), columns, initial_indent="  ", subsequent_indent="  "))


def _usage(flag: flags.Flag) -> str:
    # A flag that is not given as it is named says in its help how it is.
    if flag.help.startswith("--"):
        return flag.help.partition(" ")[0]
    if flag.boolean:
        return f"--[no]{flag.name}" if flag.default else f"--{flag.name}"
    if isinstance(flag, flags.EnumFlag):
        return f"--{flag.name}={'|'.join(flag.parser.enum_values)}"
    kinds = {"int": "N", "float": "X", "comma separated list of strings": "A,B"}
    return f"--{flag.name}={kinds.get(flag.flag_type(), '...')}"


def _meaning(flag: flags.Flag) -> str:
    """The flag's help, with the default where it says something."""
    # absl writes the choices of an enumeration before its help, which are in the usage here, and behind the help that a
    # flag may be repeated.
    text = re.sub(r"^<[^>]*>: |^--\S+ |;\s+repeat this option .*", "", flag.help, flags=re.DOTALL)
    says_nothing = flag.boolean or flag.name == "config" or flag.default in (None, "", [])
    if says_nothing:
        return text
    of_list = ", ".join(flag.default) if isinstance(flag.default, list) else None
    return f"{text} Default: {of_list or (flag.default_as_str or '').strip(chr(39))}."


def _entry(usage: str, meaning: str, columns: int) -> str:
    """A flag and what it means, side by side where there is room."""
    lines = textwrap.wrap(meaning, max(columns - _INDENT, 30), break_long_words=False)
    first = f"  {usage}"
    if len(first) < _INDENT and lines:
        first, lines = first.ljust(_INDENT) + lines[0], lines[1:]
    return "\n".join([first, *(" " * _INDENT + line for line in lines)])
