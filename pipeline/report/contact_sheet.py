"""Images and their stored labels -> a sheet with every label drawn.

Shapes: N images, H W height and width, P points or boxes, C classes. Places are in inches from the top left corner.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from models.spec import IGNORE, Column
from models.tasks.pictures import class_colours, mask_picture, normal_picture, ramp_picture
from pipeline.report.legend import draw_legend
from pipeline.report.style import MUTED, STYLE, WIDTH, short

PANELS = 12  # columns drawn as pictures, and lines of one column of text
BOX_LETTER = 0.045  # width of a letter of a box's class
GAP, TEXT, LEAST = 0.06, 1.7, 1.2  # between pictures; width of a column of text; least width of a picture beside many

Box = tuple[float, float, float, float]  # left, top, width, height


def contact_sheet(images: Tensor, labels: Mapping[str, Tensor], columns: Mapping[str, Column]) -> Figure:
    """Map images uint8 [N, 3, H, W] and their stored columns (see `models.spec.Column`) to a sheet, a strip an image.

    Maps stand beside the image, points and boxes over a copy of it, classes and flags as text at the end of the strip.
    Short strips stand side by side. Columns for which there is no room are named at the foot and not drawn.
    """
    drawn = [name for name, column in columns.items() if column.layout in PANEL][:PANELS]
    written = [name for name, column in columns.items() if column.layout in ("class", "flags")]
    room = max(1, int((WIDTH - LEAST * (len(drawn) + 1)) / TEXT))
    blocks = [written[first : first + PANELS] for first in range(0, len(written), PANELS)][:room]
    left_out = [name for name in columns if name not in drawn and not any(name in block for block in blocks)]
    side = min(1.9, (WIDTH - TEXT * len(blocks)) / (len(drawn) + 1))
    height = side * images.shape[2] / images.shape[3]
    keys = [(name, columns[name]) for name in drawn if columns[name].layout in ("mask", "points")]
    strip = side * (len(drawn) + 1) + TEXT * len(blocks)
    across = max(1, min(int(WIDTH / strip), len(images)))
    down = -(-len(images) // across)
    top, foot = 0.5, 0.25 * (len(keys) + bool(left_out)) + 0.1
    with rc_context(STYLE):
        figure, sheet = blank_sheet(strip * across, top + down * height + foot)
        for row in range(len(images)):
            left, y = strip * (row // down), top + row % down * height
            if row % down == 0:
                below = {name: _subtitle(columns[name], labels[name]) for name in drawn}
                _titles(sheet, ["image", *drawn], left, side, below)
            place_picture(sheet, images[row], _cell(left, y, side, height))
            for index, name in enumerate(drawn, start=1):
                box = _cell(left + side * index, y, side, height)
                PANEL[columns[name].layout](sheet, box, images[row], labels[name], row, columns[name])
            lines = [[f"{name}: {_words(labels[name][row], columns[name])}" for name in block] for block in blocks]
            _texts(sheet, lines, left + side * (len(drawn) + 1), y)
        y = top + down * height + 0.2
        for index, (name, column) in enumerate(keys):
            draw_legend(sheet, name, labels[name], column, y + 0.25 * index)
        if left_out:
            names = short(", ".join(left_out), int(15 * strip * across))
            sheet.text(0.03, y + 0.25 * len(keys), f"not drawn: {names}", fontsize=7)
    return figure


def blank_sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure whose one panel is measured in inches, from the top left corner."""
    figure = Figure(figsize=(width, height))
    sheet = figure.add_axes((0, 0, 1, 1))
    sheet.set_axis_off()
    sheet.set(xlim=(0, width), ylim=(height, 0))
    return figure, sheet


def place_picture(sheet: Axes, picture: Tensor, box: Box) -> None:
    """Draw a picture uint8 [3, H, W] into a box; small pictures keep their pixels."""
    left, top, width, height = box
    smooth = "antialiased" if picture.shape[2] > 300 else "nearest"
    sheet.imshow(
        picture.permute(1, 2, 0).cpu().numpy(),
        extent=(left, left + width, top + height, top),
        interpolation=smooth,
        aspect="auto",
    )
    rightmost, lowest = sheet.figure.get_size_inches()  # pyright: ignore[reportAttributeAccessIssue]
    sheet.set(xlim=(0, rightmost), ylim=(lowest, 0))


def describe(raw: Tensor, column: Column) -> str:
    """Map one image's stored label to a line for a table."""
    if column.layout in ("class", "flags"):
        return _words(raw, column)
    if column.layout in ("points", "boxes"):
        return "unlabelled" if (raw[:, -1] == -2).any() else f"{int((raw[:, -1] >= 0).sum())} {column.layout}"
    if column.layout == "normals":
        return f"{float(raw.any(0).float().mean()):.0%} labelled" if bool(raw.any()) else "unlabelled"
    labelled = raw > 0 if column.layout == "field" else raw != IGNORE
    if not bool(labelled.any()):
        return "unlabelled"
    if column.layout == "field":
        return f"{raw[labelled].min():.3g} to {raw[labelled].max():.3g} {column.unit}".strip()
    number = len(raw[labelled].unique())
    return f"{number} classes" if column.layout == "mask" else f"{number - bool((raw == 0).any())} instances"


def _draw_mask(sheet: Axes, box: Box, _image: Tensor, raw_NHW: Tensor, row: int, _column: Column) -> None:
    place_picture(sheet, mask_picture(raw_NHW[row], IGNORE), box)
    if bool((raw_NHW[row] == IGNORE).all()):
        _unlabelled(sheet, box)


