"""Bundles: folders that hold a trained network for devices, its manifest, its weights and its programs.

Reading one needs NumPy and safetensors only, and trusts nothing in it: every file is named in the manifest with its
size and checksum, the manifest carries its own, and what it says is checked before it is used.
"""

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, get_args, get_origin

import numpy as np

from slimjax.errors import UserError

FORMAT, FORMAT_VERSION = "slimjax-bundle", 2
MANIFEST, WEIGHTS = "manifest.json", "weights.safetensors"
CLASSIFICATION, DETECTION = "classification", "detection"
LOGITS = "logits"

Outputs: TypeAlias = np.ndarray | dict[str, np.ndarray]
"""What a program puts out: logits of a classifier, arrays by name of a detector."""

_LARGEST_MANIFEST = 2**24
_COLOURS = 3
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")


@dataclasses.dataclass(frozen=True)
class WidthEntry:
    """What a manifest says of a width.

    Attributes:
      width: as users ask for it.
      plan: active channels of every slimmed layer.
      params: parameters, convolutions and the classifier with the width's batch norms.
      macs: multiply-adds of one image.
      figures: measured on the evaluation split when it was trained, such as `top1_error`, %; empty if unknown.
    """

    width: float
    plan: dict[str, int]
    params: int
    macs: int
    figures: dict[str, float]


@dataclasses.dataclass(frozen=True)
class InputEntry:
    """What images have to be.

    Attributes:
      height: pixels.
      width: pixels.
      dtype: `float32`: normalised by the caller; `uint8`: colours of 0 to 255, which the programs normalise.
      mean: of each colour, of 0 to 1, that is subtracted.
      stddev: of each colour, by which is divided after that.
      fit: how evaluation made images fit: `crop`, their centre; or `pad`, below and to the right.
      short_side: pixels to which it had scaled the shorter side before that,
      long_side: unless the longer one came to more than this; 0 is no such limit.
    """

    height: int
    width: int
    dtype: str
    mean: tuple[float, ...]
    stddev: tuple[float, ...]
    fit: str
    short_side: int
    long_side: int

    @classmethod
    def square(
        cls, size: int, dtype: str, mean: tuple[float, ...], stddev: tuple[float, ...], eval_resize: int
    ) -> "InputEntry":
        """Of a classifier: the centre of so many pixels a side, of images of `eval_resize` in their shorter one."""
        return cls(size, size, dtype, mean, stddev, "crop", eval_resize, 0)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[height, width, 3]."""
        return (self.height, self.width, _COLOURS)


@dataclasses.dataclass(frozen=True)
class FileEntry:
    """A file of a bundle.

    Attributes:
      bytes: of it.
      sha256: of its content, hexadecimal.
    """

    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class TensorEntry:
    """A tensor of the weights, or one that programs put out.

    Attributes:
      shape: of it.
      dtype: NumPy's name.
    """

    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Check:
    """How a format's program compares with the network that it was made from, on images of the evaluation split.

    Attributes:
      images: compared.
      largest_difference: of a classifier: of a logit, over the largest logit; of a detector: of the score of an object
        that both found.
      agreement: of a classifier: share of images with the same prediction; of a detector: share of what either found
        that both did.
    """

    images: int
    largest_difference: float
    agreement: float


@dataclasses.dataclass(frozen=True)
class ProgramEntry:
    """The program of a width in some format.

    Attributes:
      file: of the bundle.
      tensors: names of the weights that it takes, in the order in which it takes them, before the images; none where
        the file has its own.
      check: see Check.
    """

    file: str
    tensors: tuple[str, ...]
    check: Check


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a bundle holds.

    Attributes:
      model: name of the network.
      task: `classification` or `detection`.
      num_classes: logits, or categories of objects.
      class_names: in the order of the logits, or by label.
      input: see InputEntry.
      outputs: of every program, by name; their shapes are those of one image.
      widths: ascending.
      tensors: of the weights' file, by name.
      programs: by format and width, as text such as `0.25`.
      files: all but the manifest, by path below the bundle.
      versions: of the packages that wrote it.
      format: FORMAT.
      format_version: FORMAT_VERSION.
    """

    model: str
    task: str
    num_classes: int
    class_names: tuple[str, ...]
    input: InputEntry
    outputs: dict[str, TensorEntry]
    widths: tuple[WidthEntry, ...]
    tensors: dict[str, TensorEntry]
    programs: dict[str, dict[str, ProgramEntry]]
    files: dict[str, FileEntry]
    versions: dict[str, str]
    format: str = FORMAT
    format_version: int = FORMAT_VERSION


def width_key(width: float) -> str:
    """A width as the manifest's tables and the files' names have it."""
    return f"{width:g}"


def signature_key(width: float) -> str:
    """The name of a width's signature, in files that have one for each width."""
    return f"width_{width_key(width)}"


