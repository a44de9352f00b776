"""Images of the data set as small files, and pictures that are put together of them."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from slimjax.reporting.charts import INK, RIGHT, WRONG
from slimjax.reporting.parts import Card, ImageRow

_LARGEST = 112
"""Pixels of a thumbnail's side: larger ones make the page heavy."""

_DPI = 160


def png_of(image: np.ndarray) -> bytes:
    """A PNG of an image [height, width, 3] uint8, made smaller where it is large."""
    picture = Image.fromarray(image)
    picture.thumbnail((_LARGEST, _LARGEST))
    return _saved(picture)


def rows_png(rows: Sequence[ImageRow]) -> bytes:
    """Rows of images as one file, outlined as on the page: solid green where right, dashed red where wrong."""
    columns = max((len(row.thumbnails) for row in rows), default=1) or 1
    figure = Figure(figsize=(1.1 + 0.95 * columns, 0.3 + 1.15 * len(rows)), layout="constrained")
    for axes_row, row in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        axes_row[0].set_ylabel(row.title, rotation=0, ha="right", va="center", fontsize=9)
        for axes, thumbnail in zip(axes_row, row.thumbnails, strict=False):
            _show(axes, thumbnail.png, thumbnail.is_right)
            axes.set_title(thumbnail.caption, fontsize=7, color=INK, pad=3)
        for axes in axes_row[len(row.thumbnails) :]:
            _hide(axes)
    return _file(figure)


def cards_png(cards: Sequence[Card]) -> bytes:
    """Cards as one file: the image, and beneath it a line for every width."""
    columns = min(3, len(cards))
    rows = -(-len(cards) // columns)
    lines = max(len(card.answers) for card in cards)
    figure = Figure(figsize=(2.4 * columns, rows * (1.9 + 0.16 * lines)), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, card in zip(places, cards, strict=False):
        _show(axes, card.thumbnail.png, None)
        axes.set_title(card.title, fontsize=9, color=INK)
        texts = (
            f"{answer.width}: {answer.prediction}, {100 * answer.confidence:.0f} %, {_word(answer.is_right)}"
            for answer in card.answers
        )
        axes.set_xlabel("\n".join(texts), fontsize=7.5, color=INK)
    for axes in places[len(cards) :]:
        _hide(axes)
    return _file(figure)


def _word(is_right: bool) -> str:
    return "right" if is_right else "wrong"


def _show(axes: Axes, png: bytes, is_right: bool | None) -> None:
    axes.imshow(np.asarray(Image.open(io.BytesIO(png))), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(is_right is not None)
        spine.set_color(RIGHT if is_right else WRONG)
        spine.set_linestyle("-" if is_right else (0, (3, 2)))
        spine.set_linewidth(2.5)


def _hide(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])


def _file(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()


def _saved(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()
