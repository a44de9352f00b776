"""PyTorch checkpoints of slimmable networks, and torchvision's of plain ones, as variables of a model, and back."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from slimjax.errors import UserError
from slimjax.interop.assignments import Assignment, assignments_of, counters_of, norms_of
from slimjax.interop.layouts import LAYOUTS, Layout, layout_of, layouts_of
from slimjax.interop.state_dicts import StateDict, read_state_dict, shortened, write_state_dict
from slimjax.models.network import SlimmableNetwork
from slimjax.nn.tracing import checked_variables

HANDFUL = 4
"""How many entries of a kind a message names."""


def load_torch_checkpoint(model: SlimmableNetwork, path: str | Path) -> dict[str, Any]:
    """A PyTorch checkpoint as variables of a model.

    Reads the layout of the public slimmable checkpoints of all families, and torchvision's MobileNet v2 and ResNets
    into a model of the single width 1.0. Names are mapped one by one, never by their order. PyTorch keeps unbiased
    running variances, which are taken as they stand. The file is untrusted: nothing of it is run. (Published slimmable
    weights carry a non-commercial licence, and are the user's to fetch.)

    Args:
      model: the network that the checkpoint is of: same family, widths, classes and sharing of batch norms.
      path: of a state_dict, or of a dict that has one under `model`, written by `torch.save`.

    Returns:
      `params` and `batch_stats` by these names, float32, with the tree of `model.init`.

    Raises:
      UserError: if PyTorch is not installed, the file cannot be read, or it is of another network; the entries that are
        missing, unexpected, of another shape or without finite values are named.
    """
    return variables_of(model, read_state_dict(path), source=str(path))


def save_torch_checkpoint(model: SlimmableNetwork, variables: Any, path: str | Path, layout: str = "slimmable") -> None:
    """Variables of a model as a PyTorch checkpoint: what `load_torch_checkpoint` reads back bit for bit.

    Names, shapes and order are those of the public checkpoints. Running variances are written as they stand, although
    ours are biased: a network loaded in PyTorch gives the same logits. `num_batches_tracked`, which PyTorch asks for
    and nothing here counts, is 0; it matters only to a batch norm of momentum=None.

    Args:
      model: the network.
      variables: its variables, concrete arrays.
      path: of the file, in a folder that is there; no file may be.
      layout: `slimmable`: names begin with `module.` and stand in a dict under `model`, as the existing PyTorch code
        loads them. `torchvision`: a bare state_dict of MobileNet v2 or a ResNet of widths=(1.0,).

    Raises:
      UserError: if PyTorch is not installed, the variables are not the model's, the layout cannot hold the model (such
        as a folded one), or the file is there or cannot be written; nothing is left behind then.
    """
    chosen = layout_of(model, layout)
    write_state_dict(path, state_of(model, variables, chosen), wrapped=chosen.slimmable)


def state_of(model: SlimmableNetwork, variables: Any, layout: Layout) -> dict[str, np.ndarray]:
    """Entries of a state_dict, in PyTorch's order: what `variables_of` turns back into the same variables.

    Args:
      model: the network.
      variables: its variables, concrete arrays.
      layout: of the model's family.

    Returns:
      Arrays by PyTorch's names, float32, and int64 scalars for the counters of batch norms.

    Raises:
      UserError: if the variables are not the model's.
    """
    stored = checked_variables(model, variables)
    state: dict[str, np.ndarray] = {}
    assignments = assignments_of(model, layout)
    for assignment in assignments:
        state |= assignment.split(stored[assignment.path])
    state |= {counter: np.zeros((), np.int64) for counter in counters_of(assignments)}
    # Modules as they first come, each with all of its entries: some code goes by the order instead of the names.
    places = {module: place for place, module in enumerate(dict.fromkeys(map(_module, state)))}
    return dict(sorted(state.items(), key=lambda entry: places[_module(entry[0])]))


def _module(entry: str) -> str:
    return entry.rpartition(".")[0]


def variables_of(model: SlimmableNetwork, state: StateDict, source: str) -> dict[str, Any]:
    """Variables of a model from the entries of a state_dict.

    Args:
      model: the network.
      state: arrays by PyTorch's names.
      source: what messages call the state_dict.

    Raises:
      UserError: if the entries are not exactly those of the model, or hold what no training leaves.
    """
    layout = _layout_in(model, state, source)
    _check_kind(model, layout, state, source)
    _check_switches(model, layout, state, source)
    assignments = assignments_of(model, layout)
    _check_entries(model, assignments, state, source)
    arrays = {assignment: assignment.convert(state) for assignment in assignments}
    for assignment, array in arrays.items():
        if assignment.path[-1] == "var" and (array < 0).any():
            raise UserError(f"{source}: {assignment.entries[0]} has variances below 0: the file is damaged")
    return unflatten_dict({assignment.path: jnp.asarray(array) for assignment, array in arrays.items()})


def num_classes_in(state: StateDict, source: str) -> int:
    """Outputs of the classifier of a state_dict; UserError if no layout finds one in it."""
    modules = sorted({layout.classifier for layouts in LAYOUTS.values() for layout in layouts})
    for module in modules:
        if f"{module}.bias" in state:
            return math.prod(state[f"{module}.bias"].shape)
    raise UserError(
        f"{source} has no classifier: none of {', '.join(f'{module}.bias' for module in modules)} is in it; give a "
        "checkpoint of a whole network"
    )


def _layout_in(model: SlimmableNetwork, state: StateDict, source: str) -> Layout:
    layouts = layouts_of(model)
    layout = next((layout for layout in layouts if layout.marker in state), layouts[0])
    if not layout.slimmable and model.widths != (1.0,):
        raise UserError(
            f"{source} is a plain network of one width, but the model's widths are {model.widths}; load it into a "
            "model of widths=(1.0,)"
        )
    return layout


def _check_kind(model: SlimmableNetwork, layout: Layout, state: StateDict, source: str) -> None:
    """UserError that says what the file is of, where that is plainly another family or has other classes."""
    if model.folding is not None:
        raise UserError(f"the model is folded (folding={model.folding!r}) and has no batch norms; load before folding")
    if layout.marker not in state:
        for family, layouts in LAYOUTS.items():
            for other in layouts:
                if other.marker in state and other.marker != layout.marker:
                    raise UserError(
                        f"{source} is not a checkpoint of {type(model).__name__}: {other.marker} is in it, as in those "
                        f"of {family.__name__} in the layout {other.name!r}; build the model that it was trained as"
                    )
    bias = f"{layout.classifier}.bias"
    if bias in state and len(state[bias].shape) == 1 and state[bias].shape[0] != model.num_classes:
        count = state[bias].shape[0]
        raise UserError(
            f"{source} has {count} classes, the model {model.num_classes}; build it with num_classes={count}"
        )


def _check_switches(model: SlimmableNetwork, layout: Layout, state: StateDict, source: str) -> None:
    """UserError that says what to set, if batch norms are private in the file and shared in the model, or otherwise."""
    if not layout.slimmable:
        return
    switches = {found[1] for name in state if (found := re.search(r"\.bn\.([0-9]{1,3})\.", name))}
    if model.batch_norm == "switchable" and switches and len(switches) != len(model.widths):
        raise UserError(
            f"{source} has batch norms of {len(switches)} widths, but the model has {len(model.widths)}: "
            f"{model.widths}; build it with the widths that the checkpoint was trained at"
        )
    for norm in norms_of(model, layout):
        module = norm.modules[0]
        private, plain = f"{module}.bn.0.weight" in state, f"{module}.weight" in state
        if (private if norm.private else plain) or not (private or plain):
            continue
        is_tail = norm.layer == "tail" and model.batch_norm == "switchable"
        held = "one for each width" if private else "one for all widths"
        option = "tail_bn" if is_tail else "batch_norm"
        value = ("private" if is_tail else "switchable") if private else "shared"
        raise UserError(
            f"{source}: the batch norm {module} is {held}, the model's {option}={getattr(model, option)!r} has it "
            f"otherwise; build the model with {option}={value!r}"
        )


def _check_entries(model: SlimmableNetwork, assignments: Sequence[Assignment], state: StateDict, source: str) -> None:
    """UserError that names what is missing, unexpected and of another shape."""
    shapes = {entry: assignment.entry_shape for assignment in assignments for entry in assignment.entries}
    counters = set(counters_of(assignments))
    missing = [name for name in shapes if name not in state]
    unexpected = [name for name in state if name not in shapes and name not in counters]
    misshaped = [
        f"{name} {state[name].shape} in the file and {shape} in the model"
        for name, shape in shapes.items()
        if name in state and state[name].shape != shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    told = "; ".join(f"{len(names)} {fault}: {_some(names)}" for fault, names in faults.items() if names)
    if told:
        raise UserError(
            f"{source} is not a checkpoint of {type(model).__name__} with widths {model.widths} and "
            f"{model.num_classes} classes: {told}. Build the model that it was trained as"
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - HANDFUL} more" if len(names) > HANDFUL else ""
    return ", ".join(map(shortened, names[:HANDFUL])) + more
