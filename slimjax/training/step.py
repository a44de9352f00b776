"""The train step: algorithm 1 of SNet over a mesh of devices.

For each width: switch the batch norm, forward, loss, gradient; sum the gradients; reduce them over the devices once;
one update. The same local functions are composed in two ways: `fused`, one program for the whole step, and `per_width`,
one program for each width, which hand the sums on, and one for the update. The second bounds the memory by that of the
widest width, lets the widths compile side by side, and compiles at most two programs a width when they are drawn at
random.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from slimjax.compilation import compile_all, compiler_options
from slimjax.tasks.task import Task, Tree
from slimjax.training.algorithm import (
    LocalSums,
    StepMetrics,
    add_width,
    reduced_update,
    summed_gradients,
    trained_elements,
)
from slimjax.training.mesh import DATA, REPLICATED, SPLIT, platform_of, settled
from slimjax.training.parts import Flat, Parts
from slimjax.training.state import TrainState
from slimjax.training.switches import Stage, Turn

ProgramKey = tuple[str, tuple[float, ...], Stage | None]
"""What a compiled program does, for which widths, and in which stage of incremental training."""


class TrainStep:
    """Runs steps, compiling what a turn needs when it first comes up."""

    def __init__(
        self,
        task: Task,
        tx: optax.GradientTransformation,
        mesh: Mesh,
        fused: bool,
        *,
        accumulate_steps: int = 1,
        ema_decay: float = 0.0,
    ) -> None:
        """Prepares the step.

        Args:
          task: what is trained.
          tx: the optimiser.
          mesh: of all devices, with the axis `data`.
          fused: one program for the whole step rather than one for each width and one for the update.
          accumulate_steps: parts in which each device takes its share of a batch, see `add_width`.
          ema_decay: of the weights' moving averages, in states that have some.
        """
        self.fused = fused
        self._accumulate_steps, self._ema_decay = accumulate_steps, ema_decay
        self._task, self._tx, self._mesh = task, tx, mesh
        self._parts = Parts(task.model)
        self._compiled: dict[ProgramKey, jax.stages.Compiled] = {}
        self._zeros: dict[float, LocalSums] = {}

    def __call__(self, state: TrainState, batch: dict[str, jax.Array], turn: Turn) -> tuple[TrainState, StepMetrics]:
        """One step; the given state is used up.

        Args:
          state: replicated over the mesh.
          batch: arrays split over the mesh by their leading axis.
          turn: the widths to run and what to leave frozen.

        Returns:
          The next state and the step's metrics, replicated.
        """
        self.compile(state, batch, turn)
        *of_widths, last = self._keys(turn)
        if self.fused:
            return self._run(last, state, batch)
        params, batch_stats = flatten_dict(state.params), flatten_dict(state.batch_stats)
        metrics: dict[float, Any] = {}
        own: dict[float, LocalSums] = {}
        sums: tuple[LocalSums, ...] = ()
        for key, width in zip(of_widths, turn.widths, strict=True):
            reads = self._parts.read_by(width, params), self._parts.read_by(width, batch_stats, own_only=bool(sums))
            (shared, own[width]), metrics[width] = self._run(key, *reads, *sums, batch)
            sums = (shared,)
        for width in self._task.model.widths:
            if width not in own:
                own[width] = self._nothing(width, params, batch_stats)
        ran = np.isin(self._task.model.widths, turn.widths)
        state, norms = self._run(last, state, *sums, own, ran)
        return state, StepMetrics(metrics, **norms)

    def _run(self, key: ProgramKey, *arguments: Tree) -> Any:
        return settled(self._mesh, self._compiled[key](*arguments))

    def compile(self, state: Tree, batch: Tree, turn: Turn) -> list[jax.stages.Compiled]:
        """Compiles what a turn needs and has not been compiled yet, see `compile_all`.

        Args:
          state: a TrainState of arrays or of their shapes.
          batch: arrays of a global batch, or their shapes.
          turn: the turn to prepare.

        Returns:
          The programs of the turn, in the order in which they run.
        """
        keys = list(dict.fromkeys(self._keys(turn)))
        if missing := [key for key in keys if key not in self._compiled]:
            shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (state, batch))
            self._compiled |= compile_all(
                platform_of(self._mesh), lambda key: self._lower(key, turn, *shapes).compile(), missing
            )
        return [self._compiled[key] for key in keys]

    def lower(self, state: TrainState, batch: Tree, turn: Turn) -> dict[str, jax.stages.Lowered]:
        """The programs of a turn before they are compiled, by what they do, in the order in which they run.

        Args:
          state: shapes of a state.
          batch: shapes of a global batch.
          turn: whose programs.
        """
        programs = {}
        for key in self._keys(turn):
            kind, widths, _ = key
            programs[f"width {widths[0]:g}" if kind in ("first", "next") else kind] = self._lower(
                key, turn, state, batch
            )
        return programs

    def alive_beside(self, state: TrainState, batch: Tree, turn: Turn) -> list[Tree]:
        """Shapes of what a step keeps on its devices beside the arguments of each program of a turn.

        Args:
          state: shapes of a state, with shardings.
          batch: shapes of a global batch, with shardings.
          turn: whose programs.

        Returns:
          Trees of shapes with shardings, in the order of the programs.
        """
        if self.fused:
            return [()]
        params, batch_stats = flatten_dict(state.params), flatten_dict(state.batch_stats)
        idle = [width for width in self._task.model.widths if width not in turn.widths]
        beside: list[Tree] = []
        for number, width in enumerate(turn.widths):
            read = self._parts.read_by(width, params), self._parts.read_by(width, batch_stats, own_only=number > 0)
            unread = [
                {path: leaf for path, leaf in arrays.items() if path not in taken}
                for arrays, taken in zip((params, batch_stats), read, strict=True)
            ]
            handed_on = [self._stacked(of, params, batch_stats) for of in (*idle, *turn.widths[:number])]
            beside.append((state.step, state.opt_state, unread, handed_on))
        return [*beside, batch]

    def _keys(self, turn: Turn) -> list[ProgramKey]:
        if self.fused:
            return [("fused", turn.widths, turn.stage)]
        first, *others = turn.widths
        return [
            ("first", (first,), None),
            *(("next", (width,), None) for width in others),
            ("update", (), turn.stage),
        ]

    def _lower(self, key: ProgramKey, turn: Turn, state: TrainState, batch: Tree) -> jax.stages.Lowered:
        kind, widths, _ = key
        if kind == "fused":
            update = self._reduced_update(turn)
            program = self._jit(self._whole(widths, update), (REPLICATED, SPLIT), REPLICATED, donate=(0,))
            return program.lower(state, batch)
        params, batch_stats = flatten_dict(state.params), flatten_dict(state.batch_stats)
        shared = self._stacked(None, params, batch_stats)
        if kind == "update":
            update = self._reduced_update(turn)
            in_specs = (REPLICATED, SPLIT, SPLIT, REPLICATED)
            program = self._jit(self._update(update), in_specs, REPLICATED, donate=(0,))
            own = {width: self._stacked(width, params, batch_stats) for width in self._task.model.widths}
            return program.lower(state, shared, own, jax.ShapeDtypeStruct((len(own),), bool))
        reads = self._parts.read_by(widths[0], params)
        if kind == "first":
            program = self._jit(self._first(widths[0]), (REPLICATED, REPLICATED, SPLIT), (SPLIT, REPLICATED))
            return program.lower(reads, self._parts.read_by(widths[0], batch_stats), batch)
        in_specs = (REPLICATED, REPLICATED, SPLIT, SPLIT)
        program = self._jit(self._next(widths[0]), in_specs, (SPLIT, REPLICATED), donate=(2,))
        return program.lower(reads, self._parts.only(widths[0], batch_stats), shared, batch)

    def _reduced_update(self, turn: Turn) -> Callable[..., Any]:
        return partial(reduced_update, self._tx, trained_elements(self._task, turn), self._ema_decay)

    def _first(self, width: float) -> Callable[..., Any]:
        def program(params: Flat, batch_stats: Flat, batch: Tree) -> tuple[tuple[LocalSums, LocalSums], Any]:
            nothing = LocalSums({}, batch_stats)
            sums, metrics = add_width(self._task, width, params, nothing, batch, self._accumulate_steps)
            return self._split(sums, width), jax.lax.psum(metrics, DATA)

        return program

    def _next(self, width: float) -> Callable[..., Any]:
        def program(params: Flat, own_stats: Flat, stacked: LocalSums, batch: Tree) -> tuple[Any, Any]:
            shared = _unstack(stacked)
            so_far = LocalSums(shared.gradients, shared.batch_stats | own_stats)
            sums, metrics = add_width(self._task, width, params, so_far, batch, self._accumulate_steps)
            return self._split(sums, width), jax.lax.psum(metrics, DATA)

        return program

    def _split(self, sums: LocalSums, width: float) -> tuple[LocalSums, LocalSums]:
        """What the widths share and what is the width's own, each to be handed on by itself."""
        shared, own = (
            LocalSums(self._parts.only(owner, sums.gradients), self._parts.only(owner, sums.batch_stats))
            for owner in (None, width)
        )
        return _stack(shared), _stack(own)

    def _update(self, update: Callable[..., Any]) -> Callable[..., Any]:
        def program(state: TrainState, shared: LocalSums, own: dict[float, LocalSums], ran: jax.Array) -> Any:
            gradients, batch_stats = dict(_unstack(shared).gradients), flatten_dict(state.batch_stats)
            batch_stats |= _unstack(shared).batch_stats
            for index, stacked in enumerate(own[width] for width in self._task.model.widths):
                sums = _unstack(stacked)
                gradients |= sums.gradients
                # The statistics of a width that did not run stay as they were.
                batch_stats |= {
                    path: jnp.where(ran[index], new, batch_stats[path]) for path, new in sums.batch_stats.items()
                }
            return update(state, LocalSums(unflatten_dict(gradients), unflatten_dict(batch_stats)))

        return program

    def _whole(self, widths: tuple[float, ...], update: Callable[..., Any]) -> Callable[..., Any]:
        def program(state: TrainState, batch: Tree) -> tuple[TrainState, StepMetrics]:
            sums, metrics = summed_gradients(
                self._task, widths, state.params, state.batch_stats, batch, self._accumulate_steps
            )
            state, norms = update(state, sums)
            return state, StepMetrics(jax.lax.psum(metrics, DATA), **norms)

        return program

    def _jit(self, function: Callable[..., Any], in_specs: Any, out_specs: Any, donate: tuple[int, ...] = ()) -> Any:
        def shardings(specs: Any) -> Any:
            return jax.tree.map(
                lambda spec: NamedSharding(self._mesh, spec), specs, is_leaf=lambda x: isinstance(x, PartitionSpec)
            )

        # With check_vma, differentiating by replicated parameters would reduce every width's gradients by itself.
        mapped = jax.shard_map(function, mesh=self._mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
        return jax.jit(
            mapped,
            in_shardings=shardings(in_specs),
            out_shardings=shardings(out_specs),
            donate_argnums=donate,
            compiler_options=compiler_options(platform_of(self._mesh)),
        )

    def _stacked(self, owner: float | None, params: Flat, batch_stats: Flat) -> LocalSums:
        """Shapes of a part of the sums as it travels between programs: every device's own along a leading axis."""
        sums = LocalSums(self._parts.only(owner, params), self._parts.only(owner, batch_stats))
        count, sharding = self._mesh.size, NamedSharding(self._mesh, SPLIT)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype, sharding=sharding), sums
        )

    def _nothing(self, width: float, params: Flat, batch_stats: Flat) -> LocalSums:
        """What a width that does not run hands on, so that one program updates after whatever widths have run."""
        if width not in self._zeros:
            shapes = self._stacked(width, params, batch_stats)
            zeros = jax.jit(
                lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes),
                out_shardings=NamedSharding(self._mesh, SPLIT),
            )
            self._zeros[width] = zeros()
        return self._zeros[width]


def _stack(sums: LocalSums) -> LocalSums:
    return jax.tree.map(lambda leaf: leaf[None], sums)


def _unstack(sums: LocalSums) -> LocalSums:
    return jax.tree.map(lambda leaf: leaf[0], sums)
