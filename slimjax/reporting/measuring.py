"""Measures classifiers, by one pass over their evaluation split, and the latency of whatever is reported on."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from slimjax.analysis.latency import check_measurable, forward_passes
from slimjax.analysis.timing import Latency, Track, time_in_turns, untracked
from slimjax.compilation import compile_all, compiler_options
from slimjax.errors import UserError
from slimjax.models.network import SlimmableNetwork
from slimjax.nn.tracing import Path, variables_at
from slimjax.reporting.layers import NormLayer
from slimjax.reporting.runs import MeasuredClassifier, Outcome, ReportedRun, TopImages
from slimjax.tasks import colours
from slimjax.tasks.classification.metrics import top_k_error
from slimjax.training.progress import Progress, figures_line

TOP_IMAGES = 8
"""Images of a channel at a width."""

LATENCY_REPEATS = 50


class _Strongest:
    """Of every channel the images that it answers to most, and how well it tells classes apart, over batches."""

    def __init__(self, num_classes: int, channels: int) -> None:
        self.scores = np.zeros((0, channels), np.float32)
        self.images = np.zeros((0, channels), int)
        self._counts, self._sums = np.zeros(num_classes), np.zeros((num_classes, channels))
        self._squares = np.zeros(channels)

    def add(self, scores: np.ndarray, labels: np.ndarray, first_image: int) -> None:
        """Takes in a batch: scores [batch, channels], labels [batch]; images are numbered from `first_image`."""
        numbers = np.broadcast_to(first_image + np.arange(len(scores))[:, None], scores.shape)
        all_scores, all_images = np.concatenate([self.scores, scores]), np.concatenate([self.images, numbers])
        # Stable: of equal scores the earlier image wins, however the images are batched.
        order = np.argsort(-all_scores, axis=0, kind="stable")[:TOP_IMAGES]
        self.scores = np.take_along_axis(all_scores, order, 0)
        self.images = np.take_along_axis(all_images, order, 0)
        wide = scores.astype(np.float64)
        np.add.at(self._counts, labels, 1)
        np.add.at(self._sums, labels, wide)
        self._squares += np.square(wide).sum(0)

    def selectivity(self) -> np.ndarray:
        """Of every channel, the share of its scores' variance that lies between the classes: [channels], 0 to 1."""
        total, seen = self._counts.sum(), self._counts > 0
        of_mean = np.square(self._sums.sum(0)) / total
        between = (np.square(self._sums[seen]) / self._counts[seen, None]).sum(0) - of_mean
        # A channel that is the same everywhere tells nothing apart, whatever rounding makes of 0 / 0.
        variance = np.maximum(self._squares - of_mean, 1e-9 * self._squares + 1e-30)
        return between / variance


def measure_classifier(
    run: ReportedRun, layer: NormLayer, channel: int | None, progress: Progress
) -> MeasuredClassifier:
    """What every width of a run answers, and the images that one channel of a layer answers to.

    Args:
      run: the run.
      layer: of its network.
      channel: which of the widest's; None takes the one that every width has and whose answers, at the widest, tell
        classes apart best.
      progress: shows how far it is.

    Raises:
      UserError: if the evaluation split is empty.
    """
    widths, seen = run.model.widths, 0
    answers: dict[float, list[tuple[np.ndarray, ...]]] = {width: [] for width in widths}
    strongest = {width: _Strongest(run.model.num_classes, len(layer.channels[width])) for width in widths}
    labels: list[np.ndarray] = []
    programs: Mapping[float, Any] = {}

    def errors_so_far() -> str:
        figures = {width: {"top1_error": _outcome(of_batches).top1_error} for width, of_batches in answers.items()}
        return figures_line(figures, "top1_error", "%")

    for batch in progress.track(run.eval_batches(), "evaluating", run.num_eval_batches, errors_so_far):
        if not programs:
            with progress.announced(f"compiling the evaluation of {run.name}"):
                programs = _programs(run, layer, batch["image"], batch["label"])
        is_real = batch["mask"] > 0
        labels.append(batch["label"][is_real])
        for width, (program, variables) in programs.items():
            outputs = program(variables, batch["image"], batch["label"])
            *answer, scores = (np.asarray(output)[is_real] for output in outputs)
            answers[width].append(tuple(answer))
            strongest[width].add(scores, labels[-1], seen)
        seen += len(labels[-1])
    if not seen:
        raise UserError("the evaluation split has no examples; set dataset.eval_split to one that has")
    outcomes = {width: _outcome(of_batches) for width, of_batches in answers.items()}
    top = _top_images(layer, channel, strongest)
    return MeasuredClassifier(run, {}, labels=np.concatenate(labels), outcomes=outcomes, top=top)


