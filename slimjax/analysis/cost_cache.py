"""Costs of compiled programs kept on disk, in place of JAX's compilation cache.

JAX keeps what it compiles for devices that are not there, and fails to read it back (jax 0.10.2: "PjRtCompiler must be
constructed with a Client to call DeserializeLoadedExecutable"). A plan needs the figures alone.
"""

import hashlib
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import jax

from slimjax.analysis.program_costs import ProgramCost
from slimjax.versions import package_versions

_FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")


class CostCache:
    """Looks costs up by the program before it is compiled, and by what compiles it for which devices."""

    def __init__(self, folder: Path, topology: str) -> None:
        """Keeps costs of programs for a topology in a folder, which is made when it is needed."""
        versions = package_versions("libtpu")
        about = {"topology": topology} | {name: versions.get(name) for name in ("jax", "jaxlib", "libtpu")}
        self._about = json.dumps(about | {name: os.environ.get(name) for name in _FLAGS})
        self._folder = folder

    @classmethod
    def in_place_of_jax(cls, topology: str) -> Self | None:
        """Turns JAX's cache off and puts this one into its folder; None if it was off already or has no folder."""
        folder = jax.config.values["jax_compilation_cache_dir"]
        enabled = folder is not None and jax.config.values["jax_enable_compilation_cache"]
        jax.config.update("jax_enable_compilation_cache", False)
        return cls(Path(folder) / "costs", topology) if enabled else None

    def find(self, program: jax.stages.Lowered, name: str, beside_bytes: int) -> ProgramCost | None:
        """The cost of a program that was compiled before, under another name or beside other arrays as may be."""
        try:
            values: dict[str, Any] = json.loads(self._path(program).read_text())
            return replace(ProgramCost(**values), name=name, beside_bytes=beside_bytes)
        except (OSError, ValueError, TypeError):
            # Absent, or cut off while it was written.
            return None

    def keep(self, program: jax.stages.Lowered, cost: ProgramCost) -> None:
        """Writes the cost of a program down."""
        path = self._path(program)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(cost)) + "\n")

    def _path(self, program: jax.stages.Lowered) -> Path:
        key = hashlib.sha256(f"{self._about}\n{program.as_text()}".encode()).hexdigest()
        return self._folder / f"{key}.json"
