"""The formats that a bundle's programs can have: which there are, what each needs, and how they are written.

A format is a module here with a function `write(source, bundle)`, which writes its files below the bundle's folder and
yields what it wrote, see Written. Nothing heavy is imported before a format is written.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from slimjax.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from slimjax.deploy.bundle import Outputs
    from slimjax.deploy.source import Source


class Format(NamedTuple):
    """A format.

    Attributes:
      module: that writes it.
      extra: of slimjax that brings what it needs; empty if slimjax's own packages do.
      packages: that it imports, of that extra.
      converters: further packages that shape what is written, by the names under which they may be installed.
      has_detectors: whether it can hold a detector: ONNX and LiteRT are given no loops here, and TensorFlow 2.21 does
        not read the operation by which JAX takes the best of many.
    """

    module: str
    extra: str = ""
    packages: tuple[str, ...] = ()
    converters: tuple[str, ...] = ()
    has_detectors: bool = False


_TENSORFLOW = ("tensorflow", "tensorflow-cpu")

FORMATS = {
    "stablehlo": Format("stablehlo", has_detectors=True),
    "onnx": Format("onnx", "onnx", ("onnx", "onnxruntime")),
    "litert": Format("litert", "litert", ("ai_edge_litert", "ai_edge_quantizer"), _TENSORFLOW),
    "savedmodel": Format("savedmodel", "savedmodel", ("orbax.export",), _TENSORFLOW),
    "orbax": Format("orbax", has_detectors=True),
}


class Tolerance(NamedTuple):
    """What a program may differ by from the network.

    Attributes:
      difference: of a logit, over the largest logit.
      agreement: the least share of images with the same prediction.
    """

    difference: float
    agreement: float


FLOAT32 = Tolerance(1e-4, 0.98)
"""Of programs that compute in float32. (Where two logits are the same but for rounding, predictions may differ.)"""

DETECTIONS = Tolerance(1e-3, 0.98)
"""Of detectors: of a score, and the share of what either finds that both do. Of two boxes as good, another may be left
out."""


@dataclass(frozen=True)
class Written:
    """Programs of all widths that were written.

    Attributes:
      name: as the manifest files them.
      files: that hold the program of each width, below the bundle.
      run: runs the program of a width as it was written, on images as it takes them; returns what it puts out.
      tensors: names of the tensors of the bundle's weights that a width's program takes, in order; none where its file
        has its own weights.
      tolerance: see Tolerance.
    """

    name: str
    files: Mapping[float, str]
    run: "Callable[[float, np.ndarray], Outputs]"
    tensors: Mapping[float, tuple[str, ...]] = field(default_factory=dict)
    tolerance: Tolerance = FLOAT32


def check_formats(names: list[str], task: str = "classification") -> None:
    """UserError unless all formats are known, can hold a network of the task, and what they need is installed."""
    if unknown := [name for name in names if name not in FORMATS]:
        raise UserError(f"--formats={','.join(unknown)} is unknown; choose among {', '.join(FORMATS)}")
    if not names:
        raise UserError(f"--formats= names none; choose among {', '.join(FORMATS)}")
    can = [name for name, of_name in FORMATS.items() if of_name.has_detectors]
    if task == "detection" and (odd := [name for name in names if name not in can]):
        raise UserError(f"--formats={','.join(odd)} cannot hold a detector; choose among {', '.join(can)}")
    for name in names:
        for package in FORMATS[name].packages:
            check_installed(package, FORMATS[name].extra, f"--formats={name}")


def check_installed(package: str, extra: str, purpose: str) -> None:
    """UserError, with the remedy, if a package that only an extra of slimjax brings is missing."""
    if find_spec(package) is None:
        raise UserError(f"{purpose} needs {package}, which is not installed; run pip install 'slimjax[{extra}]'")


def write_format(name: str, source: "Source", bundle: Path) -> Iterator[Written]:
    """Writes a format's files below a bundle's folder."""
    module = import_module(f"slimjax.deploy.formats.{FORMATS[name].module}")
    yield from module.write(source, bundle)
