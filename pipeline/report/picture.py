"""A drawing -> what is left of it in files: a PNG, a PDF, and what the page shows."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from pipeline.report.network import Row
from pipeline.report.pdf import pdf_of
from pipeline.report.style import Drawing
from pipeline.report.widget import Widget

DOTS = 150  # per inch
LARGE = 700_000  # bytes from which on a figure goes into the page as JPEG: photographs make large PNGs


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawing as bytes: for the page inside its address, which the page shows `width` CSS pixels wide."""

    stem: str
    section: str
    caption: str
    rows: Sequence[Row]
    widget: Widget | None
    png: bytes
    pdf: bytes
    address: str
    width: int


def picture_of(drawing: Drawing) -> Picture:
    """Map a drawing to its files and to what the page holds. Its layout is fixed from then on."""
    png = png_of(drawing)
    drawing.figure.set_layout_engine(None)  # it is laid out: to find the same places again takes seconds
    return Picture(
        stem=drawing.stem,
        section=drawing.section,
        caption=drawing.caption,
        rows=drawing.rows,
        widget=drawing.widget,
        png=png,
        pdf=pdf_of(drawing),
        address=_address(png),
        width=round(drawing.figure.get_figwidth() * 100),
    )


def png_of(drawing: Drawing) -> bytes:
    """Map a drawing to the bytes of a PNG file."""
    buffer = io.BytesIO()
    drawing.figure.savefig(buffer, format="png", dpi=DOTS)
    return buffer.getvalue()


def _address(png: bytes) -> str:
    kind, data = "png", png
    if len(png) > LARGE:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(png)).convert("RGB").save(buffer, format="JPEG", quality=82, optimize=True)
        kind, data = "jpeg", buffer.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
