"""A drawing as PDF: lines stay lines, letters stay letters that other programs can edit and search."""

import io

from matplotlib import rc_context

from pipeline.report.style import Drawing

TRUETYPE = 42  # fonts embedded as outlines with hints; Type 3, the default, is refused by many publishers
DOTS = 200  # per inch, of photographs inside


def pdf_of(drawing: Drawing) -> bytes:
    """Map a drawing to the bytes of a PDF file: the same each time, since no time of making is in it."""
    buffer = io.BytesIO()
    with rc_context({"pdf.fonttype": TRUETYPE}):
        drawing.figure.savefig(buffer, format="pdf", dpi=DOTS, metadata={"CreationDate": None})
    return buffer.getvalue()
