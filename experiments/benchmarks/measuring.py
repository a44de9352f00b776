"""What the benchmarks and their records have in common."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORDS = HERE / "records"


def measured_on(*extra_packages: str) -> dict[str, Any]:
    """Machine, versions and commit, for the record.

    Args:
      *extra_packages: whose versions matter as well, where they are installed.
    """
    from slimjax.analysis.machine import describe_machine
    from slimjax.versions import package_versions

    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"]
    return {
        **describe_machine(),
        "versions": package_versions(*extra_packages),
        "commit": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip(),
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
