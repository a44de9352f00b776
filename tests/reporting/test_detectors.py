"""Sections on detectors, against figures and objects given by hand."""

import io

import numpy as np
from PIL import Image

from slimjax.reporting.parts import DataTable, Panels, Pictures, Text, files_of
from slimjax.reporting.sections.comparison import comparison_section
from slimjax.reporting.sections.costs import costs_section, pareto_front
from slimjax.reporting.sections.curves import curves_section
from slimjax.reporting.sections.detections import detections_section

MACHINE = {"device": "cpu", "processor": "a processor", "cores": 2, "versions": {"jax": "0.10"}}
FIGURES = {
    0.25: {"box_ap": 30.0, "box_ap50": 55.0, "mask_ap": 20.0},
    0.5: {"box_ap": 35.0, "box_ap50": 60.0, "mask_ap": 24.0},
    1.0: {"box_ap": 34.0, "box_ap50": 61.0, "mask_ap": 26.0},
}


def table_of(section):
    (table,) = (part for part in section.parts if isinstance(part, DataTable))
    return table


def test_the_front_of_precisions_rises():
    points = [(1.0, 30.0, 0.25), (2.0, 35.0, 0.5), (2.0, 33.0, 0.4), (4.0, 34.0, 1.0), (5.0, 36.0, 1.0)]
    assert pareto_front(points, larger_is_better=True) == [points[0], points[1], points[4]]


def test_all_precisions_are_shown_against_costs(detector):
    section = costs_section([detector(FIGURES)], MACHINE)
    assert section.title == "Average precision against cost"
    (text,) = (part.text for part in section.parts if isinstance(part, Text))
    assert text.startswith("Box AP on the 12 images")
    assert "compressed" not in text
    table = table_of(section)
    assert table.headers[2:5] == ["box AP, %", "box AP50, %", "mask AP, %"]
    assert table.rows[0][1:5] == ["0.25", "30.00", "55.00", "20.00"]
    assert set(files_of([section])) == {"average_precision_over_macs.png", "average_precision_over_params.png"}


def test_the_papers_table_of_coco_has_every_part(detector):
    alone = detector({0.5: {"box_ap": 33.0, "box_ap50": 50.0, "mask_ap": 25.5}}, name="alone")
    section = comparison_section([detector(FIGURES), alone])
    assert "a positive difference is in favour of the slimmable one" in section.parts[0].text
    table = table_of(section)
    assert table.headers[:4] == ("width", "box AP: individual, %", "box AP: slimmable, %", "box AP: difference")
    assert table.headers[4] == "mask AP: individual, %"
    rows = {row[0]: row for row in table.rows}
    assert rows["0.5"][1:7] == ("33.00", "35.00", "+2.00", "25.50", "24.00", "-1.50")
    assert rows["1"][1:7] == ("-", "34.00", "-", "-", "26.00", "-")


def test_a_detector_is_set_against_those_with_its_heads_alone(detector):
    alone = detector({0.5: {"box_ap": 33.0}}, name="alone")
    other = detector({0.5: {"box_ap": 55.0}}, name="people")
    other.run.config.detection.num_keypoints = 17
    faster = {width: {"box_ap": figures["box_ap"]} for width, figures in FIGURES.items()}
    section = comparison_section([detector(faster), alone, other])
    rows = {row[0]: row for row in table_of(section).rows}
    assert rows["0.5"][1:4] == ("33.00", "35.00", "+2.00")
    assert not any("people" in part.text for part in section.parts if isinstance(part, Text))


def test_curves_are_of_the_loss_and_of_precisions(detector):
    measured = detector(FIGURES)
    curves = {"train/loss": {0.25: [(10, 3.0), (20, 1.5)]}, "eval/box_ap": {0.25: [(20, 30.0)]}}
    object.__setattr__(measured.run, "curves", curves)
    (pictures,) = (part for part in curves_section([measured]).parts if isinstance(part, Pictures))
    assert [picture.caption for picture in pictures.items] == ["Training: loss.", "Validation: box AP."]
    assert "width 0.25 ends at 1.50." in pictures.items[0].alt
    assert "width 0.25 ends at 30.00 %." in pictures.items[1].alt


def test_pictures_have_what_is_there_and_what_each_width_finds(detector):
    section = detections_section([detector(FIGURES)])
    (panels,) = (part for part in section.parts if isinstance(part, Panels))
    (row,) = panels.rows
    assert row.title == "image 7.jpg"
    captions = [panel.caption for panel in row.panels]
    assert captions == ["annotated: 2", "width 0.25: 1", "width 0.5: 1", "width 1: 1"]
    annotated, found = (np.asarray(Image.open(io.BytesIO(panel.png))).astype(int) for panel in row.panels[:2])
    differs = np.abs(annotated - found).max(-1) > 60
    # 48 pixels are drawn as 240: the second object is drawn in one of them only, around 30 to 60 and 10 to 40.
    assert differs[5 * 10, 5 * 45]
    assert not differs[5 * 45, 5 * 45]
    assert files_of([section])["detections_run.png"].startswith(b"\x89PNG")
