"""Image files -> their predictions, some at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from models.bundle import Predictor
from models.predicting import predict_images
from pipeline.datasets.base import BadExample
from pipeline.datasets.files import read_rgb
from pipeline.datasets.folders import IMAGES


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """One file: its image and each task's prediction, or why it can't be read."""

    path: Path
    image: Image.Image | None = None
    predictions: Mapping[str, Tensor]
    problem: str = ""


def image_files(paths: Sequence[Path]) -> list[Path]:
    """Map files and folders to image files: a file as it is, a folder's in all its sub-folders, sorted.

    ValueError for what is not there, and for a folder without an image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGES and file.is_file())
            if not inside:
                raise ValueError(f"{path}: no image in this folder; known are {', '.join(IMAGES)}")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(f"{path}: not found")
    return list(dict.fromkeys(found))


def predict_files(predictor: Predictor, paths: Sequence[Path], batch: int) -> Iterator[Predicted]:
    """Map image files to their predictions, in their order; `batch` images go through the network at a time."""
    for begin in range(0, len(paths), batch):
        opened = [_open(path) for path in paths[begin : begin + batch]]
        images = [image for image in opened if isinstance(image, Image.Image)]
        rows = iter(predict_images(predictor, images))
        for path, image in zip(paths[begin : begin + batch], opened, strict=True):
            if isinstance(image, str):
                yield Predicted(path=path, predictions={}, problem=image)
            else:
                yield Predicted(path=path, image=image, predictions=next(rows))


def _open(path: Path) -> Image.Image | str:
    try:
        return Image.fromarray(read_rgb(path))
    except BadExample as error:
        return str(error)
