"""The controller on a made-up device, whose latencies the tests know."""

from itertools import pairwise

import pytest

from slimjax.deploy.controller import LONGEST_PATIENCE, PATIENCE, Decision, WidthController

MEASURED = {0.25: 2.0, 0.5: 4.0, 1.0: 10.0}


def run(controller, budget_ms, slowdowns):
    """Calls with one budget on a device that is so many times slower at each; returns the widths that ran."""
    widths = []
    for slowdown in slowdowns:
        widths.append(controller.choose(budget_ms))
        of_width = slowdown[widths[-1]] if isinstance(slowdown, dict) else slowdown
        controller.observe(widths[-1], budget_ms, MEASURED[widths[-1]] * of_width)
    return widths


@pytest.mark.parametrize(("budget_ms", "width"), [(100, 1.0), (10, 1.0), (9.9, 0.5), (4, 0.5), (2, 0.25), (0.1, 0.25)])
def test_the_widest_that_fits_runs_and_the_narrowest_if_none_does(budget_ms, width):
    assert WidthController(MEASURED).choose(budget_ms) == width


def test_an_overrun_narrows_the_very_next_call_and_calm_ones_widen_again():
    widths = run(WidthController(MEASURED), 12.0, [1, 1, 2.5] + [1] * 10)
    # 2.5 times 4 ms still fits into 12.
    assert widths == [1.0] * 3 + [0.5] * PATIENCE + [1.0] * 2


def test_a_slower_device_is_followed_without_overruns():
    controller = WidthController(MEASURED)
    run(controller, 12.0, [2.5] * 100)
    report = controller.report()
    assert report.calls == {0.25: 0, 0.5: 99, 1.0: 1}
    assert (report.overruns, report.narrowed, report.widened, report.slowdown) == (1, 1, 0, 2.5)


def test_a_faster_device_runs_wider():
    widths = run(WidthController(MEASURED), 8.0, [0.7] * (PATIENCE + 1))
    assert widths == [0.5] * PATIENCE + [1.0]


def test_where_only_the_widest_is_slow_it_is_tried_ever_more_rarely():
    controller = WidthController(MEASURED)
    widths = run(controller, 12.0, [{0.25: 1, 0.5: 1, 1.0: 2}] * 2000)
    tried = [number for number, width in enumerate(widths) if width == 1.0]
    gaps = [later - earlier for earlier, later in pairwise(tried)]
    assert gaps[0] == PATIENCE + 1
    assert gaps == sorted(gaps)
    assert gaps[-1] == LONGEST_PATIENCE + 1
    assert controller.report().overruns == len(tried) < 25


def test_patience_comes_back_when_widening_has_succeeded_for_long():
    controller = WidthController(MEASURED)
    run(controller, 12.0, [{0.25: 1, 0.5: 1, 1.0: 2}] * 2000)
    run(controller, 12.0, [1] * 2000)
    assert run(controller, 12.0, [2.5] + [1] * (PATIENCE + 1))[-2:] == [0.5, 1.0]


def test_the_report_tells_every_decision():
    controller = WidthController(MEASURED)
    run(controller, 12.0, [1, 3])
    first, second = controller.report().recent
    assert first == Decision(width=1.0, budget_ms=12.0, expected_ms=10.0, latency_ms=10.0)
    assert second == Decision(width=1.0, budget_ms=12.0, expected_ms=10.0, latency_ms=30.0)
    assert (first.overran, second.overran) == (False, True)


def test_smaller_budgets_narrow_without_anything_being_slower():
    controller = WidthController(MEASURED)
    for budget_ms, width in [(12.0, 1.0), (4.0, 0.5), (12.0, 1.0), (0.0, 0.25), (-5.0, 0.25), (12.0, 1.0)]:
        assert run(controller, budget_ms, [1]) == [width]
    report = controller.report()
    assert (report.narrowed, report.widened, report.overruns) == (0, 0, 2)
