"""Runs ONNX programs with ONNX Runtime: one file and one session for all widths."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from slimjax.analysis.machine import available_cores, processor_name
from slimjax.deploy.bundle import Manifest, width_key
from slimjax.errors import UserError

IMAGES, WIDTH, LOGITS = "images", "width", "logits"
"""Names of a program's inputs and its output."""

WIDTHS = "widths"
"""Key of a file's metadata under which its widths stand, such as `0.25,0.5,1`."""

_TYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}
_NO_MESSAGES = 4


def load(bundle: Path, manifest: Manifest, program: str, threads: int | None) -> "OnnxRuntimePrograms":
    """See `slimjax.deploy.backends`."""
    files = sorted({entry.file for entry in manifest.programs[program].values()})
    if len(files) != 1:
        raise UserError(f"{bundle} has its {program} programs in {', '.join(files)}; one file has to hold all widths")
    path, shape = bundle / files[0], manifest.input.image_shape
    widths = [entry.width for entry in manifest.widths]
    return OnnxRuntimePrograms(
        path, path.read_bytes(), widths, shape, manifest.input.dtype, manifest.num_classes, threads
    )


class OnnxRuntimePrograms:
    """All widths in one session; threads may share it."""

    def __init__(
        self,
        path: Path,
        content: bytes,
        widths: Sequence[float],
        image_shape: Sequence[int],
        dtype: Any,
        num_classes: int,
        threads: int | None = None,
    ) -> None:
        """Opens a session, on the first CUDA device if this build of ONNX Runtime has that, else on the CPU.

        Args:
          path: of the file, for messages.
          content: of the file.
          widths: that it has.
          image_shape: [height, width, 3].
          dtype: of the images.
          num_classes: logits of an image.
          threads: of a call, ONNX Runtime's own choice by default, which is one for each core.

        Raises:
          UserError: if the file cannot be read, refers to others, or has other widths, inputs or outputs than these.
        """
        self._path, self._threads = path, threads
        self._image_shape, self._dtype, self._classes = tuple(image_shape), np.dtype(dtype), num_classes
        self._check_stands_alone(content)
        options = onnxruntime.SessionOptions()
        # What fails is raised, and told by that once.
        options.log_severity_level = _NO_MESSAGES
        options.intra_op_num_threads = threads or 0
        # Otherwise the content decides, and may be of a form that was not looked through for references.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        available = onnxruntime.get_available_providers()
        wanted = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
        try:
            # Falling back to other providers prints to stdout, and is of no use where the file is at fault.
            self._session = onnxruntime.InferenceSession(content, options, wanted, enable_fallback=0)
        # Whatever ONNX Runtime raises for a file from elsewhere.
        except Exception as error:
            raise UserError(f"{path} cannot be loaded by ONNX Runtime ({_told(error)})") from None
        self._check_fits(widths)

    def __call__(self, width: float, images: np.ndarray) -> np.ndarray:
        """Logits [batch, classes] of images [batch, height, width, 3]."""
        try:
            (logits,) = self._session.run([LOGITS], {IMAGES: images, WIDTH: np.array(width, np.float32)})
        except Exception as error:
            raise UserError(f"{self._path} failed at width {width:g} ({_told(error)})") from None
        if logits.shape != (len(images), self._classes):
            raise UserError(f"{self._path} put out {logits.shape}, not {self._classes} logits for each image")
        return logits

    def warm_up(self, width: float, batch_size: int) -> None:
        """Runs a batch of this size once."""
        self(width, np.zeros((batch_size, *self._image_shape), self._dtype))

    def device(self) -> str:
        """What it runs on, as measurements are filed."""
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider").lower()
        threads = f"{self._threads} threads" if self._threads else f"x{available_cores()}"
        return f"onnxruntime:{provider}:{processor_name()} {threads}"

    def _check_stands_alone(self, content: bytes) -> None:
        """UserError if a tensor lies elsewhere: ONNX lets a file name others, or places in memory, to read from."""
        try:
            refers = any(_references(memoryview(content)))
        except (IndexError, ValueError):
            raise UserError(f"{self._path} cannot be read as ONNX; export the network again") from None
        if refers:
            raise UserError(f"{self._path} refers to data outside of itself, which a bundle's programs must not")

    def _check_fits(self, widths: Sequence[float]) -> None:
        """UserError unless the file has these widths and takes and puts out what it should."""
        session = self._session
        found = session.get_modelmeta().custom_metadata_map.get(WIDTHS)
        expected = ",".join(map(width_key, widths))
        if found != expected:
            raise UserError(f"{self._path} has the widths {str(found)[:80]}, the manifest says {expected}")
        images = (_TYPES[self._dtype.name], list(self._image_shape))
        inputs = {entry.name: (entry.type, entry.shape[1:]) for entry in session.get_inputs()}
        batches = [entry.shape[:1] for entry in (*session.get_inputs(), *session.get_outputs()) if entry.name != WIDTH]
        if inputs != {IMAGES: images, WIDTH: ("tensor(float)", [])} or any(isinstance(b, int) for (b,) in batches):
            raise UserError(f"{self._path} takes other inputs than the manifest says")
        outputs = {entry.name: (entry.type, entry.shape[1:]) for entry in session.get_outputs()}
        if outputs != {LOGITS: ("tensor(float)", [self._classes])}:
            raise UserError(f"{self._path} puts out something else than {self._classes} logits an image")


# The messages of ONNX's files (onnx.proto) in which tensors can be, by the numbers of the fields that hold them.
_MESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse_tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse_tensor", 23: "sparse_tensor"},
    "sparse_tensor": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def _references(model: memoryview) -> Iterator[bool]:
    """Of every tensor's field, whether it says that the tensor lies elsewhere.

    Raises:
      IndexError, ValueError: if the file is damaged.
    """
    open_messages = [("model", model)]
    while open_messages:
        kind, message = open_messages.pop()
        for number, value in _fields(message):
            if kind == "tensor":
                yield number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)
            elif number in _MESSAGES[kind] and isinstance(value, memoryview):
                open_messages.append((_MESSAGES[kind][number], value))


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Numbers and values of a protobuf message's fields (https://protobuf.dev/programming-guides/encoding)."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, form = tag >> 3, tag & 7
        if form == 0:
            value, place = _varint(message, place)
            yield number, value
            continue
        if form not in (1, 2, 5):
            raise ValueError(f"field {number} is of the unknown form {form}")
        size, place = _varint(message, place) if form == 2 else ({1: 8, 5: 4}[form], place)
        if place + size > len(message):
            raise ValueError(f"field {number} is longer than its message")
        yield number, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and the place behind it."""
    value = 0
    for index in range(10):
        byte = message[place + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, place + index + 1
    raise ValueError("a number is too long")


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
