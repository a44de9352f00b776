"""Detections drawn on images, and pictures put side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from slimjax.analysis.plot_style import COLOURS
from slimjax.tasks.detection.evaluation import pasted_mask

_MASK_SHARE = 0.45
_LETTER = 14
_MARGIN = 4
_LEAST_SIDE = 240
"""Pixels of an image's shorter side, so that what is written on it can be read."""


def side_by_side(
    picture: Image.Image, found: Mapping[float, Mapping[str, np.ndarray]], names: Sequence[str], least_score: float
) -> Image.Image:
    """An image once for every width, with what that has found.

    Args:
      picture: the image.
      found: by width, arrays of one image as `slimjax.tasks.detection.proposals.Detections`, in the image's pixels.
        Keypoints that are no numbers are left out.
      names: of the categories.
      least_score: of what is drawn.

    Returns:
      A picture as many times as wide.
    """
    return in_a_row(
        {
            f"width {width:g}: {shown_count(detections, least_score)} found": drawn_on(
                picture, detections, names, least_score
            )
            for width, detections in found.items()
        }
    )


def in_a_row(pictures: Mapping[str, Image.Image], title: str = "") -> Image.Image:
    """Pictures of one height side by side, each with its name above it, the first one's behind a title."""
    header = _LETTER + 2 * _MARGIN
    height = max(picture.height for picture in pictures.values())
    whole = sum(picture.width + _MARGIN for picture in pictures.values()) - _MARGIN
    sheet, left = Image.new("RGB", (whole, height + header), "white"), 0
    for number, (name, picture) in enumerate(pictures.items()):
        text = f"{title}, {name}" if title and not number else name
        ImageDraw.Draw(sheet).text((left + _MARGIN, _MARGIN), text, "black", _font())
        sheet.paste(picture, (left, header))
        left += picture.width + _MARGIN
    return sheet


def shown_count(detections: Mapping[str, np.ndarray], least_score: float) -> int:
    """How many detections of an image are drawn."""
    return int(np.sum(detections["there"] & (detections["scores"] >= least_score)))


def drawn_on(
    picture: Image.Image,
    detections: Mapping[str, np.ndarray],
    names: Sequence[str],
    least_score: float,
    shows_scores: bool = True,
) -> Image.Image:
    """An image with its detections, enlarged where it is small; see `side_by_side` for the arguments.

    The worst come first, so that better ones lie on top, and the names behind all else. What was annotated, not found,
    has no scores to show.
    """
    scale = max(1.0, _LEAST_SIDE / min(picture.size))
    size = round(picture.width * scale), round(picture.height * scale)
    drawn = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    shown = np.flatnonzero(detections["there"] & (detections["scores"] >= least_score))[::-1]
    for place in shown.tolist():
        label = int(detections["labels"][place])
        colour = COLOURS[label % len(COLOURS)]
        if "masks" in detections:
            drawn = _with_mask(drawn, detections["masks"][place], detections["boxes"][place] * scale, colour)
        draw = ImageDraw.Draw(drawn)
        left, top, right, bottom = (detections["boxes"][place] * scale).tolist()
        draw.rectangle((left, top, max(right, left), max(bottom, top)), outline=colour, width=2)
        if "keypoints" in detections:
            keypoints = detections["keypoints"][place][:, :2] * scale
            for x, y in keypoints[np.isfinite(keypoints).all(1)].tolist():
                draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour, outline="white")
    scores = detections["scores"] if shows_scores else None
    _write_names(drawn, detections["boxes"] * scale, detections["labels"], scores, names, shown[::-1])
    return drawn


def _write_names(
    picture: Image.Image,
    boxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray | None,
    names: Sequence[str],
    shown: np.ndarray,
) -> None:
    """Writes at the boxes what is in them: each name below those of before that would be in its way."""
    draw, taken = ImageDraw.Draw(picture), list[tuple[float, float, float, float]]()
    for place in shown.tolist():
        label = int(labels[place])
        text = names[label] if scores is None else f"{names[label]} {scores[place]:.2f}"
        _, _, width, height = draw.textbbox((0, 0), text, font=_font())
        left = max(min(boxes[place][0] + 2, picture.width - width), 0)
        highest = max(boxes[place][1] - height - 1, 0)
        tops = np.arange(highest, picture.height - height, height)
        areas = [(left, top, left + width, top + height) for top in (*tops, highest)]
        area = next((area for area in areas if not any(_overlap(area, other) for other in taken)), areas[-1])
        draw.rectangle(area, fill=COLOURS[label % len(COLOURS)])
        draw.text(area[:2], text, "white", font=_font())
        taken.append(area)


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _font() -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    return ImageFont.load_default(size=_LETTER)


def _with_mask(picture: Image.Image, mask: np.ndarray, box: np.ndarray, colour: str) -> Image.Image:
    """An image of which a mask in its box is tinted."""
    from slimjax.tasks.detection.data.annotations import decoded_mask

    size = picture.height, picture.width
    height, width = size
    clipped = np.clip(box, 0, [width, height, width, height])
    whole = decoded_mask(pasted_mask(mask, clipped, size)["counts"], *size)
    pixels = np.asarray(picture, np.float32)
    tinted = (1 - _MASK_SHARE) * pixels + _MASK_SHARE * np.array(ImageColor.getrgb(colour), np.float32)
    return Image.fromarray(np.where(whole[..., None], tinted, pixels).astype(np.uint8))
