"""Checkpoints: orbax, asynchronous, each with the state, the configuration and the position in the data."""

import dataclasses
import errno
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial, reduce
from operator import getitem
from typing import IO, Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from ml_collections import ConfigDict
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from slimjax.configs import default
from slimjax.configuration import completed, plain
from slimjax.errors import UserError
from slimjax.paths import folder_path
from slimjax.tasks.dataset_info import DatasetInfo
from slimjax.tasks.task import Figures, larger_is_better
from slimjax.training.locks import lock
from slimjax.training.state import TrainState, Weights
from slimjax.versions import package_versions

FORMAT = 2
DIRECTORY = "checkpoints"
MEAN_ERROR = "mean_error"
"""By which the best checkpoint is kept, the lowest; what is larger the better it is counts negative."""

OF_THE_NETWORK = ("task", "model", "detection")
_OF_THE_DETECTOR = ("masks", "num_keypoints", "features", "box_features", "keypoint_features", "anchor_scale")
# How it trains and is evaluated, not what it is.
NOT_OF_THE_NETWORK = (
    "model.batch_norm_momentum",
    *(f"detection.{key}" for key in default.detection() if key not in _OF_THE_DETECTOR),
)
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


@dataclasses.dataclass(frozen=True)
class Description:
    """What a checkpoint says of itself.

    Attributes:
      step: updates done.
      config: the configuration of the run, as plain JSON values.
      num_classes: outputs of the classifier.
      examples_seen: training examples consumed; together with the seed and the number of devices it says where the data
        goes on.
      num_devices: on which it was trained, among which the images of a step are shared out.
      class_names: of the data set, one per label; empty where it was not at hand.
      class_ids: see slimjax.tasks.dataset_info.DatasetInfo.
      format: of this description.
    """

    step: int
    config: dict[str, Any]
    num_classes: int
    examples_seen: int
    num_devices: int
    class_names: Sequence[str] = ()
    class_ids: Sequence[int] = ()
    format: int = FORMAT


def describe(config: ConfigDict, num_classes: int, step: int, info: DatasetInfo | None = None) -> Description:
    """The description of a run's state after `step` updates, on a data set of which there may be information."""
    names, ids = (info.class_names, info.class_ids) if info else ((), ())
    return Description(step, plain(config), num_classes, step * config.batch_size, jax.device_count(), names, ids)


