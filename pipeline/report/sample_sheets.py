"""Test images with targets and predictions -> sheets: pictures row by row, or for many tasks one line of text each.

Places are in inches from the top left corner.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from pipeline.report.contact_sheet import GAP, Box, blank_sheet, place_picture
from pipeline.report.number_texts import value_text
from pipeline.report.style import GRID, INK, MUTED, WIDTH, short, task_colours

MARGIN = 1.25  # left of the images, for names
GOOD, BAD = "#00795a", "#b34700"
LINE, PRINT, LETTER = 0.125, 5.5, 0.044  # small print: height of a line in inches, type in points, width of a letter

Cell = tuple[Tensor | str, float | None]  # a picture or a text, and this one image's metric


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One task on the sample images: a row of cells under each of its headings."""

    task: str
    metric: str
    rows: Mapping[str, Sequence[Cell]]

    @property
    def is_text(self) -> bool:
        return all(isinstance(cell, str) for cells in self.rows.values() for cell, _ in cells)


def picture_sheet(images: Tensor, strips: Sequence[Strip], here: slice, tasks: Sequence[str]) -> Figure:
    """Map images [N, 3, H, W] and tasks' cells, of which `here` are these images', to a sheet: text first."""
    side = min(1.9, (WIDTH - MARGIN) / len(images))
    height = side * images.shape[2] / images.shape[3]
    text, print_height = 0.19, 0.14
    ordered = sorted(strips, key=lambda strip: not strip.is_text)
    total = 0.1 + height
    for strip in ordered:
        total += 0.34 + sum(
            text if strip.is_text else height + print_height * (label != "target") for label in strip.rows
        )
    figure, sheet = blank_sheet(MARGIN + side * len(images), total + 0.1)
    y = _images(sheet, images, side)
    colours = task_colours(tasks)
    for strip in ordered:
        sheet.plot([0.05, sheet.get_xlim()[1] - GAP], [y + 0.06] * 2, color=colours[strip.task], linewidth=1.5)
        sheet.text(
            0.05,
            y + 0.2,
            short(f"{strip.task}", 60),
            color=colours[strip.task],
            fontsize=9,
            fontweight="bold",
            va="center",
        )
        y += 0.34
        for label, cells in strip.rows.items():
            step = text if strip.is_text else height + print_height * (label != "target")
            middle = y + (text / 2 if strip.is_text else (height - GAP) / 2)
            sheet.text(MARGIN - 0.1, middle, short(label, 16), fontsize=8, color=MUTED, va="center", ha="right")
            for index, (cell, value) in enumerate(cells[here]):
                _cell(sheet, cell, value, strip.metric, (MARGIN + side * index, y, side - GAP, height - GAP))
            y += step
    return figure


def small_print(images: Tensor, strips: Sequence[Strip], here: slice, tasks: Sequence[str]) -> Figure:
    """Map images [N, 3, H, W] and tasks with text cells to a sheet: a line a task, right answers green, wrong red."""
    side = min(1.9, (WIDTH - MARGIN) / len(images))
    height = side * images.shape[2] / images.shape[3]
    headings = list(strips[0].rows)
    step = (side - GAP) / len(headings)
    width = MARGIN + side * len(images)
    figure, sheet = blank_sheet(width, 0.1 + height + LINE * (len(strips) + 1) + 0.15)
    y, colours = _images(sheet, images, side), task_colours(tasks)
    for row, strip in enumerate([None, *strips]):
        middle = y + LINE * (row + 0.5)
        if row % 2:
            sheet.add_patch(Rectangle((0, middle - LINE / 2), width, LINE, facecolor=GRID, alpha=0.5, linewidth=0))
        if strip is not None:
            name = short(strip.task, 26)
            sheet.text(
                MARGIN - 0.1, middle, name, fontsize=PRINT + 0.5, color=colours[strip.task], ha="right", va="center"
            )
        for index in range(len(images)):
            for place, heading in enumerate(headings):
                text, value = (heading, None) if strip is None else strip.rows[heading][here][index]
                assert isinstance(text, str)
                colour = _verdict(value, INK if strip else MUTED)
                left = MARGIN + side * index + step * place
                sheet.text(left, middle, short(text, int(step / LETTER)), fontsize=PRINT, color=colour, va="center")
    return figure


def _images(sheet: Axes, images: Tensor, side: float) -> float:
    """Draw the images in a row at the top; give back where the row ends."""
    height = side * images.shape[2] / images.shape[3]
    for index, image in enumerate(images):
        place_picture(sheet, image, (MARGIN + side * index, 0.1, side - GAP, height - GAP))
    return 0.1 + height


def _cell(sheet: Axes, cell: Tensor | str, value: float | None, metric: str, box: Box) -> None:
    left, top, width, height = box
    if isinstance(cell, str):
        colour = _verdict(value, "black")
        sheet.text(left, top + 0.095, short(cell, int(width * 15)), fontsize=7.5, color=colour, va="center")
        return
    place_picture(sheet, cell, box)
    if value is not None:
        sheet.text(left, top + height + 0.09, f"{metric} {value_text(value)}", fontsize=6.5, color=MUTED, va="center")


def _verdict(value: float | None, plain: str) -> str:
    """The colour of an answer: green where this image's metric is 1, red where it is 0."""
    return plain if value is None else {1.0: GOOD, 0.0: BAD}.get(value, plain)
