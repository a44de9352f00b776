"""StableHLO by jax.export: a program for each width, with the weights as arguments, for any batch and platform."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
from flax.traverse_util import unflatten_dict

from slimjax.deploy.backends.stablehlo import StableHloPrograms
from slimjax.deploy.bundle import width_key
from slimjax.deploy.formats import Written
from slimjax.deploy.source import Source

PLATFORMS = ("cpu", "cuda", "tpu")
"""For which every program is lowered, by jax.export's names."""

_LOCATIONS = "jax_traceback_in_locations_limit"


def write(source: Source, bundle: Path) -> Iterator[Written]:
    """See `slimjax.deploy.formats`."""
    (bundle / "stablehlo").mkdir()
    programs, files, taken, tensors = {}, {}, {}, {}
    for width in source.widths:
        arguments = source.tensors(width)
        programs[width] = _exported(source, width, list(arguments.values()), tuple(arguments))
        files[width] = f"stablehlo/width_{width_key(width)}.bin"
        (bundle / files[width]).write_bytes(programs[width])
        taken[width] = tuple(arguments)
        tensors.update(arguments)
    run = StableHloPrograms(programs, tensors, taken, source.image_shape, source.images.dtype, source.outputs)
    yield Written("stablehlo", files, run, taken)


def _exported(source: Source, width: float, arrays: list[np.ndarray], names: tuple[str, ...]) -> bytes:
    forward, paths = source.forward(width), [tuple(name.split("/")) for name in names]

    def program(weights: tuple[jax.Array, ...], images: jax.Array) -> Any:
        return forward(unflatten_dict(dict(zip(paths, weights, strict=True))), images)

    (batch,) = jax.export.symbolic_shape("batch")
    weights = tuple(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays)
    images = jax.ShapeDtypeStruct((batch, *source.image_shape), source.images.dtype)
    with without_source_paths():
        return bytes(jax.export.export(jax.jit(program), platforms=PLATFORMS)(weights, images).serialize())


@contextmanager
def without_source_paths() -> Iterator[None]:
    """Programs that are lowered meanwhile do not say where the files of this machine are."""
    before = jax.config.values[_LOCATIONS]
    jax.config.update(_LOCATIONS, 0)
    try:
        yield
    finally:
        jax.config.update(_LOCATIONS, before)
