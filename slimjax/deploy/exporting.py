"""Makes bundles: writes weights and programs, and compares each program with the network."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from slimjax.analysis.profile import profile_model
from slimjax.deploy.bundle import (
    WEIGHTS,
    Check,
    Manifest,
    ProgramEntry,
    TensorEntry,
    WidthEntry,
    file_entry,
    read_manifest,
    width_key,
    write_manifest,
)
from slimjax.deploy.comparing import compare_detections, compare_logits
from slimjax.deploy.formats import DETECTIONS, FORMATS, Written, write_format
from slimjax.deploy.source import Source, Trained
from slimjax.errors import UserError
from slimjax.training.progress import Progress
from slimjax.versions import package_versions


def export_bundle(
    trained: Trained, output: Path, widths: Sequence[float], progress: Progress, formats: Sequence[str] = ("stablehlo",)
) -> Manifest:
    """Writes a bundle.

    Args:
      trained: what to export.
      output: the bundle's folder, which must not be there yet.
      widths: of the network's, which the bundle is to have.
      progress: told of each format.
      formats: of the programs.

    Returns:
      The bundle's manifest.

    Raises:
      UserError: if the folder is there or cannot be written, a width is not the network's, or a program differs from
        the network beyond its format's tolerance; nothing but the folders above it is left behind then.
    """
    if os.path.lexists(output):
        raise UserError(f"{output} is there already; give a new folder to --output, or remove it")
    widths = tuple(sorted({trained.model.widths[trained.model.switch_of(width)] for width in widths}))
    from safetensors import SafetensorError

    try:
        with _unfinished(output) as folder:
            manifest = _write(Source(trained, widths), folder, formats, progress)
            # As whoever runs it will read it.
            read_manifest(folder)
            folder.chmod(0o755)
            folder.rename(output)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise UserError(f"{output} cannot be written ({reason}); nothing was exported; give another place") from None
    return manifest


@contextmanager
def _unfinished(output: Path) -> Iterator[Path]:
    """A folder beside a bundle's place, which is gone in the end unless it was moved there."""
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(source: Source, folder: Path, formats: Sequence[str], progress: Progress) -> Manifest:
    from safetensors.numpy import save_file

    trained = source.trained
    tensors = {name: tensor for width in source.widths for name, tensor in source.tensors(width).items()}
    save_file(tensors, folder / WEIGHTS)
    programs = {}
    names = list(dict.fromkeys(formats))
    for name in progress.track(names, "exporting", len(names)):
        with progress.announced(f"writing and comparing {name}"):
            for written in write_format(name, source, folder):
                programs[written.name] = _entries(source, written)
    rows = {row.width: row for row in profile_model(trained.model, trained.image_size)}
    written_with = [package for name in formats for package in FORMATS[name].packages + FORMATS[name].converters]
    plans = {plan.width: dict(plan.features) for plan in trained.model.resolved_plans()}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        # Some writers keep their files to their owner, and a bundle is for others.
        path.chmod(0o644)
    manifest = Manifest(
        model=trained.name,
        task=trained.task,
        num_classes=trained.model.num_classes,
        class_names=trained.class_names,
        input=trained.input,
        outputs=source.outputs,
        widths=tuple(
            WidthEntry(width, plans[width], rows[width].params, rows[width].macs, trained.figures.get(width, {}))
            for width in source.widths
        ),
        tensors={name: TensorEntry(tensor.shape, tensor.dtype.name) for name, tensor in tensors.items()},
        programs=programs,
        files={path.relative_to(folder).as_posix(): file_entry(path) for path in files},
        versions=package_versions("safetensors", *written_with),
    )
    write_manifest(folder, manifest)
    return manifest


def _entries(source: Source, written: Written) -> dict[str, ProgramEntry]:
    """The manifest's entries of programs that were written, each compared with the network."""
    return {
        width_key(width): ProgramEntry(
            written.files[width], written.tensors.get(width, ()), _checked(source, written, width)
        )
        for width in source.widths
    }


def _checked(source: Source, written: Written, width: float) -> Check:
    """Runs a program as it was written, on real images, against the network as it was trained."""
    outputs, expected = written.run(width, source.images), source.expected(width)
    if isinstance(outputs, np.ndarray) and isinstance(expected, np.ndarray):
        (difference, agreement), allowed = compare_logits(outputs, expected), written.tolerance
        unit = "the largest logit"
    else:
        assert isinstance(outputs, dict)
        assert isinstance(expected, dict)
        (difference, agreement), allowed, unit = compare_detections(outputs, expected), DETECTIONS, "a score"
    if not (difference <= allowed.difference and agreement >= allowed.agreement):
        raise UserError(
            f"the {written.name} program of width {width:g} differs from the network by {difference:.1e} of {unit} and "
            f"agrees on {agreement:.1%} of {len(source.images)} images; {allowed.difference:.0e} and "
            f"{allowed.agreement:.0%} are allowed; nothing was exported"
        )
    return Check(len(source.images), difference, agreement)
