"""A trained network on your own images.    python -m stages.predict <bundle> <images...>    (a few seconds)

Prints a line per image and task, and draws every image beside its predictions into one picture, predictions.png.
<bundle> is a folder that a training stage left, such as artifacts/branched/shared.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from models.bundle import Predictor, load
from models.tasks import Task
from pipeline.datasets.files import read_rgb
from stages.session import start

CELL = 192  # pixels a side of a picture in the drawing, its caption not counted
CAPTION = 16
LETTERS = 30  # of the default font in one cell's width


def main(arguments: Sequence[str] | None = None) -> None:
    asked = _parse(arguments)
    if not asked.out.parent.is_dir():
        raise ValueError(f"--out {asked.out}: there is no folder {asked.out.parent}")
    predictor = load(asked.bundle)
    if asked.task is not None:
        predictor = predictor.only(asked.task)
    images = [Image.fromarray(read_rgb(path)) for path in asked.images]
    cells: list[Tensor] = []
    for path, image in zip(asked.images, images, strict=True):
        predictions, tasks = _predictions(predictor, image), predictor.network.tasks
        for name, prediction in predictions.items():
            print(f"{path}  {name}: {tasks[name].describe(prediction)}")
        cells += _row(path.name, _resized(image, predictor.network.spec.backbone.size), predictions, tasks)
    to_pil_image(make_grid(cells, nrow=len(cells) // len(images), pad_value=255)).save(asked.out)
    print(f"predict: {len(images)} images -> {asked.out}")


def _parse(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(prog="python -m stages.predict", description="Run a trained network on images.")
    parser.add_argument("bundle", type=Path, help="a folder with spec.json and weights.safetensors")
    parser.add_argument("images", type=Path, nargs="+", help="image files of any size")
    parser.add_argument("--out", type=Path, default=Path("predictions.png"), help="the drawing (default: %(default)s)")
    parser.add_argument("--task", help="predict this task alone")
    return parser.parse_args(arguments)


@torch.inference_mode()
def _predictions(predictor: Predictor, image: Image.Image) -> dict[str, Tensor]:
    """Map an image to each task's prediction, from the size that the task was trained on."""
    network = predictor.network
    sizes = {name: task.spec.size or network.spec.backbone.size for name, task in network.tasks.items()}
    outputs: dict[str, Tensor] = {}
    for size in set(sizes.values()):
        names = [name for name in sizes if sizes[name] == size]
        outputs |= network(_resized(image, size).unsqueeze(0), names)
    return {name: task.predict(outputs[name].float())[0] for name, task in network.tasks.items()}


def _resized(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """Map an image to uint8 [3, H, W] of a size, resized as `prepare` does."""
    height, width = size
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(height, width, 3).permute(2, 0, 1)


def _row(name: str, picture: Tensor, predictions: Mapping[str, Tensor], tasks: Mapping[str, Task]) -> list[Tensor]:
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


if __name__ == "__main__":
    start(main)
