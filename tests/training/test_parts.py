"""Which variables widths share, on networks whose owners are told by hand."""

import pytest
from flax.traverse_util import flatten_dict

from slimjax import create_model
from slimjax.models.mobilenet_v2 import InvertedStage
from slimjax.nn.tracing import abstract_variables
from slimjax.training.parts import Parts

KERNEL, CLASSIFIER = ("stem", "conv", "kernel"), ("classifier", "kernel")
NARROW, WIDE, TAIL = ("stem", "bn", "switch_0"), ("stem", "bn", "switch_1"), ("tail", "bn", "shared")


def parts_of(widths=(0.5, 1.0), **options):
    stages = (InvertedStage(16, 1, 1, expansion=1),)
    return Parts(create_model("mobilenet_v2_tiny", widths, 5, stages=stages, **options))


def test_widths_own_their_batch_norms_and_share_the_rest():
    arrays = {KERNEL: 1, (*NARROW, "scale"): 2, (*WIDE, "scale"): 3, (*TAIL, "scale"): 4, CLASSIFIER: 5}
    parts = parts_of()
    assert parts.only(None, arrays) == {KERNEL: 1, (*TAIL, "scale"): 4, CLASSIFIER: 5}
    assert parts.only(0.5, arrays) == {(*NARROW, "scale"): 2}
    assert parts.only(1.0, arrays) == {(*WIDE, "scale"): 3}
    assert parts.read_by(0.5, arrays) == {KERNEL: 1, (*NARROW, "scale"): 2, (*TAIL, "scale"): 4, CLASSIFIER: 5}
    assert parts.read_by(1.0, arrays, own_only=True) == {(*WIDE, "scale"): 3}
    statistics = {(*NARROW, "mean"): 1, (*WIDE, "mean"): 2, (*TAIL, "mean"): 3}
    assert parts.only(None, statistics) == {(*TAIL, "mean"): 3}
    assert parts.read_by(1.0, statistics) == {(*WIDE, "mean"): 2, (*TAIL, "mean"): 3}


def test_a_private_tail_is_each_widths_own():
    narrow, wide = ("tail", "bn", "switch_0", "scale"), ("tail", "bn", "switch_1", "scale")
    parts = parts_of(tail_bn="private")
    assert parts.only(None, {narrow: 1, wide: 2}) == {}
    assert parts.only(0.5, {narrow: 1, wide: 2}) == {narrow: 1}


def test_of_one_width_everything_is_shared():
    arrays = {KERNEL: 1, (*NARROW, "scale"): 2, (*TAIL, "scale"): 3}
    parts = parts_of(widths=(1.0,))
    assert parts.only(None, arrays) == parts.read_by(1.0, arrays) == arrays
    assert parts.only(1.0, arrays) == parts.read_by(1.0, arrays, own_only=True) == {}


def test_a_shared_affine_leaves_the_statistics_private():
    params = {("stem", "bn", "shared", "scale"): 1, ("stem", "bn", "shared", "bias"): 2}
    statistics = {(*NARROW, "var"): 3, (*WIDE, "var"): 4}
    parts = parts_of(batch_norm="shared_affine")
    assert parts.only(None, params) == params
    assert parts.only(0.5, params) == {}
    assert parts.only(None, statistics) == {}
    assert parts.only(1.0, statistics) == {(*WIDE, "var"): 4}


@pytest.mark.parametrize("batch_norm", ["switchable", "shared_affine", "shared"])
def test_every_variable_is_in_exactly_one_part(batch_norm):
    widths = (0.25, 0.5, 1.0)
    model = create_model("mobilenet_v2_tiny", widths, 5, batch_norm=batch_norm)
    parts = Parts(model)
    for collection in ("params", "batch_stats"):
        arrays = flatten_dict(abstract_variables(model)[collection])
        paths = [path for owner in (None, *widths) for path in parts.only(owner, arrays)]
        assert len(paths) == len(arrays)
        assert set(paths) == set(arrays)