def file_entry(path: Path) -> FileEntry:
    """The entry of a file as it is."""
    content = path.read_bytes()
    return FileEntry(len(content), hashlib.sha256(content).hexdigest())


def write_manifest(bundle: Path, manifest: Manifest) -> None:
    """Writes the manifest, with a checksum of its own."""
    content = dataclasses.asdict(manifest)
    (bundle / MANIFEST).write_text(json.dumps({**content, "sha256": _checksum(content)}, indent=1) + "\n")


def manifest_checksum(manifest: Manifest) -> str:
    """The checksum of a manifest as `write_manifest` writes it; it stands for the whole bundle."""
    return _checksum(dataclasses.asdict(manifest))


def read_manifest(bundle: Path, sha256: str | None = None) -> Manifest:
    """Reads and checks a manifest, and that every file it names is there, unaltered.

    Args:
      bundle: its folder.
      sha256: of the manifest, as whoever made the bundle tells it; None takes what the manifest itself says.

    Raises:
      UserError: if the folder is no bundle, of a newer format, incomplete or altered; the file is named.
    """
    path = bundle / MANIFEST
    try:
        if not _is_inside(bundle, path):
            raise UserError(f"{bundle} is no bundle: it has no {MANIFEST}; make one by python -m slimjax.export")
        manifest = _manifest_in(path, sha256)
        for name, entry in manifest.files.items():
            _check_file(bundle, name, entry)
    except OSError as error:
        raise UserError(f"{error.filename or bundle} cannot be read ({error.strerror})") from None
    return manifest


def _manifest_in(path: Path, sha256: str | None) -> Manifest:
    if path.stat().st_size > _LARGEST_MANIFEST:
        raise UserError(f"{path} is larger than a manifest can be ({_LARGEST_MANIFEST:,} bytes)")
    try:
        content = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise UserError(f"{path} is not the manifest of a slimjax bundle")
        version = content.get("format_version")
        if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
            raise UserError(
                f"{path} is of format version {str(version)[:20]}, this slimjax reads 1 to {FORMAT_VERSION}; install a "
                "newer one"
            )
        stated = content.pop("sha256", None)
        if stated != _checksum(content):
            raise UserError(f"{path} was altered: its checksum does not fit its content; export the network again")
        if sha256 is not None and stated != sha256.lower():
            raise UserError(
                f"{path} is of another bundle than the one asked for: its sha256 is {stated}, not {sha256[:64]}"
            )
        manifest = _parsed(Manifest, _upgraded(content) if version == 1 else content)
        _check_consistent(manifest)
    except UserError:
        raise
    except _UnfitError as error:
        raise UserError(f"{path} is not a valid manifest: {error}") from None
    except (ValueError, RecursionError, OverflowError) as error:
        raise UserError(f"{path} is damaged: it is not JSON of a manifest ({str(error)[:80]})") from None
    return manifest


def read_weights(bundle: Path, manifest: Manifest) -> dict[str, np.ndarray]:
    """The tensors of the weights' file, which has been checked by `read_manifest`.

    Raises:
      UserError: if the file does not hold what the manifest says, or values that are not finite, of which no bundle is
        made.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = bundle / WEIGHTS
    try:
        tensors = load_file(path)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error})") from None
    if tensors.keys() != manifest.tensors.keys():
        odd = sorted(tensors.keys() ^ manifest.tensors.keys())[0]
        raise UserError(f"{path} and the manifest differ in the tensor {odd!r}")
    for name, entry in manifest.tensors.items():
        if (tensors[name].shape, tensors[name].dtype.name) != (entry.shape, entry.dtype):
            found = f"{tensors[name].dtype.name} {list(tensors[name].shape)}"
            raise UserError(f"{path}: {name} is {found}, the manifest says {entry.dtype} {list(entry.shape)}")
        if not np.isfinite(tensors[name]).all():
            raise UserError(f"{path}: {name} has values that are not finite; export a network that has not diverged")
    return tensors


class _UnfitError(Exception):
    """What a manifest's content is not."""


