"""What every width finds in a few images, beside what there is."""

import io
from collections.abc import Sequence

from PIL import Image

from slimjax.reporting.detectors import LEAST_SCORE
from slimjax.reporting.parts import Heading, Panel, PanelRow, Panels, Part, Section, Text
from slimjax.reporting.runs import FoundObjects, MeasuredDetector, detailed, slug, width_text
from slimjax.tasks.detection.pictures import drawn_on, in_a_row, shown_count


def detections_section(measured: Sequence[MeasuredDetector]) -> Section:
    """A row of pictures for every image: the data set's annotation, then each width."""
    parts: list[Part] = [
        Text(
            "Images in which the widths find the most different numbers of objects, what they are annotated with, and "
            f"what every width finds with a score of at least {LEAST_SCORE:g}."
        )
    ]
    for of_run in detailed(measured):
        rows = [_row(of_run, example) for example in of_run.examples]
        parts += [Heading(of_run.name), Panels(rows, f"detections_{slug(of_run.name)}", _stacked(rows))]
    return Section("detections", "Some images, every width", parts)


def _row(measured: MeasuredDetector, example: FoundObjects) -> PanelRow:
    names = [measured.class_name(label) for label in range(measured.run.model.num_classes)]
    of_all = {"annotated": example.truth}
    of_all |= {f"width {width_text(width)}": found for width, found in example.found.items()}
    panels = []
    for title, detections in of_all.items():
        is_found = detections is not example.truth
        picture = drawn_on(Image.fromarray(example.image), detections, names, LEAST_SCORE, shows_scores=is_found)
        caption = f"{title}: {shown_count(detections, LEAST_SCORE)}"
        panels.append(Panel(_png(picture), f"{example.name}, {caption} objects", caption))
    return PanelRow(example.name, panels)


def _stacked(rows: Sequence[PanelRow]) -> bytes:
    """All rows as one file."""
    strips = [
        in_a_row({panel.caption: Image.open(io.BytesIO(panel.png)) for panel in row.panels}, row.title) for row in rows
    ]
    sheet = Image.new("RGB", (max(strip.width for strip in strips), sum(strip.height for strip in strips)), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return _png(sheet)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()
