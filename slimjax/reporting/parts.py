"""What a section consists of; templates/parts.html has the look of each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True)
class Picture:
    """A plot.

    Attributes:
      name: of its file, without the ending.
      alt: what it shows, in words, for those who do not see it.
      caption: beneath it.
      svg: for the page; its colours follow the page's.
      png: the file.
    """

    name: str
    alt: str
    caption: str
    svg: str
    png: bytes


@dataclass(frozen=True)
class Pictures:
    """Plots side by side where there is room."""

    items: Sequence[Picture]
    kind: str = field(default="pictures", init=False)


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Heading:
    """Of what is about one run."""

    text: str
    kind: str = field(default="heading", init=False)


@dataclass(frozen=True)
class DataTable:
    """A table whose columns after the first `left` are numbers.

    Attributes:
      caption: above it.
      headers: of the columns.
      rows: cells, as they are shown.
      left: columns of text.
    """

    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Thumbnail:
    """A small image.

    Attributes:
      png: its file's content.
      alt: what it is, and what became of it.
      caption: beneath it.
      is_right: whether it was classified rightly, which its outline shows; None where there is no one answer.
    """

    png: bytes
    alt: str
    caption: str = ""
    is_right: bool | None = None


@dataclass(frozen=True)
class ImageRow:
    """Images in a row, with what they have in common; `note` says why there are none."""

    title: str
    thumbnails: Sequence[Thumbnail]
    note: str = ""


@dataclass(frozen=True)
class ImageRows:
    """Rows of images, and the same as one file."""

    rows: Sequence[ImageRow]
    file_name: str
    png: bytes
    kind: str = field(default="images", init=False)


@dataclass(frozen=True)
class Answer:
    """What one width makes of an image: its prediction and the probability that it gives it, 0 to 1."""

    width: str
    prediction: str
    confidence: float
    is_right: bool


@dataclass(frozen=True)
class Card:
    """An image with every width's answer."""

    thumbnail: Thumbnail
    title: str
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Cards:
    """Cards side by side where there is room, and the same as one file."""

    cards: Sequence[Card]
    file_name: str
    png: bytes
    kind: str = field(default="cards", init=False)


@dataclass(frozen=True)
class Panel:
    """A picture that something is drawn on; see Thumbnail for its parts."""

    png: bytes
    alt: str
    caption: str


@dataclass(frozen=True)
class PanelRow:
    """What is to be compared, side by side."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Panels:
    """Rows of panels, and the same as one file."""

    rows: Sequence[PanelRow]
    file_name: str
    png: bytes
    kind: str = field(default="panels", init=False)


Part: TypeAlias = Pictures | Text | Heading | DataTable | ImageRows | Cards | Panels


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
      key: its place in the page, as links name it.
      title: its heading.
      parts: in order; a section that has nothing to show says why in a Text.
    """

    key: str
    title: str
    parts: Sequence[Part]


def files_of(sections: Sequence[Section]) -> dict[str, bytes]:
    """Every picture of some sections by the name of its file."""
    files: dict[str, bytes] = {}
    for part in (part for section in sections for part in section.parts):
        if isinstance(part, Pictures):
            files |= {f"{picture.name}.png": picture.png for picture in part.items}
        elif isinstance(part, ImageRows | Cards | Panels):
            files[f"{part.file_name}.png"] = part.png
    return files
