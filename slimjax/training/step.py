"""The train step: algorithm 1 of SNet over a mesh of devices.

For each width: switch the batch norm, forward, loss, gradient; sum the gradients; reduce them over the devices once;
one update. The same local functions are composed in two ways: `fused`, one program for the whole step, and `per_width`,
one program for each width, which hand the sums on, and one for the update. Both bound the memory by that of the widest
width. The second lets the widths compile side by side, and compiles at most two programs a width when they are drawn at
random. The stem runs once for all widths: in the first program, whose output the others are handed; the update has the
gradient of its kernel from what they have added up.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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
    shared_stem,
    summed_gradients,
    trained_elements,
    with_stem_gradients,
)
from slimjax.training.mesh import DATA, REPLICATED, SPLIT, platform_of, settled
from slimjax.training.parts import Flat, Parts
from slimjax.training.state import TrainState
from slimjax.training.stem import Stem, StemOutput
from slimjax.training.switches import Phase, Turn


class ProgramKey(NamedTuple):
    """What tells a compiled program from the others.

    Attributes:
      kind: `fused`, or what it does in turn: `first`, `next`, `update`.
      widths: that it runs.
      phase: of incremental training, for what updates.
      shares_stem: whether the widths of the step run one stem, which the first of them computes.
      images: shape of the batch's images.
    """

    kind: str
    widths: tuple[float, ...]
    phase: Phase | None
    shares_stem: bool
    images: tuple[int, ...]


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
        self._parts, self._stem = Parts(task.model), shared_stem(task, accumulate_steps)
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
        *of_widths, last = self._keys(turn, batch)
        if self.fused:
            return self._run(last, state, batch)
        params, batch_stats = self._parts.flatten(state.params), self._parts.flatten(state.batch_stats)
        metrics: dict[float, Any] = {}
        own: dict[float, LocalSums] = {}
        stem_output, shared = None, None
        for key, width in zip(of_widths, turn.widths, strict=True):
            reads = self._reads(key, params, batch_stats)
            if shared is None:
                (shared, own[width]), metrics[width], stem_output = self._run(key, *reads, batch)
            else:
                (shared, own[width]), metrics[width] = self._run(key, *reads, shared, batch, stem_output)
        # Its memory is free for the update, on which `alive_beside` counts.
        del stem_output
        for width in self._task.model.widths:
            if width not in own:
                own[width] = self._nothing(width, params, batch_stats)
        ran = np.isin(self._task.model.widths, turn.widths)
        state, norms = self._run(last, state, shared, own, ran, batch if last.shares_stem else {})
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
        keys = list(dict.fromkeys(self._keys(turn, batch)))
        if missing := [key for key in keys if key not in self._compiled]:
            shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (state, batch))
            self._compiled |= compile_all(
                platform_of(self._mesh), lambda key: self._lower(key, turn, *shapes).compile(), missing
            )
        return [self._compiled[key] for key in keys]

    def is_compiled(self, batch: Tree, turn: Turn) -> bool:
        """Whether a turn on a batch of these shapes can run at once."""
        return all(key in self._compiled for key in self._keys(turn, batch))

    def lower(self, state: TrainState, batch: Tree, turn: Turn) -> dict[str, jax.stages.Lowered]:
        """The programs of a turn before they are compiled, by what they do, in the order in which they run.

        Args:
          state: shapes of a state.
          batch: shapes of a global batch.
          turn: whose programs.
        """
        programs = {}
        for key in self._keys(turn, batch):
            name = f"width {key.widths[0]:g}" if key.kind in ("first", "next") else key.kind
            programs[name] = self._lower(key, turn, state, batch)
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
        *of_widths, update = self._keys(turn, batch)
        beside: list[Tree] = []
        for number, key in enumerate(of_widths):
            unread = [
                {path: leaf for path, leaf in arrays.items() if path not in read}
                for arrays, read in zip((params, batch_stats), self._reads(key, params, batch_stats), strict=True)
            ]
            handed_on = [self._own_shapes(of, params, batch_stats) for of in (*idle, *turn.widths[:number])]
            beside.append((state.step, state.opt_state, state.averaged, unread, handed_on))
        if not update.shares_stem:
            return [*beside, batch]
        # What takes the stem's output does not read the images; the update does, for the stem's gradient.
        images = {"image": batch["image"]}
        others = {name: array for name, array in batch.items() if name not in images}
        return [beside[0], *((*trees, images) for trees in beside[1:]), others]

    def _reads(self, key: ProgramKey, params: Flat, batch_stats: Flat) -> tuple[Flat, Flat]:
        """What a width's program reads; all but the first are handed the stem's output and the shared statistics."""
        (width,) = key.widths
        is_first = key.kind == "first"
        read = self._parts.read_by(width, params)
        if (stem := self._stem_of(key)) and not is_first:
            read = stem.without_parameters(read)
        return read, self._parts.read_by(width, batch_stats, own_only=not is_first)

    def _keys(self, turn: Turn, batch: Tree) -> list[ProgramKey]:
        shares, images = self._stem is not None and len(turn.widths) > 1, batch["image"].shape
        if self.fused:
            return [ProgramKey("fused", turn.widths, turn.phase, shares, images)]
        first, *others = turn.widths
        return [
            ProgramKey("first", (first,), None, shares, images),
            *(ProgramKey("next", (width,), None, shares, images) for width in others),
            ProgramKey("update", (), turn.phase, shares, images if shares else ()),
        ]

    def _lower(self, key: ProgramKey, turn: Turn, state: TrainState, batch: Tree) -> jax.stages.Lowered:
        if key.kind == "fused":
            program = self._jit(self._whole(turn), (REPLICATED, SPLIT), REPLICATED, donate=(0,))
            return program.lower(state, batch)
        params, batch_stats = flatten_dict(state.params), flatten_dict(state.batch_stats)
        stem = self._stem_of(key)
        stem_output = self._stem_output_shape(stem, params, batch) if stem else None
        shared = self._shared_shapes(stem, stem_output, params, batch_stats)
        if key.kind == "update":
            in_specs = (REPLICATED, SPLIT, SPLIT, REPLICATED, SPLIT)
            program = self._jit(self._update(turn, stem), in_specs, REPLICATED, donate=(0,))
            own = {width: self._own_shapes(width, params, batch_stats) for width in self._task.model.widths}
            ran = jax.ShapeDtypeStruct((len(own),), bool)
            return program.lower(state, shared, own, ran, batch if stem else {})
        (width,) = key.widths
        reads = self._reads(key, params, batch_stats)
        if key.kind == "first":
            out_specs = (SPLIT, REPLICATED, SPLIT)
            program = self._jit(self._first(width, stem), (REPLICATED, REPLICATED, SPLIT), out_specs)
            return program.lower(*reads, batch)
        in_specs = (REPLICATED, REPLICATED, SPLIT, SPLIT, SPLIT)
        program = self._jit(self._next(width, stem), in_specs, (SPLIT, REPLICATED), donate=(2,))
        return program.lower(*reads, shared, batch, stem_output)

    def _stem_of(self, key: ProgramKey) -> Stem | None:
        return self._stem if key.shares_stem else None

    def _first(self, width: float, stem: Stem | None) -> Callable[..., Any]:
        def program(params: Flat, batch_stats: Flat, batch: Tree) -> tuple[Any, Any, jax.Array | None]:
            output = stem.run(params, batch["image"]) if stem else None
            nothing = LocalSums({}, batch_stats)
            sums, metrics = add_width(self._task, width, params, nothing, batch, self._accumulate_steps, output)
            return self._split(sums, width), jax.lax.psum(metrics, DATA), output.whole if output else None

        return program

    def _next(self, width: float, stem: Stem | None) -> Callable[..., Any]:
        def program(params: Flat, own_stats: Flat, stacked: LocalSums, batch: Tree, whole: Any) -> tuple[Any, Any]:
            shared = _unstack(stacked)
            so_far = shared.replace(batch_stats=shared.batch_stats | own_stats)
            output = StemOutput(stem, batch["image"], whole) if stem else None
            sums, metrics = add_width(self._task, width, params, so_far, batch, self._accumulate_steps, output)
            return self._split(sums, width), jax.lax.psum(metrics, DATA)

        return program

    def _split(self, sums: LocalSums, width: float) -> tuple[LocalSums, LocalSums]:
        """What the widths share and what is the width's own, each to be handed on by itself."""
        shared, own = (self._part(owner, sums.gradients, sums.batch_stats) for owner in (None, width))
        return _stack(shared.replace(stem_output_gradient=sums.stem_output_gradient)), _stack(own)

    def _update(self, turn: Turn, stem: Stem | None) -> Callable[..., Any]:
        def program(
            state: TrainState, shared: LocalSums, own: dict[float, LocalSums], ran: jax.Array, batch: Tree
        ) -> Any:
            params, batch_stats = flatten_dict(state.params), flatten_dict(state.batch_stats)
            sums = with_stem_gradients(stem, params, _unstack(shared), batch)
            gradients, batch_stats = dict(sums.gradients), batch_stats | sums.batch_stats
            for index, stacked in enumerate(own[width] for width in self._task.model.widths):
                of_width = _unstack(stacked)
                gradients |= of_width.gradients
                # The statistics of a width that did not run stay as they were.
                batch_stats |= {
                    path: jnp.where(ran[index], new, batch_stats[path]) for path, new in of_width.batch_stats.items()
                }
            return self._reduced_update(turn, state, LocalSums(unflatten_dict(gradients), unflatten_dict(batch_stats)))

        return program

    def _whole(self, turn: Turn) -> Callable[..., Any]:
        def program(state: TrainState, batch: Tree) -> tuple[TrainState, StepMetrics]:
            sums, metrics = summed_gradients(
                self._task, turn.widths, state.params, state.batch_stats, batch, self._accumulate_steps
            )
            state, norms = self._reduced_update(turn, state, sums)
            return state, StepMetrics(jax.lax.psum(metrics, DATA), **norms)

        return program

    def _reduced_update(self, turn: Turn, state: TrainState, sums: LocalSums) -> Any:
        return reduced_update(self._tx, trained_elements(self._task, turn), self._ema_decay, state, sums)

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

    def _part(self, owner: float | None, params: Flat, batch_stats: Flat) -> LocalSums:
        return LocalSums(self._parts.only(owner, params), self._parts.only(owner, batch_stats))

    def _stem_output_shape(self, stem: Stem, params: Flat, batch: Tree) -> jax.ShapeDtypeStruct:
        """Of a global batch."""
        output = stem.output_shape(params, batch["image"])
        return self._split_struct(output.shape, output.dtype)

    def _shared_shapes(self, stem: Stem | None, stem_output: Any, params: Flat, batch_stats: Flat) -> LocalSums:
        """Of what the widths share of the sums, as it travels between programs."""
        sums = self._part(None, params, batch_stats)
        if stem:
            batch, *of_image = stem_output.shape
            of_stem: Any = jax.ShapeDtypeStruct((batch // self._mesh.size, *of_image), jnp.float32)
            sums = LocalSums(stem.without_parameters(sums.gradients), sums.batch_stats, of_stem)
        return self._stacked(sums)

    def _own_shapes(self, width: float, params: Flat, batch_stats: Flat) -> LocalSums:
        """Of what is a width's own of the sums, as it travels between programs."""
        return self._stacked(self._part(width, params, batch_stats))

    def _stacked(self, shapes: LocalSums) -> LocalSums:
        """Of every device's own along a leading axis."""
        return jax.tree.map(lambda leaf: self._split_struct((self._mesh.size, *leaf.shape), leaf.dtype), shapes)

    def _split_struct(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(self._mesh, SPLIT))

    def _nothing(self, width: float, params: Flat, batch_stats: Flat) -> LocalSums:
        """What a width that does not run hands on, so that one program updates after whatever widths have run."""
        if width not in self._zeros:
            shapes = self._own_shapes(width, params, batch_stats)
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
