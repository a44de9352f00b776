"""The curves of a run, read from its metrics.jsonl."""

import json
import math
import re
from collections.abc import Mapping
from typing import TypeAlias

from etils import epath

Curve: TypeAlias = list[tuple[int, float]]
"""Steps done and values, in order; what was not finite is NaN."""

Curves: TypeAlias = Mapping[str, Mapping[float, Curve]]
"""By name, such as `train/top1_error`, and width."""

_NAME = re.compile(r"(.+)/width_([\d.e+-]+)")


def read_curves(path: epath.Path) -> Curves:
    """What a run has logged of every width; nothing if the file is not there, as of an imported checkpoint.

    Lines that nobody can read, such as half of one that a running training is writing, are left out.
    """
    curves: dict[str, dict[float, Curve]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            scalars = json.loads(line)
            step = int(scalars.pop("step"))
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        for key, value in scalars.items():
            if match := _NAME.fullmatch(key):
                curve = curves.setdefault(match[1], {}).setdefault(float(match[2]), [])
                curve.append((step, math.nan if value is None else float(value)))
    return curves
