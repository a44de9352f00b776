"""Makes bundles: folds the batch norms, writes weights and programs, and compares each program with the network."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from slimjax.analysis.profile import profile_model
from slimjax.deploy.bundle import (
    WEIGHTS,
    Check,
    InputEntry,
    Manifest,
    ProgramEntry,
    TensorEntry,
    WidthEntry,
    file_entry,
    read_manifest,
    width_key,
    write_manifest,
)
from slimjax.deploy.folding import fold_batch_norm
from slimjax.deploy.stablehlo import StableHloPrograms, export_program
from slimjax.errors import UserError
from slimjax.models.network import SlimmableNetwork
from slimjax.nn.tracing import variables_at
from slimjax.training.progress import Progress
from slimjax.versions import package_versions

TOLERANCE = 1e-4
"""Largest difference of a logit that float32 programs may have, over the largest logit."""

_WHITE = 255.0


@dataclass(frozen=True)
class Trained:
    """A network to export.

    Attributes:
      name: of the model.
      model: the network, all of its widths.
      variables: as it was trained.
      class_names: in the order of the logits; empty if unknown.
      input: of the programs.
      figures: measured, of every width; empty if unknown.
      images: of the evaluation split, normalised, [count, height, width, 3] float32, on which programs are checked.
    """

    name: str
    model: SlimmableNetwork
    variables: Any
    class_names: tuple[str, ...]
    input: InputEntry
    figures: Mapping[float, dict[str, float]]
    images: np.ndarray


def export_bundle(trained: Trained, output: Path, widths: Sequence[float], progress: Progress) -> Manifest:
    """Writes a bundle of StableHLO programs.

    Args:
      trained: what to export.
      output: the bundle's folder, which must not be there yet.
      widths: of the network's, which the bundle is to have.
      progress: told of each width.

    Returns:
      The bundle's manifest.

    Raises:
      UserError: if the folder is there, a width is not the network's, or a program differs from the network beyond
        TOLERANCE; nothing but the folders above it is left behind then.
    """
    if os.path.lexists(output):
        raise UserError(f"{output} is there already; give a new folder to --output, or remove it")
    widths = tuple(sorted({trained.model.widths[trained.model.switch_of(width)] for width in widths}))
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        manifest = _write(trained, folder, widths, progress)
        # As whoever runs it will read it.
        read_manifest(folder)
        folder.chmod(0o755)
        folder.rename(output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return manifest


def _write(trained: Trained, folder: Path, widths: Sequence[float], progress: Progress) -> Manifest:
    from safetensors.numpy import save_file

    folded, own = fold_batch_norm(trained.model, trained.variables)
    arguments = {width: _tensors_read(folded, own, width) for width in widths}
    tensors = {name: tensor for of_width in arguments.values() for name, tensor in of_width.items()}
    save_file(tensors, folder / WEIGHTS)
    (folder / "stablehlo").mkdir()
    entries = {}
    for width in widths:
        with progress.announced(f"width {width:g}: StableHLO"):
            program = _program(trained, folded, width, arguments[width])
            file = f"stablehlo/width_{width_key(width)}.bin"
            (folder / file).write_bytes(program)
            check = _checked(trained, width, program, arguments[width])
            entries[width_key(width)] = ProgramEntry(file, tuple(arguments[width]), check)
    rows = {row.width: row for row in profile_model(trained.model, trained.input.image_size)}
    plans = {plan.width: dict(plan.features) for plan in trained.model.resolved_plans()}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = Manifest(
        model=trained.name,
        num_classes=trained.model.num_classes,
        class_names=trained.class_names,
        input=trained.input,
        widths=tuple(
            WidthEntry(width, plans[width], rows[width].params, rows[width].macs, trained.figures.get(width, {}))
            for width in widths
        ),
        tensors={name: TensorEntry(tensor.shape, tensor.dtype.name) for name, tensor in tensors.items()},
        programs={"stablehlo": entries},
        files={path.relative_to(folder).as_posix(): file_entry(path) for path in files},
        versions=package_versions("safetensors"),
    )
    write_manifest(folder, manifest)
    return manifest


def _tensors_read(folded: SlimmableNetwork, own: Any, width: float) -> dict[str, np.ndarray]:
    """The folded network's arrays that a width reads, by names such as `stem/conv/kernel`."""
    read = flatten_dict(variables_at(folded, own, width)["params"])
    return {"/".join(path): np.asarray(array) for path, array in sorted(read.items())}


def _program(trained: Trained, folded: SlimmableNetwork, width: float, tensors: Mapping[str, np.ndarray]) -> bytes:
    paths = [tuple(name.split("/")) for name in tensors]
    prepare = _preparation(trained.input)

    def forward(weights: tuple[jax.Array, ...], images: jax.Array) -> Any:
        params = unflatten_dict(dict(zip(paths, weights, strict=True)))
        return folded.apply({"params": params}, prepare(images), width=width)

    size = trained.input.image_size
    return export_program(forward, list(tensors.values()), (size, size, 3), trained.input.dtype)


def _preparation(entry: InputEntry) -> Callable[[jax.Array], jax.Array]:
    """What a program does to its images before the network sees them."""
    if entry.dtype == "float32":
        return lambda images: images
    mean, stddev = np.asarray(entry.mean, np.float32), np.asarray(entry.stddev, np.float32)
    return lambda images: (images.astype(jnp.float32) / _WHITE - mean) / stddev


def _checked(trained: Trained, width: float, program: bytes, tensors: Mapping[str, np.ndarray]) -> Check:
    """Runs a program as the runtime does, on real images, and the network as it was trained."""
    size, images = trained.input.image_size, trained.images
    given = images
    if trained.input.dtype == "uint8":
        colours = np.rint((images * trained.input.stddev + trained.input.mean) * _WHITE)
        given = np.clip(colours, 0, _WHITE).astype(np.uint8)
        images = np.asarray(_preparation(trained.input)(jnp.asarray(given)))
    shape, classes = (size, size, 3), trained.model.num_classes
    programs = StableHloPrograms({width: program}, tensors, {width: list(tensors)}, shape, given.dtype, classes)
    logits = programs(width, given)
    network = jax.jit(lambda variables, images: trained.model.apply(variables, images, width=width))
    expected = np.asarray(network(trained.variables, images))
    difference = float(np.abs(logits - expected).max() / np.abs(expected).max())
    agreement = float(np.mean(logits.argmax(-1) == expected.argmax(-1)))
    if not difference <= TOLERANCE:
        raise UserError(
            f"the program of width {width:g} differs from the network by {difference:.1e} of the largest logit, "
            f"beyond {TOLERANCE:.0e}; nothing was exported"
        )
    return Check(len(images), difference, agreement)
