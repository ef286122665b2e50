"""Sets of one class an image whose images are cut to a box around the object, as ImageNet-to-Sketch does."""

from typing import NamedTuple

import numpy as np

from pipeline.datasets.base import BadExample


class Boxed(NamedTuple):
    """An image's class, its split, and its object's box (x0, y0, x1, y1) in pixels, x1 and y1 outside."""

    label: int
    split: str
    box: tuple[float, float, float, float]


def crop(image: np.ndarray, box: tuple[float, float, float, float], where: str) -> np.ndarray:
    """An image [H, W, 3] -> the pixels that the box touches, as far as they lie in the image. BadExample for none."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box
    if not np.isfinite(box).all():
        raise BadExample(f"{where}: the box {x0:g}, {y0:g} to {x1:g}, {y1:g} is not finite")
    left, top = max(0, int(np.floor(x0))), max(0, int(np.floor(y0)))
    right, bottom = min(width, int(np.ceil(x1))), min(height, int(np.ceil(y1)))
    if left >= right or top >= bottom:
        raise BadExample(f"{where}: the box {x0:g}, {y0:g} to {x1:g}, {y1:g} holds no pixel of {width}x{height}")
    return image[top:bottom, left:right]
