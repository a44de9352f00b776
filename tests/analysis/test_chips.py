"""Published figures at hand-computed steps, and the slices that there are."""

import pytest

from slimjax.analysis.chips import CHIPS, peak_flops_per_second, step_limits


def test_limits_are_operations_and_bytes_over_the_published_peaks():
    limits = step_limits(CHIPS["v5e"], flops=1.97e12, accessed_bytes=4.095e9, batch_size=512)
    assert limits.compute_ms == pytest.approx(10.0)
    assert limits.bandwidth_ms == pytest.approx(5.0)
    assert limits.bound_by == "compute"
    assert limits.images_per_second == pytest.approx(51_200)
    slower = step_limits(CHIPS["v5e"], flops=1.97e12, accessed_bytes=16.38e9, batch_size=512)
    assert (slower.bound_by, slower.bandwidth_ms) == ("bandwidth", pytest.approx(20.0))
    assert slower.images_per_second == pytest.approx(25_600)


def test_programs_may_have_nearly_all_of_the_memory():
    assert {name: chip.hbm_gib for name, chip in CHIPS.items()} == {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32}
    for chip in CHIPS.values():
        assert 0.95 <= chip.usable_gib / chip.hbm_gib < 1.01
        assert chip.usable_bytes == int(chip.usable_gib * 1024**3)


@pytest.mark.parametrize("kind", ["v5e", "v6e"])
def test_flat_slices(kind):
    assert all(CHIPS[kind].is_slice(shape) for shape in ((1, 1), (2, 2), (2, 4), (4, 4), (8, 16), (16, 16)))
    assert not any(CHIPS[kind].is_slice(shape) for shape in ((4, 2), (2, 2, 1), (4,), (3, 3), (16, 32), (9, 9, 9)))


@pytest.mark.parametrize(("kind", "largest"), [("v4", (16, 16, 16)), ("v5p", (16, 16, 24))])
def test_cuboid_slices(kind, largest):
    assert all(CHIPS[kind].is_slice(shape) for shape in ((2, 2, 1), (2, 2, 4), (4, 4, 8), (12, 12, 16), largest))
    assert not any(CHIPS[kind].is_slice(shape) for shape in ((2, 2), (2, 2, 8), (4, 4, 6), (0, 4, 4), (20, 20, 20)))


@pytest.mark.parametrize(
    ("device_kind", "expected"),
    [("TPU v5 lite", 197e12), ("TPU v5", 459e12), ("NVIDIA H100 80GB HBM3", 989e12), ("cpu", None), ("NVIDIA", None)],
)
def test_peaks_go_by_the_longest_name_that_a_device_begins_with(device_kind, expected):
    assert peak_flops_per_second(device_kind) == expected
