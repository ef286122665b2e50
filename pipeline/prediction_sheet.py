"""Images beside their predictions, as one picture."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from models.tasks import Task

CELL = 192  # pixels a side of a picture, its caption not counted
CAPTION = 16
LETTERS = 30  # of the default font in one cell's width


def draw(cells: Sequence[Tensor], columns: int) -> Image.Image:
    """Map the cells of all rows to one picture."""
    return to_pil_image(make_grid(list(cells), nrow=columns, pad_value=255))


def row_of(name: str, picture: Tensor, predictions: Mapping[str, Tensor], tasks: Mapping[str, Task]) -> list[Tensor]:
    """One image's row of the drawing: the image, then each prediction as a picture or as text."""
    shown = {task: tasks[task].on_image(tasks[task].render(found), picture) for task, found in predictions.items()}
    return [_cell(name, picture), *(_cell(task, content) for task, content in shown.items())]


def _cell(caption: str, content: Tensor | str) -> Tensor:
    cell = Image.new("RGB", (CELL, CELL + CAPTION), "white")
    pen = ImageDraw.Draw(cell)
    pen.text((2, 2), caption[:LETTERS], fill="black")
    if isinstance(content, str):
        pen.text((2, CAPTION + 4), fill(content, LETTERS), fill="black")
    else:
        picture = to_pil_image(content)
        scale = CELL / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        cell.paste(picture.resize(size, Image.Resampling.NEAREST), (0, CAPTION))
    return torch.frombuffer(bytearray(cell.tobytes()), dtype=torch.uint8).view(CELL + CAPTION, CELL, 3).permute(2, 0, 1)
