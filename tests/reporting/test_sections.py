"""The numbers that sections show, against counting by hand."""

import dataclasses
import re

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from slimjax.configs import default

from slimjax.analysis.timing import Latency
from slimjax.errors import UserError
from slimjax.reporting.charts import LESS, MORE, paint_cells
from slimjax.reporting.metrics import read_curves
from slimjax.reporting.page import render_page
from slimjax.reporting.parts import DataTable, ImageRows, Pictures, Section, Text
from slimjax.reporting.runs import check_comparable, names_of
from slimjax.reporting.sections import costs
from slimjax.reporting.sections.activations import activations_section
from slimjax.reporting.sections.agreement import agreement, agreement_section
from slimjax.reporting.sections.batch_norms import affine_parameters, sharing_of
from slimjax.reporting.sections.comparison import comparison_section
from slimjax.reporting.sections.confusion import class_errors, confusion, confusion_section
from slimjax.reporting.sections.costs import costs_section, paint_costs, pareto_front
from slimjax.reporting.sections.curves import curves_section
from slimjax.reporting.sections.examples import chosen_images
from slimjax.training.metric_writers import JSON_LINES, JsonLinesWriter, scalars_of

LABELS = [0, 0, 1, 1, 2, 2]
NARROW, MIDDLE, WIDE = [0, 1, 1, 1, 0, 1], [0, 0, 1, 1, 2, 0], [0, 0, 1, 0, 2, 2]
MACHINE = {"device": "cpu", "processor": "a processor", "cores": 2, "versions": {"jax": "0.10"}}


def tables(section):
    return [part for part in section.parts if isinstance(part, DataTable)]


def texts(section):
    return [part.text for part in section.parts if isinstance(part, Text)]


@pytest.fixture
def known(with_predictions):
    return with_predictions(LABELS, {0.25: NARROW, 0.5: MIDDLE, 1.0: WIDE})


def test_confusion_and_errors_by_class(known):
    narrow = np.zeros((5, 5), int)
    for label, prediction in zip(LABELS, NARROW, strict=True):
        narrow[label, prediction] += 1
    np.testing.assert_array_equal(confusion(known, 0.25), narrow)
    np.testing.assert_allclose(class_errors(known, 0.25), [50, 0, 100, np.nan, np.nan])
    np.testing.assert_allclose(class_errors(known, 1.0), [0, 50, 0, np.nan, np.nan])


def test_the_class_that_narrow_widths_lose_most_comes_first(known):
    section = confusion_section([known])
    assert "Class two loses most from 1 to 0.25: +100.00 percentage points" in texts(section)[0]
    (table,) = tables(section)
    assert [row[:2] for row in table.rows] == [("zero", "one"), ("two", "zero"), ("two", "one")]
    assert table.rows[0][2:] == ("1", "0", "0")
    (pictures,) = (part for part in section.parts if isinstance(part, Pictures))
    assert "two as one +1" in pictures.items[1].alt
    assert "two as two -2" in pictures.items[1].alt
    assert "A matrix counts how many" in texts(section)[0]


def test_matrices_are_told_of_where_widths_differ(with_predictions):
    same = confusion_section([with_predictions(LABELS, dict.fromkeys((0.25, 0.5, 1.0), WIDE))])
    assert texts(same)[0].endswith("It loses none. Left out, since nothing differs from the widest: 0.25, 0.5.")
    one = confusion_section([with_predictions(LABELS, {0.25: NARROW, 0.5: WIDE, 1.0: WIDE})])
    assert "A matrix counts how many" in texts(one)[0]
    assert texts(one)[0].endswith("Left out, since nothing differs from the widest: 0.5.")


