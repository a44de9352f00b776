"""The runs of a report, what was measured of them, and whether they can be compared."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any, TypeVar

import numpy as np
from ml_collections import ConfigDict

from slimjax.analysis.profile import WidthProfile, profile_model, total_params
from slimjax.analysis.timing import Latency
from slimjax.errors import UserError
from slimjax.models.network import SlimmableNetwork
from slimjax.reporting.layers import NormLayer
from slimjax.reporting.metrics import Curves
from slimjax.tasks.task import Batch, Figures, larger_is_better

_OF_THE_DATA = ("name", "data_dir", "eval_split")


@dataclass(frozen=True)
class Score:
    """The figure by which widths are judged.

    Attributes:
      key: of an evaluation's figures, percent.
      name: as people write it.
      title: of what shows it.
      training: the name of the logged curve that shows how it was learned, without `train/`,
      training_name: as people write that.
    """

    key: str
    name: str
    title: str
    training: str
    training_name: str

    @property
    def larger_is_better(self) -> bool:
        """Whether it is no error."""
        return larger_is_better(self.key)


SCORES = {
    "classification": Score("top1_error", "top-1 error", "Error", "top1_error", "top-1 error, %"),
    "detection": Score("box_ap", "box AP", "Average precision", "loss", "loss"),
}
"""By the task of a configuration."""


@dataclass(frozen=True)
class ReportedRun:
    """A trained run.

    Attributes:
      name: by which the report calls it.
      workdir: of the run.
      step: of the checkpoint.
      config: of the run.
      model: the network.
      variables: `params` and `batch_stats`.
      class_names: by label.
      curves: what it has logged.
      image_size: pixels of the images' side, see `slimjax.tasks.task.Task`.
      eval_batches: every image of the evaluation split once, padded and masked, in the same order at every call; see
        `slimjax.tasks.task.Task`.
      num_eval_batches: their number.
    """

    name: str
    workdir: str
    step: int
    config: ConfigDict
    model: SlimmableNetwork
    variables: Any
    class_names: tuple[str, ...]
    curves: Curves
    image_size: int
    eval_batches: Callable[[], Iterator[Batch]]
    num_eval_batches: int

    @property
    def score(self) -> Score:
        """By which its widths are judged."""
        return SCORES[self.config.task]

    @property
    def is_slimmable(self) -> bool:
        """Whether it has more than one width."""
        return len(self.model.widths) > 1

    @cached_property
    def profiles(self) -> dict[float, WidthProfile]:
        """Counts of every width."""
        return {row.width: row for row in profile_model(self.model, self.image_size)}

    @cached_property
    def total_params(self) -> int:
        """Parameters of the whole network, all widths' batch norms included."""
        return total_params(self.model)


@dataclass(frozen=True)
class Outcome:
    """What a width makes of the evaluation split, image by image.

    Attributes:
      predictions: classes [images] int32.
      confidences: the probability that is given to the predicted class, [images] float32, 0 to 1.
      is_right: [images] bool, as the evaluation counts.
    """

    predictions: np.ndarray
    confidences: np.ndarray
    is_right: np.ndarray

    @property
    def top1_error(self) -> float:
        """Percent."""
        return 100.0 * float(np.mean(~self.is_right))


@dataclass(frozen=True)
class TopImages:
    """The images for which a channel is highest.

    Attributes:
      layer: whose channel is looked at.
      channel: which of the widest's channels.
      images: for every width that has the channel, numbers of the images, the highest first.
    """

    layer: NormLayer
    channel: int
    images: Mapping[float, np.ndarray]


