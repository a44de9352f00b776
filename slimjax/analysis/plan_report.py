"""A plan as JSON, and what follows from its figures. The tables of the terminal are in slimjax/analysis/tables.py."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from slimjax.analysis.chips import StepLimits, step_limits
from slimjax.analysis.program_costs import StepCost
from slimjax.analysis.topologies import Topology


@dataclass(frozen=True)
class LargestBatch:
    """The largest batch that fits, as a search found it.

    Attributes:
      batch_size: images over all devices; 0 if not even one image a device fits.
      next_batch_size: the next larger batch that the search considered; it does not fit.
      peak_bytes: memory on each device at batch_size; 0 if that is 0.
      next_peak_bytes: likewise at next_batch_size.
      compiled: batch sizes for which the step was compiled, in order.
    """

    batch_size: int
    next_batch_size: int
    peak_bytes: int
    next_peak_bytes: int
    compiled: tuple[int, ...]


@dataclass(frozen=True)
class Pipeline:
    """The input pipeline of each host.

    Attributes:
      images_per_second_per_core: as experiments/benchmarks/input_pipeline.py measures it; None if not known.
      cores: of each host; None if not known.
    """

    images_per_second_per_core: float | None
    cores: int | None

    @property
    def images_per_second(self) -> float | None:
        """What a host delivers; None if not known."""
        if self.images_per_second_per_core is None or self.cores is None:
            return None
        return self.images_per_second_per_core * self.cores

    def cores_for(self, images_per_second: float) -> int | None:
        """Cores that deliver so much; None if not known."""
        if self.images_per_second_per_core is None:
            return None
        return math.ceil(images_per_second / self.images_per_second_per_core)


@dataclass(frozen=True)
class PlanReport:
    """What was planned, and what it costs on each device.

    Attributes:
      model: name of the network.
      widths: of the step, in the order in which they run.
      num_classes: outputs of the classifier.
      image_size: height and width of the images, pixels.
      dtype: of the computation.
      step_programs: fused or per_width.
      topology: the devices.
      cost: of the step.
      largest_batch: None if it was not looked for.
      pipeline: of each host.
      versions: of what compiled it.
    """

    model: str
    widths: tuple[float, ...]
    num_classes: int
    image_size: tuple[int, ...]
    dtype: str
    step_programs: str
    topology: Topology
    cost: StepCost
    largest_batch: LargestBatch | None
    pipeline: Pipeline
    versions: Mapping[str, str]

    @property
    def fits(self) -> bool:
        """Whether the step's memory is there on each device."""
        return self.cost.fits(self.topology.memory_bytes)

    @property
    def limits(self) -> StepLimits | None:
        """Of the step's time; None where the chip's figures are not published, or the step does not compile."""
        if self.topology.chip is None or not self.cost.programs:
            return None
        return step_limits(self.topology.chip, self.cost.flops, self.cost.accessed_bytes, self.cost.batch_size)

    @property
    def host_images_per_second(self) -> float | None:
        """What each host has to deliver for a step at its limit; None where there is none."""
        return self.limits.images_per_second / self.topology.num_hosts if self.limits else None


def as_json(report: PlanReport) -> str:
    """Everything, with the figures that follow; bytes, operations and programs are those of each device."""
    topology, cost, limits = report.topology, report.cost, report.limits
    keys = ("model", "widths", "num_classes", "image_size", "dtype", "step_programs")
    values: dict[str, Any] = {
        **{key: getattr(report, key) for key in keys},
        "batch_size": cost.batch_size,
        "topology": topology.name,
        "devices": len(topology.devices),
        "hosts": topology.num_hosts,
        "memory_bytes": topology.memory_bytes if math.isfinite(topology.memory_bytes) else None,
        "fits": report.fits,
        "peak_bytes": cost.peak_bytes,
        "flops": cost.flops,
        "accessed_bytes": cost.accessed_bytes,
        "all_reduced_bytes": cost.all_reduced_bytes,
        "programs": [asdict(program) | {"peak_bytes": program.peak_bytes} for program in cost.programs],
        "limits": asdict(limits) if limits else None,
        "largest_batch": asdict(report.largest_batch) if report.largest_batch else None,
        "pipeline": {
            **asdict(report.pipeline),
            "images_per_second": report.pipeline.images_per_second,
            "needed_images_per_second": report.host_images_per_second,
        },
        "versions": report.versions,
    }
    return json.dumps(values, indent=1) + "\n"
