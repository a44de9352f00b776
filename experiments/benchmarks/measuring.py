"""What the benchmarks and their records have in common."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORDS = HERE / "records"


def measured_on(*extra_packages: str) -> dict[str, Any]:
    """Machine, versions and commit, for the record.

    Args:
      *extra_packages: whose versions matter as well, where they are installed.
    """
    from slimjax.analysis.machine import commit_of, describe_machine
    from slimjax.versions import package_versions

    return {
        **describe_machine(),
        "versions": package_versions(*extra_packages),
        "commit": commit_of(HERE),
        "command": " ".join(sys.argv),
    }


def config_of(file: str) -> Any:
    """The configuration that a file of configs/ describes."""
    spec = importlib.util.spec_from_file_location("config", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Writes a record as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


class Server:
    """A contestant's process: it says in a line of JSON that it is ready, and answers every line in one."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Starts it and waits until it is ready.

        Args:
          command: a Python script with its arguments.
          environment: variables that it has besides those of this process.
        """
        self._process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.about: dict[str, Any] = self._read()

    def ask(self, question: str = "") -> Any:
        """The answer to a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{question}\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a contestant ended: {self._process.args!r}")
        return json.loads(line)
