"""Runs a bundle at whatever width a call can afford, with jax, NumPy and safetensors: no flax, no code of the model.

runtime = SlimmableRuntime.load("bundle")
runtime.predict(images, width=0.5)
runtime.calibrate()
runtime.predict(images, budget_ms=8.0)
"""

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, astuple
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from slimjax.analysis.timing import Latency, time_in_turns
from slimjax.deploy.backends import Programs, load_programs
from slimjax.deploy.bundle import Manifest, Outputs, read_manifest, width_key
from slimjax.deploy.controller import ControllerReport, WidthController
from slimjax.deploy.criteria import Criteria
from slimjax.errors import UserError

Latencies: TypeAlias = dict[int, dict[float, Latency]]
"""By batch size and width."""


class SlimmableRuntime:
    """A network of a bundle, its weights on a device once, its width chosen by every call. Threads may share it."""

    def __init__(self, bundle: Path, manifest: Manifest, programs: Programs) -> None:
        """Puts together what `load` has read."""
        self.manifest = manifest
        self._bundle, self._programs = bundle, programs
        self._lock = threading.Lock()
        self._latencies = self._stored_latencies()
        self._controllers: dict[int, WidthController] = {}
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="slimjax-runtime")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        backend: str = "jax",
        program: str | None = None,
        threads: int | None = None,
        sha256: str | None = None,
    ) -> "SlimmableRuntime":
        """Reads a bundle, every file of it checked, and loads its programs.

        Args:
          path: the bundle's folder.
          backend: `jax`, which puts the weights on JAX's default device.
          program: of those in the bundle that the back end runs; its usual one by default.
          threads: that a call may use; the back end's own choice by default.
          sha256: of the bundle, as `slimjax.export` printed it. The bundle's own checksums tell damage only; this one,
            come by another way than the bundle, tells that nobody has exchanged it either.

        Raises:
          UserError: if it is no bundle, incomplete, altered or of a newer format, in which case the file is named; or
            if it has nothing for the back end, or that is not installed.
        """
        bundle = Path(path).expanduser().absolute()
        manifest = read_manifest(bundle, sha256)
        return cls(bundle, manifest, load_programs(backend, bundle, manifest, program, threads))

    @property
    def widths(self) -> tuple[float, ...]:
        """Ascending."""
        return tuple(entry.width for entry in self.manifest.widths)

    @property
    def input_shape(self) -> tuple[int | None, int, int, int]:
        """Of images, batch first, which can be any."""
        return (None, *self.manifest.input.image_shape)

    def predict(
        self,
        images: np.ndarray,
        *,
        width: float | None = None,
        budget_ms: float | None = None,
        max_macs: float | None = None,
        max_top1_error: float | None = None,
        costs: Mapping[float, float] | None = None,
        max_cost: float | None = None,
    ) -> Outputs:
        """Classifies images, or finds objects in them; at the widest, unless one of the criteria says otherwise.

        Args:
          images: [batch, height, width, 3], of the bundle's dtype: normalised float32, or uint8.
          width: to run at.
          budget_ms: within which the call is to return; the controller chooses, see `calibrate`. Compiling for the
            first one is not in it.
          max_macs: multiply-adds of an image; the widest that takes no more.
          max_top1_error: the narrowest whose measured error, %, is no larger.
          costs: of one image at each width, such as mJ; the widest that costs no more than `max_cost`.
          max_cost: goes with `costs`.

        Returns:
          Logits [batch, classes], float32, of a classifier. A detector returns a dictionary of arrays. `boxes` [batch,
          detections, 4] are x1, y1, x2, y2 in pixels, the best first, with their `labels`, their `scores` from 0 to 1,
          and `there`, which is False where fewer were found. Some have `masks` [batch, detections, size, size],
          probabilities within each box, or `keypoints` [batch, detections, keypoints, 3], x, y and score.

        Raises:
          UserError: if images or a width are not the bundle's, several criteria are given, or none of the widths meets
            the one that is given.
        """
        criteria = Criteria(width, budget_ms, max_macs, max_top1_error, costs, max_cost)
        return self._predict(images, criteria, time.perf_counter())

    def predict_async(self, images: np.ndarray, **criteria: Any) -> "Future[Outputs]":
        """As `predict`, on a thread of the runtime's own, one call after the other; returns at once.

        A budget begins now: what the call waits for others is in it, and the width is chosen for what is left. The
        images are copied, so that the caller may change them.
        """
        asked_at = time.perf_counter()
        self._check_images(images)
        # The caller may have the next images written where these are.
        return self._worker.submit(self._predict, images.copy(), Criteria(**criteria), asked_at)

    def warm_up(self, batch_sizes: Iterable[int] = (1,)) -> None:
        """Compiles all widths for batches of these sizes; what was not warmed up compiles when it first comes."""
        for batch_size in _checked_sizes(batch_sizes):
            for width in self.widths:
                self._programs.warm_up(width, batch_size)

    def calibrate(self, batch_sizes: Iterable[int] = (1,), repeats: int = 50) -> Latencies:
        """Measures the latency of every width on this device, and keeps it in a file beside the bundle.

        Widths take turns, so that a machine whose speed drifts favours none.

        Args:
          batch_sizes: of the calls to be made later.
          repeats: calls of each width.

        Returns:
          Latencies by batch size and width.

        Raises:
          UserError: if a number is below 1, or the file cannot be written.
        """
        batch_sizes = _checked_sizes(batch_sizes)
        if not isinstance(repeats, int) or repeats < 1:
            raise UserError(f"repeats={repeats!r} has to be a whole number of at least 1")
        for batch_size in batch_sizes:
            images = np.zeros((batch_size, *self.input_shape[1:]), self.manifest.input.dtype)
            measured = time_in_turns({width: partial(self._programs, width, images) for width in self.widths}, repeats)
            with self._lock:
                self._latencies[batch_size] = measured
                self._controllers.pop(batch_size, None)
        with self._lock:
            self._store_latencies()
            return dict(self._latencies)

    def report(self) -> dict[int, ControllerReport]:
        """What calls with a budget have led to, by batch size."""
        with self._lock:
            return {batch_size: controller.report() for batch_size, controller in self._controllers.items()}

    def _predict(self, images: np.ndarray, criteria: Criteria, asked_at: float) -> Outputs:
        self._check_images(images)
        criteria.check()
        if criteria.budget_ms is None:
            return self._programs(criteria.choose(self.manifest), images)
        left_ms = criteria.budget_ms - (time.perf_counter() - asked_at) * 1e3
        controller = self._controller(len(images))
        began = time.perf_counter()
        width = controller.choose(left_ms)
        outputs = self._programs(width, images)
        controller.observe(width, left_ms, (time.perf_counter() - began) * 1e3)
        return outputs

    def _controller(self, batch_size: int) -> WidthController:
        with self._lock:
            if batch_size in self._controllers:
                return self._controllers[batch_size]
            latencies = self._latencies.get(batch_size)
        if latencies is None:
            raise UserError(
                f"budget_ms is given, but batches of {batch_size} were not measured on this device; call "
                f"runtime.calibrate(batch_sizes=({batch_size},)) once"
            )
        self.warm_up((batch_size,))
        measured = {width: latency.p95_ms for width, latency in latencies.items()}
        with self._lock:
            return self._controllers.setdefault(batch_size, WidthController(measured))

    def _check_images(self, images: np.ndarray) -> None:
        _, *shape = self.input_shape
        if not isinstance(images, np.ndarray):
            raise UserError(f"images are a {type(images).__name__}, not a NumPy array; give numpy.asarray of them")
        if images.ndim != 4 or list(images.shape[1:]) != shape or not len(images):
            wanted = f"[batch, {', '.join(map(str, shape))}], batch at least 1"
            raise UserError(
                f"images of shape {images.shape} have to be {wanted}; resize, and stack them along the first"
            )
        if images.dtype != self.manifest.input.dtype:
            meaning = {"float32": "normalised by the manifest's mean and stddev", "uint8": "colours of 0 to 255"}
            wanted = self.manifest.input.dtype
            raise UserError(f"images are {images.dtype}, this bundle takes {wanted}: {meaning[wanted]}")

    @property
    def _latency_file(self) -> Path:
        return self._bundle.with_name(f"{self._bundle.name}.latency.json")

    @property
    def _latency_key(self) -> str:
        """Of this device and these programs: another network in the same place was measured by nobody."""
        programs = "".join(self.manifest.files[name].sha256 for name in sorted(self.manifest.files))
        return f"{self._programs.device()} {hashlib.sha256(programs.encode()).hexdigest()[:16]}"

    def _all_stored(self) -> dict[str, Any]:
        try:
            stored = json.loads(self._latency_file.read_text())
        except (OSError, ValueError, RecursionError):
            return {}
        return stored if isinstance(stored, dict) else {}

    def _stored_latencies(self) -> Latencies:
        """Those of this device; what is not of the form that `calibrate` writes counts as not measured."""
        of_device: Any = self._all_stored().get(self._latency_key, {})
        try:
            latencies = {
                int(batch_size): {
                    width: Latency(**{key: float(ms) for key, ms in of_batch[width_key(width)].items()})
                    for width in self.widths
                }
                for batch_size, of_batch in of_device.items()
            }
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            return {}
        all_ms = [ms for of_batch in latencies.values() for latency in of_batch.values() for ms in astuple(latency)]
        return latencies if all(0 < ms < math.inf for ms in all_ms) else {}

    def _store_latencies(self) -> None:
        of_this = {
            str(batch_size): {width_key(width): asdict(latency) for width, latency in of_batch.items()}
            for batch_size, of_batch in self._latencies.items()
        }
        stored = self._all_stored()
        # Another process may have measured other batch sizes meanwhile.
        of_device = stored.get(self._latency_key)
        content = {**stored, self._latency_key: {**(of_device if isinstance(of_device, dict) else {}), **of_this}}
        unfinished = self._latency_file.with_suffix(f".{os.getpid()}.partial")
        try:
            unfinished.write_text(json.dumps(content, indent=1) + "\n")
            unfinished.replace(self._latency_file)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise UserError(
                f"{self._latency_file} cannot be written ({error.strerror}); put the bundle into a folder that is yours"
            ) from None


def _checked_sizes(batch_sizes: Iterable[int]) -> tuple[int, ...]:
    """Batch sizes as a tuple; UserError unless they are whole numbers of at least 1."""
    sizes = tuple(batch_sizes) if isinstance(batch_sizes, Iterable) else ()
    if not sizes or not all(isinstance(size, int) and size >= 1 for size in sizes):
        raise UserError(f"batch_sizes={batch_sizes!r} has to be whole numbers of at least 1, such as (1, 8)")
    return sizes