@dataclass(frozen=True)
class Measured(ABC):
    """A run with what was measured of it.

    Attributes:
      run: the run.
      latencies: of every width, one image; empty if nothing was timed.
    """

    run: ReportedRun
    latencies: Mapping[float, Latency]

    @property
    @abstractmethod
    def figures(self) -> Mapping[float, Figures]:
        """Of every width's evaluation."""

    @property
    @abstractmethod
    def num_images(self) -> int:
        """Of the evaluation split."""

    def score_at(self, width: float) -> float:
        """A width's figure by which it is judged, percent."""
        return self.figures[width][self.run.score.key]

    @property
    def name(self) -> str:
        """Of the run."""
        return self.run.name

    @property
    def series(self) -> str:
        """The name of its curve in plots of several runs: individual networks of one model share one."""
        return self.name if self.run.is_slimmable else f"individual {self.run.config.model.name}"

    @property
    def widths(self) -> tuple[float, ...]:
        """Of the run, ascending."""
        return self.run.model.widths

    def class_name(self, label: int) -> str:
        """Of a class."""
        return self.run.class_names[label] if self.run.class_names else str(label)


@dataclass(frozen=True)
class MeasuredClassifier(Measured):
    """A classifier.

    Attributes:
      labels: classes [images] int32.
      outcomes: of every width.
      top: the images that one channel answers to.
    """

    labels: np.ndarray
    outcomes: Mapping[float, Outcome]
    top: TopImages

    @property
    def figures(self) -> dict[float, Figures]:
        """See Measured: errors."""
        return {width: {"top1_error": outcome.top1_error} for width, outcome in self.outcomes.items()}

    @property
    def num_images(self) -> int:
        """See Measured."""
        return len(self.labels)


@dataclass(frozen=True)
class FoundObjects:
    """An image in which every width has looked for objects.

    Attributes:
      name: of the image's file.
      image: [height, width, 3] uint8, as the network sees it, without padding.
      truth: arrays of the objects that are in it, as `slimjax.tasks.detection.proposals.Detections`.
      found: likewise what every width has found.
    """

    name: str
    image: np.ndarray
    truth: Mapping[str, np.ndarray]
    found: Mapping[float, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class MeasuredDetector(Measured):
    """A detector.

    Attributes:
      precisions: figures of every width.
      num_evaluated: images of the evaluation split.
      examples: some of them.
    """

    precisions: Mapping[float, Figures]
    num_evaluated: int
    examples: Sequence[FoundObjects]

    @property
    def figures(self) -> Mapping[float, Figures]:
        """See Measured."""
        return self.precisions

    @property
    def num_images(self) -> int:
        """See Measured."""
        return self.num_evaluated


AnyMeasured = TypeVar("AnyMeasured", bound=Measured)


def names_of(workdirs: Sequence[str]) -> list[str]:
    """A short name for each workdir: its last folder, and as many above as tell it from the others.

    Raises:
      UserError: if one is given twice.
    """
    parts = [PurePath(workdir).parts for workdir in workdirs]
    for index, workdir in enumerate(workdirs):
        if parts[index] in parts[:index]:
            raise UserError(f"--workdir={workdir} is given twice; give each run once")
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names


def check_comparable(configs: Mapping[str, ConfigDict]) -> None:
    """UserError that names what differs, if runs are of different tasks or were not evaluated on the same images.

    Args:
      configs: of the runs, by workdir.
    """
    (first, of_first), *others = configs.items()
    for workdir, config in others:
        if config.task != of_first.task:
            raise UserError(
                f"--workdir={workdir} is a run of {config.task}, {first} of {of_first.task}; make a report of each"
            )
        for key in _OF_THE_DATA:
            if config.dataset[key] != of_first.dataset[key]:
                raise UserError(
                    f"--workdir={workdir} has dataset.{key}={config.dataset[key]!r}, {first} has "
                    f"{of_first.dataset[key]!r}; errors on different images do not compare, so make a report of each"
                )


def detailed(measured: Sequence[AnyMeasured]) -> list[AnyMeasured]:
    """The runs that are shown one by one: those of several widths, or the first where there is none."""
    return [of_run for of_run in measured if of_run.run.is_slimmable] or list(measured[:1])


def figure_name(key: str) -> str:
    """A figure of an evaluation as people write it."""
    name = key.replace("top1_error", "top-1 error").replace("_", " ")
    return re.sub(r"\bap", "AP", name)


def width_text(width: float) -> str:
    """A width as people write it."""
    return f"{width:g}"


def slug(name: str) -> str:
    """A run's name as part of a file's name."""
    return "".join(character if character.isalnum() else "_" for character in name)