def test_agreement_and_who_is_right(known):
    expected = [[100 * np.mean(np.equal(a, b)) for a in (NARROW, MIDDLE, WIDE)] for b in (NARROW, MIDDLE, WIDE)]
    np.testing.assert_allclose(agreement(known), expected)
    section = agreement_section([known])
    # All three agree on the first and the third image; the fourth is wrong at the widest only.
    assert "predict the same class for 33.33 % of the 6 images" in texts(section)[0]
    assert "right for 100.00 %, all are for 33.33 %" in texts(section)[0]
    (table,) = tables(section)
    assert list(table.rows) == [("0.25", "2", "3", "1", "0"), ("0.5", "4", "1", "1", "0")]


def test_examples_are_the_images_about_which_widths_differ(known):
    assert chosen_images(known)[0] == 5, "three predictions"
    assert set(chosen_images(known)[1:4]) == {1, 3, 4}


def test_one_width_has_no_confusion_and_says_so(measured, with_predictions, reported_run):
    run = dataclasses.replace(measured.run, model=measured.run.model.clone(widths=(1.0,)))
    single = dataclasses.replace(measured, run=run, outcomes={1.0: measured.outcomes[1.0]})
    for section in (confusion_section([single]), agreement_section([single])):
        assert texts(section) == ["Left out: run has one width only."]
    assert texts(comparison_section([single])) == [
        "Left out: none of these runs has more than one width; add a slimmable one with another `--workdir`."
    ]


def test_what_is_worse_has_one_colour_and_what_is_better_the_other():
    figure, names = Figure(), ["a", "b"]
    more = np.array([[1.0, -1.0], [2.0, -2.0]])
    paint_cells(figure, more, names, names, ("class", "prediction"), text=str, signs=1 - 2 * np.eye(2))
    colours = [to_hex(cell.get_facecolor()) for cell in figure.axes[0].patches]
    assert colours == [LESS, LESS, MORE, MORE], "right more often, wrong less; wrong more often, right less"


def test_table_3_sets_individual_runs_of_the_model_against_the_widths(measured, reported_run):
    def individual(name, width, right, seed=0, model="mobilenet_v1"):
        run = reported_run(widths=(width,), name=name)
        run.config.seed, run.config.model.name = seed, model
        outcome = dataclasses.replace(measured.outcomes[width], is_right=np.arange(40) < right)
        return dataclasses.replace(measured, run=run, outcomes={width: outcome})

    runs = [individual("a", 0.5, 30), individual("b", 0.5, 20, seed=3), individual("c", 1.0, 40, model="resnet50")]
    section = comparison_section([measured, *runs])
    (table,) = tables(section)
    error = {width: outcome.top1_error for width, outcome in measured.outcomes.items()}
    assert [row[0] for row in table.rows] == ["1", "0.5", "0.25"]
    half = table.rows[1]
    assert half[1:4] == ("37.50", f"{error[0.5]:.2f}", f"{error[0.5] - 37.5:+.2f}")
    assert half[5] == f"{runs[0].run.total_params:,}"
    assert table.rows[0][1:4] == ("-", f"{error[1.0]:.2f}", "-"), "another model is no counterpart"
    assert table.rows[0][5] == "-"
    assert texts(section)[1:] == ["b differs from run in more than its width: seed 3 instead of 0."]


def test_the_front_holds_what_nothing_beats():
    points = [(1.0, 9.0, 0.25), (2.0, 5.0, 0.5), (2.0, 4.0, 0.5), (3.0, 6.0, 0.75), (4.0, 4.0, 1.0), (5.0, 3.0, 1.0)]
    beaten = {p for p in points for q in points if q[:2] != p[:2] and q[0] <= p[0] and q[1] <= p[1]}
    assert pareto_front(points) == [point for point in points if point not in beaten]


def test_costs_are_those_of_the_profile_and_the_clock(measured):
    timed = dataclasses.replace(
        measured, latencies={width: Latency(10 * width, 11 * width) for width in measured.widths}
    )
    (table,) = tables(costs_section([timed], MACHINE))
    for row, width in zip(table.rows, measured.widths, strict=True):
        profile = measured.run.profiles[width]
        counts = [f"{profile.macs / 1e6:,.2f}", f"{profile.params:,}"]
        times = [f"{10 * width:.3f}", f"{11 * width:.3f}"]
        assert list(row) == ["run", f"{width:g}", f"{measured.outcomes[width].top1_error:.2f}", *counts, *times]
    assert len(tables(costs_section([measured], MACHINE))[0].headers) == 5
    assert "not measured (`--nolatency`)" in texts(costs_section([measured], MACHINE))[0]


