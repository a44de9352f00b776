import pytest

from slimjax.errors import UserError
from slimjax.models import create_model
from slimjax.nn import WidthPlan, check_widths, round_channels, switch_of
from slimjax.nn.plans import truncate_channels, widths_text


# By hand: nearest multiple of 8 (ties up), raised where that loses more than a tenth.
@pytest.mark.parametrize(
    ("channels", "rounded"),
    [
        *[(32, 32), (32 * 0.25, 8), (32 * 0.35, 16), (24 * 0.75, 24), (16 * 0.35, 8), (16 * 0.5, 8), (16 * 0.75, 16)],
        *[(12, 16), (11.9, 16), (1280 * 1.4, 1792), (44, 48), (36, 40), (35.9, 40), (60, 64), (1, 8)],
    ],
)
def test_rounding(channels, rounded):
    assert round_channels(channels) == rounded


@pytest.mark.parametrize("channels", [0, -3])
def test_rounding_refuses_nothing_to_round(channels):
    with pytest.raises(ValueError, match="positive"):
        round_channels(channels)


@pytest.mark.parametrize(
    ("channels", "groups", "truncated"),
    [(64 * 0.55, 1, 35), (0.4, 1, 1), (8.4, 3, 6), (60, 3, 60), (2.9, 3, 3), (24 * 0.5, 3, 12)],
)
def test_truncation(channels, groups, truncated):
    assert truncate_channels(channels, groups) == truncated
    with pytest.raises(ValueError, match="positive"):
        truncate_channels(0, groups)


def test_widths_for_people():
    assert widths_text((1.0,)) == "width 1"
    assert widths_text((0.25, 1.0)) == "widths 0.25, 1"


@pytest.mark.parametrize(
    "widths", [(), (1.0, 0.5), (0.5, 0.5), (0.0, 1.0), (-1.0,), (0.5, float("inf")), ("x",), (1e9,)]
)
def test_widths_have_to_ascend_and_be_positive(widths):
    with pytest.raises(UserError, match="strictly ascending"):
        check_widths(widths)


def test_the_default_width_is_the_widest():
    assert switch_of((0.35, 0.5, 1.0), None) == 2
    assert switch_of((0.35, 0.5, 1.0), 0.5) == 1
    assert switch_of((0.5, 1.0), 1) == 1


def test_an_unknown_width_is_named_with_those_allowed():
    with pytest.raises(UserError, match=r"width=0.4 is not one of this model's widths \(0.35, 1.0\)"):
        switch_of((0.35, 1.0), 0.4)


def test_a_plan_gives_the_channels_of_every_layer():
    plan = create_model("mobilenet_v2", (0.35,), 10).resolved_plans()[0]
    # Expansion is six times the rounded input: 8 -> 48, not 16 * .35 * 6 = 33.6.
    assert (plan["stem"], plan["block_1"], plan["block_2_hidden"], plan["block_2"], plan["tail"]) == (
        16,
        8,
        48,
        8,
        1280,
    )


def test_plans_that_do_not_fit_are_refused_by_name():
    good = create_model("mobilenet_v1_tiny", (1.0,), 10).resolved_plans()[0]
    for features, message in [
        (good.features[1:], r"lacks the layers \['stem'\]"),
        ((*good.features, ("block_77", 8)), r"unknown layers \['block_77'\]"),
        ((("stem", 0), *good.features[1:]), r"no channel in \['stem'\]"),
    ]:
        with pytest.raises(UserError, match=message):
            create_model("mobilenet_v1_tiny", (1.0,), 10, plans=(WidthPlan(1.0, features),))
    with pytest.raises(UserError, match="the plans are of widths"):
        create_model("mobilenet_v1_tiny", (0.5,), 10, plans=(good,))
