"""TPU chips: published figures, the shapes in which they come, and the least time that a program takes on them.

Peak, bandwidth and memory of a chip, in the words of Google's documentation (read in November 2026):

- v4: 275 teraflops bf16, 32 GiB HBM2 at 1,200 GBps, 3D slices of at most 4,096 chips
  (https://cloud.google.com/tpu/docs/v4)
- v5e: 197 TFLOPs bf16, 16 GB HBM2 at 819 GBps, 2D slices of at most 256 chips
  (https://docs.cloud.google.com/tpu/docs/v5e; translated versions of the page that are newer say 800 GiBps, and 16 GB)
- v5p: 459 TFLOPs bf16, 95 GB HBM2e at 2,765 GBps, 3D slices of at most 6,144 chips
  (https://docs.cloud.google.com/tpu/docs/v5p-training)
- v6e (Trillium): 918 TFLOPs bf16, 32 GB at 1,640 GBps, 2D slices of at most 256 chips
  (https://cloud.google.com/tpu/docs/v6e; a newer version of the page says 1,600 GBps)

A GB of memory there is 2**30 bytes, as the compiler counts it. A part of it is reserved: what programs may have is what
libtpu 0.0.42 said of one that is too large, for each chip here ("exceeds available HBM (15.75G)").
"""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """A kind of TPU chip.

    Attributes:
      name: as topologies begin.
      flops_per_second: peak, of bfloat16 products.
      hbm_gib: memory, as published.
      usable_gib: what programs may have.
      hbm_bytes_per_second: peak bandwidth of the memory.
      is_slice: whether chips come in a shape.
      slices: which those are, for people.
      config_name: of the chip's cores, for libtpu: two cores that work as one device, where a chip has two.
    """

    name: str
    flops_per_second: float
    hbm_gib: float
    usable_gib: float
    hbm_bytes_per_second: float
    is_slice: Callable[[tuple[int, ...]], bool]
    slices: str
    config_name: str

    @property
    def usable_bytes(self) -> int:
        """Memory that programs may have."""
        return int(self.usable_gib * 2**30)


_FLAT = {(1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16)}
_SMALL_CUBOIDS = {(2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4)}


def _is_flat(shape: tuple[int, ...]) -> bool:
    return shape in _FLAT


def _is_cuboid(most_chips: int) -> Callable[[tuple[int, ...]], bool]:
    def is_slice(shape: tuple[int, ...]) -> bool:
        of_cubes = len(shape) == 3 and all(size and size % 4 == 0 for size in shape)
        return shape in _SMALL_CUBOIDS or (of_cubes and math.prod(shape) <= most_chips)

    return is_slice


_FLAT_TEXT = ", ".join("x".join(map(str, shape)) for shape in sorted(_FLAT))
_CUBOID_TEXT = "2x2x1, 2x2x2, 2x2x4, 2x4x4, or multiples of 4 as in 4x4x8, up to {} chips"

CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275e12, 32, 30.75, 1200e9, _is_cuboid(4096), _CUBOID_TEXT.format("4,096"), "megacore"),
        Chip("v5e", 197e12, 16, 15.75, 819e9, _is_flat, _FLAT_TEXT, "default"),
        Chip("v5p", 459e12, 95, 95.74, 2765e9, _is_cuboid(6144), _CUBOID_TEXT.format("6,144"), "megacore"),
        Chip("v6e", 918e12, 32, 31.25, 1640e9, _is_flat, _FLAT_TEXT, "default"),
    )
}


_DEVICE_KINDS = {
    "TPU v4": CHIPS["v4"].flops_per_second,
    "TPU v5 lite": CHIPS["v5e"].flops_per_second,
    "TPU v5": CHIPS["v5p"].flops_per_second,
    "TPU v6 lite": CHIPS["v6e"].flops_per_second,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}
"""Peak FLOP/s of bfloat16 without sparsity by the beginning of what JAX calls a device; GPUs as NVIDIA's data sheets
have their SXM forms."""


def peak_flops_per_second(device_kind: str) -> float | None:
    """Peak of bfloat16 products of the device that JAX calls so; None if it is not known, as of CPUs."""
    matching = [name for name in _DEVICE_KINDS if device_kind.startswith(name)]
    return _DEVICE_KINDS[max(matching, key=len)] if matching else None


@dataclass(frozen=True)
class StepLimits:
    """The least time of a step on a chip, and how many images a second that allows.

    Attributes:
      compute_ms: all floating-point operations at the chip's peak.
      bandwidth_ms: all bytes at the memory's peak.
      bound_by: which of them is the longer: compute or bandwidth.
      images_per_second: of all devices, if a step takes that.
    """

    compute_ms: float
    bandwidth_ms: float
    bound_by: str
    images_per_second: float


def step_limits(chip: Chip, flops: float, accessed_bytes: float, batch_size: int) -> StepLimits:
    """Lower limits of a step's time (the roofline of Williams et al. 2009): no step is faster, and most are slower.

    Neither communication between chips nor the input pipeline is in them. The operations are counted as bfloat16's,
    which nothing is faster than. The bytes are those of XLA's cost analysis, which also counts what a program finds in
    the memory on the chip, so a program that lives from that can beat the second limit.

    Args:
      chip: that runs it.
      flops: of a step, on each device.
      accessed_bytes: of a step, on each device.
      batch_size: images of a step, over all devices.
    """
    compute_ms = flops / chip.flops_per_second * 1e3
    bandwidth_ms = accessed_bytes / chip.hbm_bytes_per_second * 1e3
    bound_by = "compute" if compute_ms >= bandwidth_ms else "bandwidth"
    return StepLimits(compute_ms, bandwidth_ms, bound_by, batch_size * 1e3 / max(compute_ms, bandwidth_ms))
