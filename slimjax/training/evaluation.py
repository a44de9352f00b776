"""Evaluation and calibration of every width, through the task's own data."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh, NamedSharding

from slimjax.compilation import compile_all, compiler_options
from slimjax.errors import UserError
from slimjax.nn.tracing import active_masks
from slimjax.tasks import colours
from slimjax.tasks.task import Batch, Figures, Task, Tree
from slimjax.training.mesh import DATA, REPLICATED, SPLIT, platform_of, settled
from slimjax.training.prefetch import device_batches
from slimjax.training.progress import Progress, figures_line


class Evaluator:
    """Evaluates all widths of a task in one pass over its data: every image is decoded once."""

    def __init__(self, task: Task, mesh: Mesh, progress: Progress) -> None:
        """Prepares one program for each width and shape of images; they compile when images of a shape first come."""
        self._task, self._mesh, self._progress = task, mesh, progress
        self._programs: dict[tuple[int, ...], dict[float, jax.stages.Compiled]] = {}

    def __call__(
        self,
        params: Tree,
        batch_stats: Tree,
        is_interrupted: Callable[[], bool] = lambda: False,
        results: epath.Path | None = None,
    ) -> dict[float, Figures]:
        """Figures of every width, each example of the split counted exactly once.

        Args:
          params: the parameters.
          batch_stats: running statistics of every width.
          is_interrupted: asked before every batch.
          results: folder for what every width has found, see `Task.figures`; None writes nothing.

        Returns:
          The figures by width; none if it was interrupted.

        Raises:
          UserError: if the split is empty.
        """
        metrics = self.metrics(params, batch_stats, is_interrupted)
        return {
            width: self._task.figures(of_width, results / f"width_{width:g}" if results else None)
            for width, of_width in metrics.items()
        }

    def metrics(
        self, params: Tree, batch_stats: Tree, is_interrupted: Callable[[], bool] = lambda: False
    ) -> dict[float, Any]:
        """The merged metrics of every width, of which `Task.figures` makes figures; see `__call__`."""
        totals: dict[float, Any] = {}
        before: list[Any] = []
        batches = device_batches(self._mesh, self._task.eval_batches())
        count, so_far = self._task.num_eval_batches, partial(self._figures_so_far, totals)
        for batch in self._progress.track(batches, "evaluating", count, so_far):
            if is_interrupted():
                return {}
            shape = batch["image"].shape
            if shape not in self._programs:
                with self._progress.announced("compiling the evaluation"):
                    self._programs[shape] = self._compiled(params, batch_stats, batch)
            for width, program in self._programs[shape].items():
                metrics = settled(self._mesh, program(params, batch_stats, batch))
                totals[width] = totals[width].merge(metrics) if width in totals else metrics
            # One batch behind, so that the devices always have work, and never more batches than that.
            jax.block_until_ready(before)
            before = list(totals.values())
        if not totals:
            raise UserError("the evaluation split has no examples; set dataset.eval_split to one that has")
        return totals

    def _figures_so_far(self, totals: Mapping[float, Any]) -> str:
        """The best figure of every width, where the task tells it of a part of the batches."""
        if not self._task.has_running_figures:
            return ""
        # On the host, since only the process that shows them asks for them.
        figures = {width: self._task.figures(jax.device_get(metrics)) for width, metrics in totals.items()}
        return figures_line(figures, self._task.best_figure, "%")

    def _compiled(self, params: Tree, batch_stats: Tree, batch: Tree) -> dict[float, jax.stages.Compiled]:
        def compiled(width: float) -> jax.stages.Compiled:
            def metrics_at(params: Tree, batch_stats: Tree, batch: Tree) -> Any:
                return self._task.metrics_at(params, batch_stats, batch, width).over_devices(DATA)

            return _jit_over(self._mesh, metrics_at).lower(params, batch_stats, batch).compile()

        return compile_all(platform_of(self._mesh), compiled, self._task.model.widths)


def calibrate_statistics(task: Task, mesh: Mesh, params: Tree, batch_stats: Tree, batches: Iterable[Batch]) -> Tree:
    """Batch-norm statistics of every width anew, as the cumulative mean over some training batches (US-Nets, 3.3).

    Every width is calibrated by itself. Statistics that widths share, such as MobileNet v2's tail, become the mean over
    the widths that read them; a mean of variances leaves out how far the widths' means lie apart.

    Args:
      task: whose model is calibrated.
      mesh: of all devices.
      params: the parameters, unchanged.
      batch_stats: old statistics, of which nothing remains where a width reads.
      batches: host batches of training images.

    Returns:
      New `batch_stats`.

    Raises:
      UserError: if there are no batches.
    """
    masks = {width: active_masks(task.model, width, "batch_stats") for width in task.model.widths}
    programs = [_jit_over(mesh, _add_statistics(task, width, masks[width]), 1, 3) for width in masks]
    totals, count = jax.tree.map(jnp.zeros_like, batch_stats), 0
    seen = ({name: host_batch[name] for name in colours.SEEN if name in host_batch} for host_batch in batches)
    for batch in device_batches(mesh, seen):
        for program in programs:
            totals = settled(mesh, program(params, batch_stats, totals, batch))
        count += 1
    if not count:
        raise UserError("calibration needs at least one batch; raise calibration_batches")
    reads = jax.tree.map(lambda *of_widths: count * sum(mask.astype(int) for mask in of_widths), *masks.values())
    return jax.tree.map(
        lambda total, n, old: jnp.where(n > 0, total / jnp.maximum(n, 1), old), totals, reads, batch_stats
    )


def _add_statistics(task: Task, width: float, mask: Tree) -> Callable[..., Tree]:
    """A function that adds the statistics of a batch at a width to the totals."""
    # Without momentum the running statistics after a batch are those of the batch.
    forgetful = task.model.clone(batch_norm_momentum=0.0)

    def add(params: Tree, batch_stats: Tree, totals: Tree, batch: Tree) -> Tree:
        variables = {"params": params, "batch_stats": batch_stats}
        _, updated = forgetful.apply(variables, batch["image"], width=width, train=True, mutable=["batch_stats"])
        of_batch = jax.lax.pmean(updated["batch_stats"], DATA)
        return jax.tree.map(lambda total, new, read: total + jnp.where(read, new, 0), totals, of_batch, mask)

    return add


def _jit_over(mesh: Mesh, function: Callable[..., Any], batch_arguments: int = 1, other_arguments: int = 2) -> Any:
    """Runs a function on every device: leading arguments replicated, the last ones split by examples."""
    specs = (REPLICATED,) * other_arguments + (SPLIT,) * batch_arguments
    return jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=REPLICATED, check_vma=False),
        in_shardings=tuple(NamedSharding(mesh, spec) for spec in specs),
        out_shardings=NamedSharding(mesh, REPLICATED),
        compiler_options=compiler_options(platform_of(mesh)),
    )
