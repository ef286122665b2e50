"""Boxes as annotators left them -> boxes inside their image, of its size.

Shapes: P boxes.
"""

from pathlib import Path

import numpy as np

from pipeline.datasets.base import BadExample


def require_stated_size(path: Path, width: object, height: object, file: str, image: np.ndarray) -> None:
    """Refuse boxes that were made for another size than their image's; one that isn't stated, "" or 0, will do."""
    stated, found = (str(width), str(height)), (str(image.shape[1]), str(image.shape[0]))
    if stated not in (("", ""), ("0", "0"), found):
        why = "; if an EXIF tag turns the image, turn the boxes too" if stated == found[::-1] else ""
        raise BadExample(f"{path}: made for {'x'.join(stated)} pixels, but {file} has {'x'.join(found)}{why}")


def cut_boxes(path: Path, boxes_P5: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Corners and class, in pixels [P, 5] -> the same, cut off at the image's edges. BadExample for one outside.

    `path` is the annotation's, for the message.
    """
    height, width = image.shape[:2]
    cut = boxes_P5.copy()
    cut[:, :4] = boxes_P5[:, :4].clip(0, [width, height, width, height])
    if len(outside := boxes_P5[(cut[:, :2] >= cut[:, 2:4]).any(1)]):
        raise BadExample(f"{path}: the box that ends at {outside[0, 2]:g}, {outside[0, 3]:g} is outside the image")
    return cut