def _upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """A manifest of version 1, which knew of square images and classifiers alone, as one of version 2."""
    image, classes = content.get("input"), content.get("num_classes")
    if not isinstance(image, dict) or not {"image_size", "eval_resize"} <= image.keys():
        raise _UnfitError("input has to have image_size and eval_resize")
    size, kept = image["image_size"], {key: image[key] for key in image.keys() - {"image_size", "eval_resize"}}
    fitting = {"fit": "crop", "short_side": image["eval_resize"], "long_side": 0}
    added = {"task": CLASSIFICATION, "outputs": {LOGITS: {"shape": [classes], "dtype": "float32"}}}
    return {**content, **added, "input": {**kept, "height": size, "width": size, **fitting}, "format_version": 2}


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_consistent(manifest: Manifest) -> None:
    """_UnfitError if parts of a manifest do not go together."""
    widths = [entry.width for entry in manifest.widths]
    keys = {width_key(width) for width in widths}
    if not widths or widths != sorted(set(widths)) or widths[0] <= 0 or len(keys) < len(widths):
        raise _UnfitError(f"widths are {widths}, which have to be positive, ascending and apart")
    figures = {name for entry in manifest.widths for name in entry.figures}
    if any(entry.figures.keys() != figures for entry in manifest.widths):
        raise _UnfitError("its widths have different figures")
    if odd := [name for name in (manifest.model, *figures) if not _NAME.fullmatch(name)]:
        raise _UnfitError(f"{odd[0]!r} is no name of a model or a figure")
    if min(manifest.num_classes, manifest.input.height, manifest.input.width) < 1:
        raise _UnfitError("num_classes, height and width have to be positive")
    _check_outputs(manifest)
    colours = (len(manifest.input.mean), len(manifest.input.stddev))
    if colours != (_COLOURS, _COLOURS) or min(manifest.input.stddev) <= 0:
        raise _UnfitError("mean and stddev have to be of three colours, stddev positive")
    if manifest.class_names and len(manifest.class_names) != manifest.num_classes:
        raise _UnfitError(f"{len(manifest.class_names)} class names for {manifest.num_classes} classes")
    if manifest.input.dtype not in ("float32", "uint8"):
        raise _UnfitError(f"the input's dtype is {manifest.input.dtype!r}")
    if manifest.input.fit not in ("crop", "pad"):
        raise _UnfitError(f"the input's fit is {manifest.input.fit!r}")
    if WEIGHTS not in manifest.files:
        raise _UnfitError(f"it does not list {WEIGHTS}")
    if odd := [name for name in manifest.files if not _NAME.fullmatch(name)]:
        raise _UnfitError(f"a file is called {odd[0]!r}, which is no path within the bundle")
    for name, programs in manifest.programs.items():
        if programs.keys() != keys:
            raise _UnfitError(f"{name} has programs of the widths {sorted(programs)}, not of {sorted(keys)}")
        for program in programs.values():
            if program.file not in manifest.files:
                raise _UnfitError(f"{name} has a program in {program.file!r}, which is not among the files")
            if unknown := [tensor for tensor in program.tensors if tensor not in manifest.tensors]:
                raise _UnfitError(f"{program.file} takes the tensor {unknown[0]!r}, which is not among the weights")


def _check_outputs(manifest: Manifest) -> None:
    """_UnfitError unless outputs are what the task puts out."""
    outputs = manifest.outputs
    if manifest.task == CLASSIFICATION:
        if outputs != {LOGITS: TensorEntry((manifest.num_classes,), "float32")}:
            raise _UnfitError(f"outputs are not {manifest.num_classes} logits")
    elif manifest.task != DETECTION:
        raise _UnfitError(f"the task is {manifest.task!r}")
    elif not outputs.keys() >= {"boxes", "labels", "scores", "there"}:
        raise _UnfitError(f"outputs are {', '.join(sorted(outputs))}, which are not a detector's")


def _is_inside(bundle: Path, path: Path) -> bool:
    """Whether a path is a file of the folder, rather than a link out of it."""
    return os.path.realpath(path).startswith(os.path.realpath(bundle) + os.sep) and path.is_file()


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _check_file(bundle: Path, name: str, entry: FileEntry) -> None:
    path = bundle / name
    if not _is_inside(bundle, path):
        raise UserError(f"{path} is missing from the bundle; export the network again, or copy the whole folder")
    size = path.stat().st_size
    if size != entry.bytes:
        raise UserError(f"{path} has {size:,} bytes instead of {entry.bytes:,}: it is truncated or altered")
    if file_entry(path) != entry:
        raise UserError(f"{path} was altered: its checksum is not the manifest's")


def _parsed(kind: Any, value: Any, where: str = "") -> Any:
    """A JSON value as a dataclass, tuple, dictionary or plain type, exactly; _UnfitError otherwise."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        fields = {field.name: field.type for field in dataclasses.fields(kind)}
        if not isinstance(value, dict) or value.keys() != fields.keys():
            raise _UnfitError(f"{where or 'the manifest'} has to have exactly {', '.join(fields)}")
        return kind(**{name: _parsed(fields[name], value[name], f"{where}.{name}".lstrip(".")) for name in fields})
    origin: Any = get_origin(kind)
    arguments: Any = get_args(kind)
    if origin is tuple and isinstance(value, list):
        return tuple(_parsed(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _parsed(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and type(value) in (int, float):
        if not math.isfinite(value):
            raise _UnfitError(f"{where} is not finite")
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    raise _UnfitError(f"{where} is {str(value)[:40]!r}")
