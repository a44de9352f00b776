"""Runs LiteRT programs, which are TFLite files, with LiteRT's interpreter on the CPU.

What is checked of a file, beyond its checksum: the interpreter verifies that it is a well-formed FlatBuffer, refusing
operators that it does not know and tensors whose indices or sizes do not fit. Here, signatures and the shapes and types
of what goes in and out are compared with the manifest. Nobody verifies what lies between: a file that somebody has
crafted can ask for any amount of memory and time, and may crash the process; run those of people you trust.
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, SignatureRunner

from slimjax.analysis.machine import available_cores, processor_name
from slimjax.chatter import without_lines
from slimjax.deploy.bundle import Manifest, signature_key, width_key
from slimjax.errors import UserError

INPUT, OUTPUT = "images", "logits"
"""Of every signature."""

MOST_DEFAULT_THREADS = 4
"""More seldom help: an image at a time is little work."""

# Printed when a process first prepares a program.
_CHATTER = b"Created TensorFlow Lite XNNPACK delegate for CPU."


def load(bundle: Path, manifest: Manifest, program: str, threads: int | None) -> "LiteRtPrograms":
    """See `slimjax.deploy.backends`."""
    widths = tuple(entry.width for entry in manifest.widths)
    files = sorted({manifest.programs[program][width_key(width)].file for width in widths})
    if len(files) > 1:
        raise UserError(f"{bundle}: {program} is in {' and '.join(files)}; all its widths have to be in one file")
    shape, dtype = manifest.input.image_shape, manifest.input.dtype
    return LiteRtPrograms(bundle / files[0], program, widths, shape, dtype, manifest.num_classes, threads)


class LiteRtPrograms:
    """All widths of one file; threads may share it.

    An interpreter may do one thing at a time, and has a copy of all weights, packed for the processor. So there is one,
    calls of several threads take turns, and `threads` share the work of one call. Programs take one image, since with
    an open batch size they would be neither folded nor fused: a batch is run image by image.
    """

    def __init__(
        self,
        path: Path,
        program: str,
        widths: Sequence[float],
        image_shape: Sequence[int],
        dtype: Any,
        num_classes: int,
        threads: int | None = None,
    ) -> None:
        """Reads the file and prepares every width.

        Args:
          path: of the file, which is mapped into memory and has to stay as it is.
          program: its name in a manifest.
          widths: of which it has to have signatures.
          image_shape: [height, width, 3].
          dtype: of the images.
          num_classes: logits of an image.
          threads: of a call; by default as many as there are cores, up to MOST_DEFAULT_THREADS.

        Raises:
          UserError: if it cannot be read, or does not have these very signatures.
        """
        self._path, self._program = path, program
        self._image_shape, self._dtype = tuple(image_shape), np.dtype(dtype)
        self._threads = threads or min(available_cores(), MOST_DEFAULT_THREADS)
        self._lock = threading.Lock()
        with without_lines(_CHATTER), self._reading():
            self._runners = self._prepared(widths)
            for runner in self._runners.values():
                self._check_details(runner.get_input_details(), INPUT, (1, *image_shape), self._dtype)
                self._check_details(runner.get_output_details(), OUTPUT, (1, num_classes), np.dtype(np.float32))

    def __call__(self, width: float, images: np.ndarray) -> np.ndarray:
        """Logits [batch, classes] of images [batch, height, width, 3], one after the other.

        Raises:
          UserError: if the interpreter fails, as a damaged program makes it.
        """
        runner, images = self._runners[width], np.ascontiguousarray(images)
        try:
            with self._lock:
                return np.concatenate([runner(**{INPUT: image[None]})[OUTPUT] for image in images])
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{self._path}: width {width:g} cannot be run ({_told(error)})") from None

    def warm_up(self, width: float, batch_size: int) -> None:
        """Runs an image, which allocates what any batch takes."""
        self(width, np.zeros((1, *self._image_shape), self._dtype))

    def device(self) -> str:
        """What it runs on, as measurements are filed."""
        return f"litert:{self._program}:{processor_name()} x{self._threads}"

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Tells in one line what the interpreter raises for files that it cannot read."""
        try:
            yield
        except UserError:
            raise
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{self._path} cannot be read as a LiteRT program ({_told(error)})") from None

    def _prepared(self, widths: Sequence[float]) -> dict[float, SignatureRunner]:
        interpreter = Interpreter(model_path=os.fspath(self._path), num_threads=self._threads)
        # Without it the first call would pack the weights, and print.
        interpreter.allocate_tensors()
        found, expected = set(interpreter.get_signature_list()), set(map(signature_key, widths))
        if found != expected:
            raise UserError(
                f"{self._path} has the signatures {', '.join(sorted(found))}; the manifest's widths call for "
                f"{', '.join(sorted(expected))}"
            )
        self._check_subgraphs()
        return {width: interpreter.get_signature_runner(signature_key(width)) for width in widths}

    def _check_subgraphs(self) -> None:
        """UserError if a signature is of a subgraph that is not there, which would crash the interpreter."""
        model = schema.Model.GetRootAs(np.memmap(self._path, np.uint8, "r"))
        there = range(model.SubgraphsLength())
        if any(model.SignatureDefs(index).SubgraphIndex() not in there for index in range(model.SignatureDefsLength())):
            raise UserError(f"{self._path} has a signature of a subgraph that it does not have")

    def _check_details(
        self, details: Mapping[str, Mapping[str, Any]], name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        """UserError unless a signature's inputs or outputs are one of that name, shape and type."""
        found = {key: (tuple(detail["shape"]), np.dtype(detail["dtype"])) for key, detail in details.items()}
        if found != {name: (shape, dtype)}:
            told = ", ".join(f"{key} {list(map(int, size))} {kind}" for key, (size, kind) in found.items()) or "nothing"
            raise UserError(f"{self._path} has {told} where the manifest says {name} {list(shape)} {dtype}")


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
