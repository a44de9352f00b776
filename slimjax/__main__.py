"""Lists the commands of slimjax.

python -m slimjax
"""

import ast
from importlib.util import find_spec
from pathlib import Path

from slimjax import cli

COMMANDS = (
    "prepare",
    "main",
    "plan",
    "profile",
    "report",
    "detect",
    "export",
    "benchmark",
    "import_torch",
    "export_torch",
)
"""In the order in which a user comes to need them."""


def main() -> int:
    """Prints the commands and what each does; returns the exit code."""
    print("The commands of slimjax; --help behind one shows examples and its flags.\n")
    for name in COMMANDS:
        print(f"  python -m slimjax.{name:<13} {summary(name)}")
    return 0


def summary(name: str) -> str:
    """The first line of a command's docstring, without importing it, which would take seconds."""
    spec = find_spec(f"slimjax.{name}")
    assert spec is not None
    assert spec.origin is not None
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""
    return docstring.partition("\n")[0]


if __name__ == "__main__":
    cli.run(main)
