"""Detections drawn on images, the widths side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from slimjax.analysis.plot_style import COLOURS
from slimjax.tasks.detection.evaluation import pasted_mask

_MASK_SHARE = 0.45
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
      names: of the categories.
      least_score: of what is drawn.

    Returns:
      A picture as many times as wide.
    """
    scale = max(1.0, _LEAST_SIDE / min(picture.size))
    size = round(picture.width * scale), round(picture.height * scale)
    enlarged = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    font = ImageFont.load_default(size=14)
    header = 14 + 2 * _MARGIN
    sheet = Image.new("RGB", ((size[0] + _MARGIN) * len(found) - _MARGIN, size[1] + header), "white")
    for place, (width, detections) in enumerate(found.items()):
        left = place * (size[0] + _MARGIN)
        sheet.paste(_drawn(enlarged, picture, detections, names, least_score, font), (left, header))
        count = int(np.sum(detections["there"] & (detections["scores"] >= least_score)))
        ImageDraw.Draw(sheet).text((left + _MARGIN, _MARGIN), f"width {width:g}: {count} found", "black", font)
    return sheet


def _drawn(
    enlarged: Image.Image,
    picture: Image.Image,
    detections: Mapping[str, np.ndarray],
    names: Sequence[str],
    least_score: float,
    font: "ImageFont.FreeTypeFont | ImageFont.ImageFont",
) -> Image.Image:
    """The enlarged image with its detections, the worst first, so that better ones lie on top."""
    drawn, scale = enlarged.copy(), enlarged.width / picture.width
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
            for x, y in (detections["keypoints"][place][:, :2] * scale).tolist():
                draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour, outline="white")
        text = f"{names[label]} {detections['scores'][place]:.2f}"
        corner = draw.textbbox((left + 2, max(top - 16, 0)), text, font=font)
        draw.rectangle(corner, fill=colour)
        draw.text((left + 2, max(top - 16, 0)), text, "white", font=font)
    return drawn


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
