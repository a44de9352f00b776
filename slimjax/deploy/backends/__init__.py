"""What runs a bundle's programs: which there are, what each needs, and the interface that they share."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from slimjax.analysis.machine import available_cores
from slimjax.deploy.formats import check_installed
from slimjax.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from slimjax.deploy.bundle import Manifest, Outputs


class Programs(Protocol):
    """The programs of a bundle, loaded; threads may share them."""

    def __call__(self, width: float, images: "np.ndarray") -> "Outputs":
        """Of images [batch, height, width, 3], which the caller may change later, what the manifest says.

        Logits [batch, classes] float32 of a classifier, arrays [batch, ...] by name of a detector.
        """
        ...

    def warm_up(self, width: float, batch_size: int) -> None:
        """Prepares what a batch of this size takes at a width, and runs it once."""
        ...

    def device(self) -> str:
        """What it runs on, as measurements are filed."""
        ...


class Backend(NamedTuple):
    """A back end: a module here with `load(bundle, manifest, program, threads)`, which returns Programs.

    Attributes:
      module: that loads it.
      programs: that it runs, by their names in a manifest; the first is taken unless another is asked for.
      extra: of slimjax that brings what it needs; empty if slimjax's own packages do.
      packages: that it imports, of that extra.
    """

    module: str
    programs: tuple[str, ...]
    extra: str = ""
    packages: tuple[str, ...] = ()


BACKENDS = {
    "jax": Backend("stablehlo", ("stablehlo",)),
    "onnxruntime": Backend("onnxruntime", ("onnx",), "onnx", ("onnxruntime",)),
    "litert": Backend("litert", ("litert", "litert_float16", "litert_int8"), "litert", ("ai_edge_litert",)),
}


def load_programs(
    name: str, bundle: Path, manifest: "Manifest", program: str | None = None, threads: int | None = None
) -> Programs:
    """Loads a bundle's programs for a back end.

    Args:
      name: of BACKENDS.
      bundle: its folder, which `read_manifest` has checked.
      manifest: of the bundle.
      program: of those that the back end runs, such as `litert_int8`; its first by default.
      threads: that a call may use; the back end's own choice by default.

    Raises:
      UserError: if the back end is unknown or not installed, or the bundle has no such program for it.
    """
    if name not in BACKENDS:
        raise UserError(f"backend={name!r} is unknown; choose one of {', '.join(BACKENDS)}")
    backend = BACKENDS[name]
    program = program or backend.programs[0]
    if program not in backend.programs:
        raise UserError(f"program={program!r} is not for {name}; choose one of {', '.join(backend.programs)}")
    if threads is not None and not (isinstance(threads, int) and 1 <= threads <= available_cores()):
        raise UserError(f"threads={threads!r} has to be 1 to {available_cores()}, the cores that this process may use")
    for package in backend.packages:
        check_installed(package, backend.extra, f"backend={name!r}")
    if program not in manifest.programs:
        known = ", ".join(manifest.programs)
        raise UserError(f"{bundle} has no {program} program for {name}, only {known}; export it with --formats")
    module = import_module(f"slimjax.deploy.backends.{backend.module}")
    return module.load(bundle, manifest, program, threads)
