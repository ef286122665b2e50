"""One image's predictions -> values that JSON holds, and maps that files beside it hold.

Coordinates are in pixels of the user's image, whatever size the network saw. H W height and width, C channels.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from models.tasks import Task

Size = tuple[int, int]  # height and width of the user's image
Values = dict[str, Any]
TOP = 5  # classes that are named of an image
HIGH = 0.5  # the least height of a peak
AROUND = 1 / 32  # of the longer side: within it a peak is the highest


def values_of(task: Task, prediction: Tensor, size: Size) -> tuple[Values, np.ndarray | None]:
    """Map one image's prediction to its values for JSON, and to the map that goes to a file, where there is one.

    Classes are named, a mask is uint8 class indices at the image's size, any other map float32 as it was predicted.
    """
    return VALUES[task.spec.kind](task, prediction, size)


def write_map(values: np.ndarray, path: Path) -> Path:
    """Write a map beside JSON: class indices as a PNG, numbers as numpy's .npy. Give the file's path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if values.dtype == np.uint8:
        path = path.with_name(f"{path.name}.png")
        Image.fromarray(values).save(path)
    else:
        path = path.with_name(f"{path.name}.npy")
        np.save(path, values, allow_pickle=False)
    return path


def _classes(task: Task, prediction: Tensor, _size: Size) -> tuple[Values, None]:
    chances, best = prediction.topk(min(TOP, len(task.classes)))
    named = [
        {"class": task.classes[place], "probability": _number(chance)}
        for chance, place in zip(chances.tolist(), best.tolist(), strict=True)
    ]
    return {**named[0], "top": named}, None


def _flags(task: Task, prediction: Tensor, _size: Size) -> tuple[Values, None]:
    return {"probabilities": dict(zip(task.classes, map(_number, prediction.tolist()), strict=True))}, None


def _mask(task: Task, prediction: Tensor, size: Size) -> tuple[Values, np.ndarray]:
    counts = torch.bincount(prediction.flatten().long(), minlength=len(task.classes))
    shares = {name: int(count) / prediction.numel() for name, count in zip(task.classes, counts, strict=True) if count}
    height, width = size
    mask = Image.fromarray(prediction.numpy()).resize((width, height), Image.Resampling.NEAREST)
    return {"shares": shares}, np.asarray(mask)


def _numbers(task: Task, prediction: Tensor, _size: Size) -> tuple[Values, np.ndarray]:
    ends = {name: _number(float(value)) for name, value in zip(("min", "max"), prediction.aminmax(), strict=True)}
    return {**ends, "mean": _number(float(prediction.mean())), "unit": task.unit}, prediction.float().numpy()


def _strengths(_task: Task, prediction: Tensor, _size: Size) -> tuple[Values, np.ndarray]:
    return {"share_above_half": float((prediction > HIGH).float().mean())}, prediction.float().numpy()


def _vectors(task: Task, prediction: Tensor, _size: Size) -> tuple[Values, np.ndarray]:
    return {"components": len(prediction), "unit": task.unit}, prediction.float().numpy()


def _points(task: Task, prediction: Tensor, size: Size) -> tuple[Values, np.ndarray]:
    """The peaks of each class's heat that are high enough, the highest first."""
    height, width = prediction.shape[-2:]
    reach = max(1, round(AROUND * max(height, width)))
    highest = F.max_pool2d(prediction[None], 2 * reach + 1, stride=1, padding=reach)[0]
    found = ((prediction == highest) & (prediction > HIGH)).nonzero().tolist()
    points = [
        {
            "class": task.classes[kind],
            "x": (column + 0.5) * size[1] / width,
            "y": (row + 0.5) * size[0] / height,
            "score": _number(float(prediction[kind, row, column])),
        }
        for kind, row, column in found
    ]
    return {"points": sorted(points, key=lambda point: -(point["score"] or 0.0))}, prediction.float().numpy()


def _boxes(task: Task, prediction: Tensor, size: Size) -> tuple[Values, None]:
    """Boxes x0, y0, x1, y1, the surest first; the last row of a prediction is the image that the network saw."""
    width, height = prediction[-1, 2:4].tolist()
    scale = prediction.new_tensor([size[1] / width, size[0] / height] * 2)
    rows = [row for row in prediction[:-1] if row[4] >= 0]
    boxes = [
        {"box": (row[:4] * scale).tolist(), "class": task.classes[int(row[4])], "score": _number(float(row[5]))}
        for row in rows
    ]
    return {"boxes": boxes}, None


def _number(value: float) -> float | None:
    """JSON has no number for what is not finite."""
    return value if math.isfinite(value) else None


VALUES: dict[str, Callable[[Task, Tensor, Size], tuple[Values, np.ndarray | None]]] = {
    "classification": _classes,
    "attributes": _flags,
    "segmentation": _mask,
    "depth": _numbers,
    "regression": _numbers,
    "edges": _strengths,
    "normals": _vectors,
    "keypoints": _points,
    "offsets": _vectors,
    "detection": _boxes,
}