@pytest.mark.parametrize("costs", [(1.0, 2.0, 4.0), (1.0, 20.0, 400.0)], ids=["linear", "logarithmic"])
@pytest.mark.parametrize("errors", [(9.0, 5.0, 4.0), (3.0, 5.0, 4.0)], ids=["all of it", "one point"])
def test_the_front_is_drawn_to_the_edge(measured, costs, errors):
    points = list(zip(costs, errors, (0.25, 0.5, 1.0), strict=True))
    figure = Figure()
    paint_costs(figure, series={"run": points}, label="cost", score=measured.run.score)
    (axes,) = figure.axes
    front = next(line for line in axes.lines if line.get_label() == "Pareto front")
    corners = list(zip(front.get_xdata(), front.get_ydata(), strict=True))
    assert corners[:-1] == [point[:2] for point in points if point[1] == min(errors[: points.index(point) + 1])]
    assert corners[-1] == (axes.get_xlim()[1], min(errors))
    assert axes.get_xlim()[1] < 2.5 * max(costs)


def test_a_curve_goes_from_width_to_width_whatever_they_cost(measured, monkeypatch):
    """Individual networks are one curve, in whatever order they are given."""
    drawn = {}
    monkeypatch.setattr(costs, "draw", lambda name, paint, **_: drawn.update({name: paint.keywords["series"]}))
    latencies = {width: Latency(ms, ms) for width, ms in zip(measured.widths, (5.0, 3.0, 4.0), strict=True)}
    alone = [
        dataclasses.replace(
            measured,
            run=dataclasses.replace(measured.run, model=measured.run.model.clone(widths=(width,)), name=str(width)),
            outcomes={width: measured.outcomes[width]},
            latencies={width: Latency(1.0, 1.0)},
        )
        for width in (1.0, 0.25)
    ]
    costs_section([dataclasses.replace(measured, latencies=latencies), *alone], MACHINE)
    slimmable, individual = drawn["error_over_latency"].values()
    assert [(ms, width) for ms, _, width in slimmable] == [(5.0, 0.25), (3.0, 0.5), (4.0, 1.0)]
    assert [width for *_, width in individual] == [0.25, 1.0]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "on augmented images and, where"),
        ({"augmentation": "none"}, "on the images as they are, without augmentation, and, where"),
        ({"augmentation": "none", "flip": True}, "on augmented images and, where"),
        ({"augmentation": "none", "pca_noise": 0.1}, "on augmented images and, where"),
    ],
)
def test_curves_say_whether_images_were_augmented(measured, settings, told):
    config = default.get_config()
    config.dataset.update(settings)
    of_run = dataclasses.replace(measured, run=dataclasses.replace(measured.run, config=config))
    assert told in texts(curves_section([of_run]))[0]
    detector = dataclasses.replace(
        of_run, run=dataclasses.replace(of_run.run, config=config.copy_and_resolve_references())
    )
    detector.run.config.task = "detection"
    assert ("on augmented images" in texts(curves_section([detector]))[0]) == config.dataset.flip
    if not settings:
        other = dataclasses.replace(detector, run=dataclasses.replace(detector.run, name="other"))
        both = "on augmented images (run) or the images as they are (the other runs) and, where"
        assert both in texts(curves_section([of_run, other]))[0]