def _outcome(of_batches: Sequence[tuple[np.ndarray, ...]]) -> Outcome:
    return Outcome(*map(np.concatenate, zip(*of_batches, strict=True)))


def measure_latencies(runs: Sequence[ReportedRun], track: Track = untracked) -> list[dict[float, Latency]]:
    """The latency of one image at every width of every run; all of them take turns on JAX's default device."""
    calls = {}
    for run in runs:
        check_measurable(run.model, run.image_size, 1, LATENCY_REPEATS)
        for width, call in forward_passes(run.model, run.variables, run.image_size, 1).items():
            calls[run.name, width] = call
    latencies = time_in_turns(calls, LATENCY_REPEATS, track)
    return [{width: latency for (name, width), latency in latencies.items() if name == run.name} for run in runs]


def collect_images(run: ReportedRun, numbers: Collection[int]) -> dict[int, np.ndarray]:
    """Images of the evaluation split by their numbers in it, [height, width, 3] uint8, read anew."""
    missing, first = set(numbers), 0
    images: dict[int, np.ndarray] = {}
    for batch in run.eval_batches():
        if not missing:
            break
        real = batch["image"][batch["mask"] > 0]
        for number in sorted(number for number in missing if number < first + len(real)):
            images[number] = real[number - first].copy()
            missing.remove(number)
        first += len(real)
    return images


def _programs(
    run: ReportedRun, layer: NormLayer, images: np.ndarray, labels: np.ndarray
) -> dict[float, tuple[Any, Any]]:
    """For every width a compiled program and its variables: to predictions, confidences, whether right, and scores."""
    options = compiler_options(jax.default_backend())
    on_device = jax.device_put(run.variables)

    def compiled(width: float) -> tuple[Any, Any]:
        read = variables_at(run.model, on_device, width)
        answer = _answering(run.model, layer.path, width)
        return jax.jit(answer, compiler_options=options).lower(read, images, labels).compile(), read

    return compile_all(jax.default_backend(), compiled, run.model.widths)


def _answering(model: SlimmableNetwork, layer: Path, width: float) -> Any:
    def answer(variables: Any, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, ...]:
        logits: Any
        logits, kept = model.apply(
            variables,
            colours.normalised({"image": images}),
            width=width,
            capture_intermediates=lambda module, method: module.path == layer and method == "__call__",
            mutable=["intermediates"],
        )
        ((*_, output),) = flatten_dict(kept["intermediates"]).values()
        return (
            jnp.argmax(logits, -1).astype(jnp.int32),
            jnp.max(jax.nn.softmax(logits), -1),
            top_k_error(logits, labels, 1) == 0,
            # At its strongest place: what a channel looks for need not fill the image.
            jnp.max(output.astype(jnp.float32), axis=(1, 2)),
        )

    return answer


def _top_images(layer: NormLayer, channel: int | None, strongest: Mapping[float, _Strongest]) -> TopImages:
    if channel is None:
        widest = max(strongest)
        is_common = np.isin(layer.channels[widest], layer.common_channels)
        best = np.argmax(np.where(is_common, strongest[widest].selectivity(), -1.0))
        channel = int(layer.channels[widest][best])
    images: dict[float, np.ndarray] = {}
    for width, of_width in strongest.items():
        index = layer.index_of(channel, width)
        if index is not None:
            images[width] = of_width.images[:, index]
    return TopImages(layer, channel, images)
