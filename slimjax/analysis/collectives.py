"""What a compiled program sends between devices, read off its HLO."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import jax

_ALL_REDUCE = re.compile(r"= (?P<shapes>.*?) all-reduce(?:-start)?\(")
_ARRAY = re.compile(r"(?P<dtype>pred|[a-z]+[0-9]+)\[(?P<dimensions>[0-9,]*)\]")


@dataclass(frozen=True)
class AllReduces:
    """The all-reduces of some programs.

    Attributes:
      count: of operations; XLA merges neighbours into one.
      bytes: of their operands together, on one device.
    """

    count: int
    bytes: int


def all_reduces(programs: Iterable[jax.stages.Compiled]) -> AllReduces:
    """Counts the all-reduces of compiled programs that run one after another."""
    lines = [match for program in programs for match in _ALL_REDUCE.finditer(program.as_text() or "")]
    sizes = [_bytes(array) for line in lines for array in _ARRAY.finditer(line["shapes"])]
    return AllReduces(len(lines), sum(sizes))


def _bytes(array: re.Match[str]) -> int:
    elements = math.prod(int(size) for size in array["dimensions"].split(",") if size)
    digits = re.sub(r"\D", "", array["dtype"])
    return elements * (int(digits) // 8 if digits else 1)