class Checkpoints:
    """The checkpoints of one workdir: the newest few and the best by mean error over the widths.

    Any number of processes may read them; one may write, see `claim`.
    """

    def __init__(self, workdir: os.PathLike[str], keep: int = 3) -> None:
        """Opens the workdir's checkpoints to read them.

        Args:
          workdir: made if it is absent, once something is saved.
          keep: how many of the newest stay; the best stays besides.
        """
        self.directory = folder_path(os.fspath(workdir), "--workdir") / DIRECTORY
        self._keep = keep
        self._lock: IO[str] | None = None
        self._writes = False

    def claim(self) -> None:
        """Becomes the one that writes here, and removes what a killed one has left half written.

        Raises:
          UserError: if another process writes here.
        """
        if self._writes:
            return
        self.close()
        # Of the processes of one run, the first stands for all.
        self._lock = lock(self.directory.parent) if jax.process_index() == 0 else None
        self._writes = True

    @cached_property
    def _manager(self) -> ocp.CheckpointManager:
        # orbax reads them when it starts, and says nothing of which one is damaged.
        for metrics in sorted(self.directory.glob("*/metrics/metrics")):
            with _damage_told(metrics.parents[1]):
                json.loads(metrics.read_text())
        newest = LatestN(self._keep)
        best = BestN(n=1, get_metric_fn=lambda m: m[MEAN_ERROR], reverse=True, keep_checkpoints_without_metrics=False)
        return ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy([newest, best]),
                best_fn=lambda m: m[MEAN_ERROR],
                best_mode="min",
                # What looks abandoned may be what another process is writing just now.
                cleanup_tmp_directories=self._writes,
                create=self._writes,
                save_root_metadata=False,
                # orbax would otherwise leave out, in silence, a checkpoint that falls due while one is being written.
                enable_should_save_is_saving_in_progress_check=False,
            ),
            item_names=("state", "description"),
        )

    def steps(self) -> list[int]:
        """Steps of all checkpoints, ascending; looking for them makes no folder."""
        return sorted(self._manager.all_steps()) if self.directory.exists() else []

    def save(
        self, state: TrainState, description: Description, figures: Mapping[float, Figures], best_figure: str
    ) -> None:
        """Copies the state and writes it in the background, after `claim`.

        Args:
          state: the state after `description.step` updates.
          description: what a later run needs to know.
          figures: of every width, if they were evaluated at this step; empty otherwise.
          best_figure: the one whose mean over the widths decides which checkpoint is the best.
        """
        self.claim()
        sign = -1 if larger_is_better(best_figure) else 1
        metrics = {MEAN_ERROR: sign * sum(f[best_figure] for f in figures.values()) / len(figures)} if figures else None
        saved = self._manager.save(
            description.step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                description=ocp.args.JsonSave({**dataclasses.asdict(description), "versions": package_versions()}),
            ),
            metrics=metrics,
        )
        if not saved:
            raise RuntimeError(f"orbax declined to save step {description.step} in {self.directory}")

    def description(self, step: int) -> Description:
        """What the checkpoint of a step says of itself.

        Raises:
          UserError: if it is not a slimjax checkpoint or is damaged.
        """
        with _damage_told(self.directory / str(step)):
            restored = self._manager.restore(step, args=ocp.args.Composite(description=ocp.args.JsonRestore()))
            stored = dict(restored["description"])
            if stored["format"] != FORMAT:
                raise ValueError(f"its format is {stored['format']}, this version reads {FORMAT}")
            stored["config"] = completed(stored["config"])
            # What older checkpoints lack has a default.
            known = {field.name for field in dataclasses.fields(Description)} & stored.keys()
            return Description(**{name: stored[name] for name in known})

    def restore(self, step: int, state: Any) -> TrainState:
        """The state of a checkpoint.

        Args:
          step: of the checkpoint.
          state: a TrainState of shapes with shardings, which is how it is laid out.

        Raises:
          UserError: if the checkpoint is damaged or holds something else.
        """
        with _damage_told(self.directory / str(step)):
            return self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(state)))["state"]

    def restore_weights(self, step: int, state: Any) -> Weights:
        """The weights of a checkpoint that are to be used, moving averages where it has some; nothing else is read.

        Args:
          step: of the checkpoint.
          state: a TrainState of shapes with shardings.

        Raises:
          UserError: if the checkpoint is damaged or holds something else.
        """
        weights = {"params": state.params, "batch_stats": state.batch_stats}
        has_averages = self.description(step).config["ema_decay"] > 0
        wanted = {"averaged": weights} if has_averages else weights
        with _damage_told(self.directory / str(step)):
            arguments = ocp.args.PyTreeRestore(
                wanted, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted), partial_restore=True
            )
            with ocp.CheckpointManager(
                self.directory, item_handlers={"state": ocp.PyTreeCheckpointHandler()}
            ) as manager:
                restored = manager.restore(step, args=ocp.args.Composite(state=arguments))["state"]
            return Weights(**(restored["averaged"] if has_averages else restored))

    def find(self, which: str) -> int:
        """The step of the `latest` or `best` checkpoint, or of the one with a given number.

        Raises:
          UserError: if there is none.
        """
        steps = self.steps()
        if not steps:
            workdir = self.directory.parent
            what = f"{self.directory} holds no checkpoints" if workdir.is_dir() else f"{workdir} is no folder"
            raise UserError(f"{what}; train there first, or give another --workdir")
        if which == "latest":
            return steps[-1]
        if which == "best":
            best = self._manager.best_step()
            if best is None:
                raise UserError(f"no checkpoint of {self.directory} was evaluated, so none is the best; use 'latest'")
            return best
        if which.isdecimal() and int(which) in steps:
            return int(which)
        raise UserError(f"checkpoint={which!r} is not there; choose latest, best, or one of the steps {steps}")

    def is_evaluated(self, step: int) -> bool:
        """Whether the checkpoint of a step was saved with figures, without which it cannot be the best."""
        return (self.directory / str(step) / "metrics").exists()

    def wait(self) -> None:
        """Returns once everything that was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Finishes writing, and lets others write."""
        if "_manager" in self.__dict__:
            self._manager.close()
            del self._manager
        if self._lock:
            self._lock.close()
        self._lock, self._writes = None, False


