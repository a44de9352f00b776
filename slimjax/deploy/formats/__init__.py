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

    from slimjax.deploy.source import Source


class Format(NamedTuple):
    """A format.

    Attributes:
      module: that writes it.
      extra: of slimjax that brings what it needs; empty if slimjax's own packages do.
      packages: that it imports, of that extra.
      converters: further packages that shape what is written, by the names under which they may be installed.
    """

    module: str
    extra: str = ""
    packages: tuple[str, ...] = ()
    converters: tuple[str, ...] = ()


_TENSORFLOW = ("tensorflow", "tensorflow-cpu")

FORMATS = {
    "stablehlo": Format("stablehlo"),
    "onnx": Format("onnx", "onnx", ("onnx", "onnxruntime")),
    "litert": Format("litert", "litert", ("ai_edge_litert", "ai_edge_quantizer"), _TENSORFLOW),
    "savedmodel": Format("savedmodel", "savedmodel", ("orbax.export",), _TENSORFLOW),
    "orbax": Format("orbax"),
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


@dataclass(frozen=True)
class Written:
    """Programs of all widths that were written.

    Attributes:
      name: as the manifest files them.
      files: that hold the program of each width, below the bundle.
      run: runs the program of a width as it was written, on images as it takes them; returns logits.
      tensors: names of the tensors of the bundle's weights that a width's program takes, in order; none where its file
        has its own weights.
      tolerance: see Tolerance.
    """

    name: str
    files: Mapping[float, str]
    run: "Callable[[float, np.ndarray], np.ndarray]"
    tensors: Mapping[float, tuple[str, ...]] = field(default_factory=dict)
    tolerance: Tolerance = FLOAT32


def check_formats(names: list[str]) -> None:
    """UserError unless all formats are known and what they need is installed."""
    if unknown := [name for name in names if name not in FORMATS]:
        raise UserError(f"--formats={','.join(unknown)} is unknown; choose among {', '.join(FORMATS)}")
    if not names:
        raise UserError(f"--formats= names none; choose among {', '.join(FORMATS)}")
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
