"""The classes that are in a sheet's pictures -> a line that says which colour is which.

Shapes: N images, H W height and width, P points. Places are in inches from the top left corner.
"""

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from models.spec import Column
from models.tasks.pictures import class_colours
from pipeline.report.style import INK, MUTED, short

MOST = 16  # classes named


def draw_legend(sheet: Axes, name: str, raw: Tensor, column: Column, y: float) -> None:
    """One line of coloured squares with the names of a column's classes; a letter is taken as 0.065 inches wide."""
    present = _present(raw, column)
    offset = 1 if column.layout == "points" else 0
    colours = class_colours(max(1, len(column.classes)) + offset)[offset:] / 255
    sheet.text(0.03, y, short(name, 16), fontsize=7, fontweight="bold", va="center")
    x, limit = 1.15, sheet.get_xlim()[1] - 0.75
    for place, kind in enumerate(present):
        label = column.classes[kind]
        step = 0.32 + 0.065 * min(len(label), 16)
        if place == MOST or x + step > limit:
            sheet.text(x, y, f"and {len(present) - place} more", fontsize=7, color=MUTED, va="center")
            return
        sheet.add_patch(
            Rectangle((x, y - 0.05), 0.1, 0.1, facecolor=colours[kind].tolist(), edgecolor=INK, linewidth=0.3)
        )
        sheet.text(x + 0.15, y, short(label, 16), fontsize=7, va="center")
        x += step


def _present(raw: Tensor, column: Column) -> list[int]:
    """The classes that stand in masks [N, H, W] or points [N, P, 3], in their order."""
    kinds = raw[..., 2] if column.layout == "points" else raw
    return [kind for kind in kinds.unique().int().tolist() if 0 <= kind < len(column.classes)]