def check_same_network(
    stored: Description,
    config: ConfigDict,
    num_classes: int | None,
    path: epath.Path,
    source: str = "--workdir",
    ignored: Collection[str] = (),
) -> None:
    """UserError that names what differs, if a checkpoint is of another network than the configuration's.

    Args:
      stored: of the checkpoint.
      config: of this run.
      num_classes: of this run; None if that does not matter, since the classifier is not taken.
      path: of the checkpoint.
      source: the setting that named the checkpoint.
      ignored: of OF_THE_NETWORK, what may differ.
    """
    differences = [
        line
        for section in OF_THE_NETWORK
        for line in _differences(stored.config[section], plain(config)[section], section, NOT_OF_THE_NETWORK)
        if section not in ignored
    ]
    if num_classes not in (None, stored.num_classes):
        differences.append(f"num_classes: {stored.num_classes} in the checkpoint, {num_classes} here")
        if len(differences) == 1:
            remedy = (
                "Set --config.init_classifier=False to begin the classifier anew and take all else"
                if source == "config.init_from"
                else "Give the data set that it was trained on, or start a new --workdir with this one as "
                "--config.init_from and with --config.init_classifier=False"
            )
            raise UserError(f"{path} is of other classes: {differences[0]}. {remedy}")
    if differences:
        raise UserError(
            f"{path} is of another network: {'; '.join(differences)}. Give another {source}, or the configuration "
            "that the checkpoint was trained with"
        )


def check_continues(stored: Description, config: ConfigDict, path: epath.Path) -> None:
    """UserError that names what differs, if training cannot go on from a checkpoint under this configuration."""
    given = plain(config)
    # What a state holds and where the data goes on follow from these, and the place of incremental training's phases.
    fixed = ["optimizer", "batch_size", "switch_rule", "seed", "ema_decay", "dataset.name", "dataset.train_split"]
    if config.task == "detection":
        fixed.append("detection.with_empty")
    if config.switch_rule == "incremental":
        fixed += ["num_train_steps", "num_epochs"]
    differences = [line for key in fixed for line in _differences(_at(stored.config, key), _at(given, key), key)]
    if differences:
        raise UserError(
            f"{path} cannot be resumed: {'; '.join(differences)}. Take the old settings, or start a new workdir with "
            f"--config.init_from={path.parent.parent}"
        )


def changed_settings(stored: Description, config: ConfigDict) -> list[str]:
    """What differs between a checkpoint's configuration and devices and those of here, a line each."""
    devices = _differences(stored.num_devices, jax.device_count(), "devices, which see other images from here on")
    return devices + _differences(stored.config, plain(config), "")


def _differences(stored: Any, given: Any, prefix: str, ignored: Collection[str] = ()) -> list[str]:
    if prefix in ignored:
        return []
    if isinstance(stored, dict) and isinstance(given, dict):
        keys = sorted(stored.keys() | given.keys())
        dot = "." if prefix else ""
        return [
            line
            for key in keys
            for line in _differences(stored.get(key), given.get(key), f"{prefix}{dot}{key}", ignored)
        ]
    return [] if stored == given else [f"{prefix}: {_text(stored)} in the checkpoint, {_text(given)} here"]


def _at(config: dict[str, Any], key: str) -> Any:
    return reduce(getitem, key.split("."), config)


def _text(value: Any) -> str:
    return str(tuple(value)) if isinstance(value, list) else str(value)


@contextmanager
def _damage_told(path: epath.Path) -> Iterator[None]:
    """Turns what orbax raises about a checkpoint into a UserError that names the checkpoint."""
    previous = sys.unraisablehook
    sys.unraisablehook = partial(_without_abandoned_reads, previous)
    try:
        yield
    except MemoryError:
        raise
    # What orbax and tensorstore raise about damaged files is of no common class.
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]
        # A system that cannot read now, for want of rights, open files or a sound disk, says nothing of the checkpoint.
        if isinstance(error, OSError) and error.errno not in (None, *_MISSING):
            raise UserError(f"{path} cannot be read ({reason}); mend that, or give another --workdir") from error
        raise UserError(
            f"{path} is not a readable slimjax checkpoint ({reason}); if it is damaged, delete {path} to go on from "
            "the checkpoint before it, or give another --workdir"
        ) from error
    else:
        # After a failure it stays for good: reads that were begun go on, and end at no time that anything here is told.
        # It passes on every exception but theirs.
        sys.unraisablehook = previous


def _without_abandoned_reads(previous: Callable[[Any], None], unraisable: Any) -> None:
    """A hook for exceptions that nobody can catch; leaves out those of reads that orbax abandons after one has failed.

    They finish in threads of tensorstore, after the event loop that waited for them is gone; what failed is told.
    """
    if not (unraisable.exc_type is RuntimeError and str(unraisable.exc_value) == "Event loop is closed"):
        previous(unraisable)
