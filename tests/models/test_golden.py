"""Parameters and multiply-adds of every published network, against the papers' figures."""

import math
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
from slimjax.configs import default

from slimjax import MODELS, create_model, profile_model
from slimjax.analysis.profile import total_params
from slimjax.nn.tracing import trace_layers


@dataclass(frozen=True)
class Row:
    """Parameters of the widest and of the whole network; `millions` of operations per width, as the papers print."""

    name: str
    widths: tuple[float, ...]
    kernels: int
    batch_norm: int
    whole: int
    millions: tuple[float, ...]


QUARTERS = (0.25, 0.5, 0.75, 1.0)
EIGHT = (0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 1.0)


def resnet_by_hand(name, repeats):
    """A row by arithmetic of its own. ResNet-101 and -152 have no published row; ResNet-50's tells if this is right."""

    def count(width):
        given = int(64 * width)
        norms, convolutions, side = given, [(7 * 7 * 3 * given, 112)], 56
        for stage, blocks in enumerate(repeats):
            out = int(256 * 2**stage * width)
            middle = out // 4
            for block in range(blocks):
                before, side = side, side // (2 if stage and not block else 1)
                convolutions += [(given * middle, before), (9 * middle * middle, side), (middle * out, side)]
                convolutions += [] if block else [(given * out, side)]
                norms += 2 * middle + out * (1 if block else 2)
                given = out
        kernels = sum(weights for weights, _ in convolutions) + 1000 * given + 1000
        operations = sum(weights * size * size for weights, size in convolutions) + 1000 * given + 49 * given
        return kernels, 2 * norms, operations / 1e6

    return row_of(name, QUARTERS, [count(width) for width in QUARTERS])


def mobilenet_v1_by_hand(widths):
    """The row of 8 switches, of which the paper prints the errors only; the row of 4 tells if this is right."""
    stages = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]

    def count(width):
        def rounded(channels):
            nearest = max(1, math.floor(channels * width / 8 + 0.5)) * 8
            return nearest if nearest >= 0.9 * channels * width else nearest + 8

        given, side = rounded(32), 112
        kernels, norms, operations = 27 * given, given, 27 * given * side**2
        for channels, strides in stages:
            side, out = side // strides, rounded(channels)
            weights = 9 * given + given * out
            kernels, norms, operations = kernels + weights, norms + given + out, operations + weights * side**2
            given = out
        return kernels + 1000 * given + 1000, 2 * norms, (operations + 1000 * given + 49 * given) / 1e6

    return row_of("mobilenet_v1", widths, [count(width) for width in widths])


def row_of(name, widths, counts):
    kernels, norms, millions = zip(*counts, strict=True)
    return Row(name, widths, kernels[-1], norms[-1], kernels[-1] + sum(norms), millions)


GOLDEN = (
    Row("mobilenet_v1", QUARTERS, 4_210_088, 21_888, 4_264_808, (41.0, 149.5, 325.4, 568.8)),
    Row("mobilenet_v2", (0.35, 0.5, 0.75, 1.0), 3_470_760, 34_112, 3_556_456, (59.3, 97.2, 209.1, 300.8)),
    Row("shufflenet", (0.5, 1.0, 2.0), 5_401_816, 48_960, 5_487_496, (37.6, 137.3, 523.5)),
    Row("resnet50", QUARTERS, 25_503_912, 53_120, 25_636_712, (278.1, 1052.4, 2322.8, 4089.3)),
)
BY_HAND = (
    mobilenet_v1_by_hand(EIGHT),
    resnet_by_hand("resnet101", (3, 4, 23, 3)),
    resnet_by_hand("resnet152", (3, 8, 36, 3)),
)


@pytest.mark.parametrize("row", [*GOLDEN, *BY_HAND], ids=lambda row: f"{row.name}-{len(row.widths)}")
def test_golden_counts(row):
    model = create_model(row.name, row.widths, 1000)
    profiles = profile_model(model, image_size=224)
    # These two come from what layers say of themselves, the third from the variables that exist.
    assert (profiles[-1].kernel_params, profiles[-1].batch_norm_params) == (row.kernels, row.batch_norm)
    assert total_params(model) == row.whole
    for profile, millions in zip(profiles, row.millions, strict=True):
        # The printed figures have one addition for every pixel that the global mean takes in, and one decimal.
        pooled = 49 * trace_layers(model, profile.width, 224)[-1].input_shape[-1]
        assert abs((profile.macs + pooled) / 1e6 - millions) <= 0.05 + 1e-9


def test_the_arithmetic_by_hand_gives_the_published_rows():
    for own, golden in [
        (resnet_by_hand("resnet50", (3, 4, 6, 3)), GOLDEN[3]),
        (mobilenet_v1_by_hand(QUARTERS), GOLDEN[0]),
    ]:
        assert own == Row(own.name, own.widths, golden.kernels, golden.batch_norm, golden.whole, own.millions)
        assert tuple(round(millions, 1) for millions in own.millions) == golden.millions


def test_no_model_and_no_published_width_is_missing():
    assert {row.name for row in (*GOLDEN, *BY_HAND)} == {name for name in MODELS if not name.endswith("_tiny")}
    names = [path.stem for path in Path(default.__file__).parent.glob("s_*.py")]
    configs = [import_module(f"slimjax.configs.{name}").get_config().model for name in names]
    published = {(model.name, tuple(model.widths)) for model in configs}
    assert published == {(row.name, row.widths) for row in (*GOLDEN, BY_HAND[0])}
