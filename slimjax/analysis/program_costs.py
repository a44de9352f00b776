"""What compiled programs cost on each device, as XLA counts it: memory, operations, bytes, and sums over devices."""

import math
import re
from dataclasses import dataclass
from typing import Any

import jax

from slimjax.analysis.collectives import all_reduces
from slimjax.errors import UserError

_OUT_OF_MEMORY = re.compile(
    r"Ran out of memory .*?(Used |\()(?P<size>[0-9.]+)(?P<unit>[KMGT]?)(\) exceeds available| of [0-9.]+[KMGT]?) hbm",
    re.IGNORECASE,
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class ProgramCost:
    """One run of a program, on each device.

    Attributes:
      name: what the program does.
      argument_bytes: of its arguments.
      temporary_bytes: that it needs beside arguments and outputs.
      output_bytes: of its outputs.
      aliased_bytes: of those outputs that take the place of arguments.
      beside_bytes: that are alive meanwhile without being its arguments.
      code_bytes: of the program itself; it stays on the device between runs.
      flops: floating-point operations; a multiply-add is two.
      accessed_bytes: read and written by the program's operations.
      all_reduces: operations that sum over devices.
      all_reduced_bytes: of their operands.
    """

    name: str
    argument_bytes: int
    temporary_bytes: int
    output_bytes: int
    aliased_bytes: int
    beside_bytes: int
    code_bytes: int
    flops: float
    accessed_bytes: float
    all_reduces: int
    all_reduced_bytes: int

    @property
    def peak_bytes(self) -> int:
        """The most memory that arrays take while it runs."""
        new_bytes = self.temporary_bytes + self.output_bytes - self.aliased_bytes
        return self.argument_bytes + new_bytes + self.beside_bytes


@dataclass(frozen=True)
class StepCost:
    """Programs that run one after another as one step.

    Attributes:
      batch_size: images of the step, over all devices.
      programs: in the order in which they run; none if the compiler refuses one because it takes too much memory.
      refused_bytes: what the one that it refuses would take on each device; None if it compiles all.
    """

    batch_size: int
    programs: tuple[ProgramCost, ...]
    refused_bytes: int | None = None

    @property
    def peak_bytes(self) -> int:
        """The most memory that is taken at any time, by arrays and all programs' code."""
        return self.refused_bytes or max(program.peak_bytes for program in self.programs) + self.code_bytes

    @property
    def code_bytes(self) -> int:
        """Of all programs."""
        return sum(program.code_bytes for program in self.programs)

    @property
    def flops(self) -> float:
        """Floating-point operations of all programs."""
        return sum(program.flops for program in self.programs)

    @property
    def accessed_bytes(self) -> float:
        """Bytes that all programs read and write."""
        return sum(program.accessed_bytes for program in self.programs)

    @property
    def all_reduced_bytes(self) -> int:
        """Bytes that all programs sum over the devices."""
        return sum(program.all_reduced_bytes for program in self.programs)

    def fits(self, memory_bytes: float) -> bool:
        """Whether the compiler takes it and it needs no more than that on each device."""
        return self.refused_bytes is None and self.peak_bytes <= memory_bytes


def program_cost(name: str, program: jax.stages.Compiled, beside_bytes: int, repeats: int = 1) -> ProgramCost:
    """What XLA says of a compiled program.

    Args:
      name: what it does.
      program: the program.
      beside_bytes: of what is alive meanwhile without being an argument.
      repeats: iterations of the loop in which it does nearly all of its work.
    """
    memory, cost = program.memory_analysis(), program.cost_analysis()
    if memory is None or cost is None:
        raise UserError(f"this version of JAX does not say what programs cost on {name!r}; take one of 0.10 to 0.12")
    reduced = all_reduces([program])
    return ProgramCost(
        name=name,
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        aliased_bytes=memory.alias_size_in_bytes,
        beside_bytes=beside_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        flops=cost.get("flops", 0.0) * repeats,
        accessed_bytes=cost.get("bytes accessed", 0.0) * repeats,
        all_reduces=reduced.count,
        all_reduced_bytes=reduced.bytes,
    )


def bytes_on_device(shapes: Any) -> int:
    """What arrays take on each device, without padding: a tree of shapes with shardings."""
    return sum(
        leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(shapes)
    )


def refused_bytes(error: Exception) -> int | None:
    """What a program would take that XLA does not compile for its size; None if that is not what the error says."""
    match = _OUT_OF_MEMORY.search(str(error))
    return round(float(match["size"]) * _UNITS[match["unit"]]) if match else None