def _draw_field(sheet: Axes, box: Box, _image: Tensor, raw_NHW: Tensor, row: int, _column: Column) -> None:
    low, high = _range(raw_NHW)
    labelled_HW = raw_NHW[row] > 0
    picture = ramp_picture((raw_NHW[row] - low) / max(high - low, 1e-9)) * labelled_HW
    place_picture(sheet, picture, box)
    if not bool(labelled_HW.any()):
        _unlabelled(sheet, box)


def _draw_normals(sheet: Axes, box: Box, _image: Tensor, raw_N3HW: Tensor, row: int, _column: Column) -> None:
    place_picture(sheet, normal_picture(raw_N3HW[row]), box)
    if not bool(raw_N3HW[row].any()):
        _unlabelled(sheet, box)


def _draw_points(sheet: Axes, box: Box, image: Tensor, raw_NP3: Tensor, row: int, column: Column) -> None:
    place_picture(sheet, image, box)
    scale = box[2] / image.shape[2]
    colours = class_colours(max(1, len(column.classes)) + 1)[1:] / 255
    for x, y, kind in raw_NP3[row].tolist():
        if kind >= 0:
            colour = colours[int(kind) % len(colours)].tolist()
            place = (box[0] + x * scale, box[1] + y * scale)
            sheet.plot(*place, "o", color=colour, markersize=4, markeredgecolor="black", mew=0.6)
    if bool((raw_NP3[row, :, 2] == -2).any()):
        _unlabelled(sheet, box)


def _draw_boxes(sheet: Axes, box: Box, image: Tensor, raw_NP5: Tensor, row: int, column: Column) -> None:
    place_picture(sheet, image, box)
    scale = box[2] / image.shape[2]
    for x0, y0, x1, y1, kind in raw_NP5[row].tolist():
        if kind < 0:
            continue
        corner = (box[0] + x0 * scale, box[1] + y0 * scale)
        for colour, width in (("black", 2.2), ("white", 1.1)):
            size = ((x1 - x0) * scale, (y1 - y0) * scale)
            sheet.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=width))
        name = column.classes[int(kind)] if column.classes else str(int(kind))
        backing = {"facecolor": "black", "alpha": 0.65, "pad": 0.8, "linewidth": 0}
        outside = corner[0] + BOX_LETTER * min(len(name), 12) > box[0] + box[2]
        place = (box[0] + x1 * scale, corner[1]) if outside else corner
        ha = "right" if outside else "left"
        sheet.text(*place, short(name, 12), color="white", fontsize=5, va="top", ha=ha, bbox=backing, clip_on=True)
    if bool((raw_NP5[row, :, 4] == -2).any()):
        _unlabelled(sheet, box)


PANEL: dict[str, Callable[[Axes, Box, Tensor, Tensor, int, Column], None]] = {
    "mask": _draw_mask,
    "instances": _draw_mask,
    "field": _draw_field,
    "normals": _draw_normals,
    "points": _draw_points,
    "boxes": _draw_boxes,
}


def _unlabelled(sheet: Axes, box: Box) -> None:
    left, top, width, height = box
    backing = {"facecolor": "white", "alpha": 0.8, "pad": 1.5, "linewidth": 0}
    sheet.text(left + width / 2, top + height / 2, "unlabelled", ha="center", va="center", fontsize=7, bbox=backing)


def _words(raw: Tensor, column: Column) -> str:
    if bool((raw < 0).all()):
        return "unlabelled"
    if column.layout == "class":
        return column.classes[int(raw)] if column.classes else str(int(raw))
    return ", ".join(name for name, flag in zip(column.classes, raw.tolist(), strict=True) if flag == 1) or "none"


def _subtitle(column: Column, raw: Tensor) -> str:
    if column.layout != "field":
        return column.layout
    low, high = _range(raw)
    return f"{low:.3g} to {high:.3g} {column.unit}".strip()


def _range(raw_NHW: Tensor) -> tuple[float, float]:
    """The values that a field's colours span: all but the outermost hundredth of the labelled pixels at each end."""
    values = raw_NHW[raw_NHW > 0]
    if not len(values):
        return 0.0, 1.0
    thin = values[:: max(1, len(values) // 100_000)]  # quantile takes no more than 16 million values
    low, high = torch.quantile(thin, torch.tensor([0.01, 0.99])).tolist()
    return low, high


def _cell(left: float, top: float, side: float, height: float) -> Box:
    return left + GAP / 2, top + GAP / 2, side - GAP, height - GAP


def _titles(sheet: Axes, names: Sequence[str], left: float, side: float, below: Mapping[str, str]) -> None:
    length = max(6, int(side * 11))
    for index, name in enumerate(names):
        x = left + index * side + GAP / 2
        sheet.text(x, 0.2, short(name, length), fontsize=8, fontweight="bold", va="center")
        sheet.text(x, 0.38, short(below.get(name, ""), length + 3), fontsize=7, color=MUTED, va="center")


def _texts(sheet: Axes, blocks: Sequence[Sequence[str]], left: float, top: float) -> None:
    """Columns of text, one a block, from a place on."""
    for index, lines in enumerate(blocks):
        text = "\n".join(_wrap(line, 28) for line in lines)
        sheet.text(left + TEXT * index + 0.08, top + GAP, text, va="top", fontsize=7, linespacing=1.5)


def _wrap(text: str, width: int) -> str:
    """Break a line between words; at most three lines."""
    lines = [""]
    for word in text.split(" "):
        if len(lines[-1]) + len(word) > width and lines[-1]:
            lines.append("   ")
        lines[-1] += word + " "
    return "\n".join(short(line.rstrip(), width + 4) for line in lines[:3]) + (" …" if len(lines) > 3 else "")
