"""Search results as one picture: a row a query, a column a hit, three frames of each hit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .console import printable
from .errors import MediaError
from .index import Hit
from .manifest import FrameSpec
from .video import read_frames

SIDE, GAP, TEXT = 96, 8, 18
FRAMES_SHOWN = 3


def contact_sheet(queries: Sequence[str], hits: Sequence[Sequence[Hit]]) -> Image.Image:
    """Draw the hits of each query; frames are shown in their order in time, left to right."""
    columns = max((len(row) for row in hits), default=0)
    cell_width, row_height = FRAMES_SHOWN * SIDE + GAP, SIDE + 2 * TEXT + GAP
    sheet = Image.new("RGB", (max(columns, 1) * cell_width + GAP, len(queries) * row_height + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for r, (query, row) in enumerate(zip(queries, hits, strict=True)):
        top = GAP + r * row_height
        title = f"“{' '.join(printable(query).split())}”"
        draw.text((GAP, top), _fit(title, font, sheet.width - 2 * GAP), fill="black", font=font)
        for c, hit in enumerate(row):
            left = GAP + c * cell_width
            part = "" if hit.seconds == "whole" else f"{hit.seconds}  "
            label = f"{c + 1}. {hit.score:.3f}  {part}{printable(hit.path.name)}"
            draw.text((left, top + TEXT), _fit(label, font, cell_width - GAP), fill="#555555", font=font)
            for f, picture in enumerate(_pictures(hit)):
                sheet.paste(picture, (left + f * SIDE, top + 2 * TEXT))
    return sheet


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Cut text that would run out of its place."""
    text = text[:width]  # no letter is narrower than a pixel
    while font.getlength(text) > width:
        text = text[:-2] + "…"
    return text


def _pictures(hit: Hit) -> list[Image.Image]:
    spec = FrameSpec(count=FRAMES_SHOWN, size=SIDE - 2)
    try:
        frames = read_frames(hit.path, spec, start=hit.start, end=hit.end)
    except MediaError:
        return [Image.new("RGB", (SIDE - 2, SIDE - 2), "#bbbbbb")]  # the file went away since it was embedded
    return [Image.fromarray(np.asarray(pixels)) for pixels in frames.pixels[frames.mask]]