def test_curves_are_read_as_they_were_written(tmp_path, measured):
    writer = JsonLinesWriter(tmp_path / JSON_LINES, start_step=0)
    writer.write_scalars(20, {**scalars_of("train", {0.25: {"top1_error": 40.0}}), "train/learning_rate": 0.1})
    writer.write_scalars(40, scalars_of("train", {0.25: {"top1_error": float("nan")}}))
    writer.write_scalars(40, scalars_of("eval", {0.25: {"top1_error": 7.5}}))
    writer.close()
    with (tmp_path / JSON_LINES).open("a") as file:
        file.write('{"step": 60, "train/top')
    curves = read_curves(tmp_path / JSON_LINES)
    assert set(curves) == {"train/top1_error", "eval/top1_error"}
    np.testing.assert_equal(curves["train/top1_error"][0.25], [(20, 40.0), (40, np.nan)])
    assert curves["eval/top1_error"] == {0.25: [(40, 7.5)]}
    assert read_curves(tmp_path / "nowhere") == {}
    drawn = dataclasses.replace(measured, run=dataclasses.replace(measured.run, curves=curves))
    (pictures,) = (part for part in curves_section([drawn]).parts if isinstance(part, Pictures))
    assert "width 0.25 ends at 7.50 %" in pictures.items[1].alt
    assert "/runs/run holds no metrics.jsonl" in texts(curves_section([measured]))[1]


def test_batch_norms_are_each_width_s_own(measured):
    stored = measured.run.variables["params"]
    for switch, width in enumerate(measured.widths):
        for name in ("scale", "bias"):
            values = affine_parameters(measured.run, name)[width]
            assert list(values) == [
                "stem",
                *(f"block_{n}_{part}" for n in (1, 2) for part in ("depthwise", "pointwise")),
            ]
            np.testing.assert_array_equal(values["stem"], stored["stem"]["bn"][f"switch_{switch}"][name])


def test_a_batch_norm_that_widths_share_is_named(reported_run):
    for family, shared in (("mobilenet_v1", ""), ("mobilenet_v2", " Only that of tail is the same one for all.")):
        assert sharing_of(reported_run(family).model) == f"Every width has its own.{shared}"


def test_outlines_say_what_each_width_made_of_an_image(measured, split):
    images = dict(enumerate(split[0]))
    (rows,) = (p for p in activations_section([measured], {"run": images}).parts if isinstance(p, ImageRows))
    assert [row.title for row in rows.rows] == ["width 0.25", "width 0.5", "width 1"]
    for row, width in zip(rows.rows, measured.widths, strict=True):
        outcome = measured.outcomes[width]
        for thumbnail, number in zip(row.thumbnails, measured.top.images[width], strict=True):
            assert thumbnail.is_right == outcome.is_right[number]
            label = measured.class_name(measured.labels[number])
            wrong = f"{label} → {measured.class_name(outcome.predictions[number])}"
            assert thumbnail.caption == (label if thumbnail.is_right else wrong)


def test_runs_of_other_images_are_refused_and_names_tell_runs_apart():
    other = default.get_config()
    other.dataset.name = "fashion_mnist"
    message = "--workdir=/b has dataset.name='fashion_mnist', /a has 'digits'; errors on different images"
    with pytest.raises(UserError, match=re.escape(message)):
        check_comparable({"/a": default.get_config(), "/b": other})
    assert names_of(["/x/digits", "/x/half"]) == ["digits", "half"]
    assert names_of(["/x/digits", "/y/digits"]) == ["x/digits", "y/digits"]
    with pytest.raises(UserError, match="--workdir=/x/digits is given twice"):
        names_of(["/x/digits", "/x/digits"])


def test_names_of_classes_are_text_and_never_markup(measured):
    page = render_page("<b>", "a & b", "python", [confusion_section([measured])])
    assert "<b>" not in page
    assert "three &amp; more" in page
    assert "three & more" not in page


def test_code_keeps_its_brackets_and_stops_and_percents_their_numbers():
    page = render_page("t", "s", "python", [Section("key", "title", [Text("It is 5 % (`--flag`).")])])
    assert 'It is 5\N{NO-BREAK SPACE}% <span class="unbroken">(<code>--flag</code>).</span>' in page
