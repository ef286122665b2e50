"""One file of a Taskonomy modality -> the label that it holds, for the image that it belongs to."""

from pathlib import Path

import numpy as np
from PIL import Image

from models.spec import IGNORE
from pipeline.datasets.base import BadExample
from pipeline.datasets.files import read_field, read_ids, read_rgb, require_same_size

SCENES = 365
# The classes of COCO that its makers kept, in the order of their values from 1; 0 is "uncertain".
# fmt: off
OBJECTS = (
    "background", "bottle", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "microwave",
    "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase",
)
# fmt: on
STEPS_PER_METRE, NO_DEPTH = 512, 65535


def read_scene(path: Path, _image: np.ndarray) -> int:
    """The scores of Places' 365 scenes -> the likeliest."""
    try:
        with path.open("rb") as file:
            scores = np.lib.format.read_array(file, allow_pickle=False)  # np.load would open an archive too
    except Exception as error:  # NumPy reads the header as a literal of Python's, which fails in many ways
        raise BadExample(f"{path}: not an array of numpy, or cut off: {error}") from error
    if scores.size != SCENES or not np.isfinite(scores).all():
        raise BadExample(f"{path}: an array {list(scores.shape)}, but {SCENES} finite scores are expected")
    return int(scores.argmax())


def read_objects(path: Path, image: np.ndarray) -> np.ndarray:
    """Classes from 1, 0 = uncertain -> indices of `OBJECTS`, 255 where uncertain."""
    ids = read_ids(path)
    require_same_size(path, ids, image)
    if ids.max() > len(OBJECTS):
        raise BadExample(f"{path}: a pixel is {ids.max()}, but 0 to {len(OBJECTS)} are expected")
    return np.where(ids == 0, IGNORE, ids - 1).astype(np.uint8)


def read_strength(path: Path, image: np.ndarray) -> np.ndarray:
    """A heat map of 8 or 16 bits -> 0 to 1, at least one step of 16 bits, since 0 would mean unlabelled."""
    stored = read_field(path)
    require_same_size(path, stored, image)
    with Image.open(path) as picture:
        steps = 257 if picture.mode == "L" else 1
    return (stored * steps).clip(min=1) / np.float32(65535)


def read_depth(path: Path, image: np.ndarray) -> np.ndarray:
    """Steps of 1/512 m, 65535 where there is no surface -> metres, 0 where there is none."""
    stored = read_field(path)
    require_same_size(path, stored, image)
    return np.where(stored == NO_DEPTH, 0, stored) / np.float32(STEPS_PER_METRE)


def read_normals(path: Path, image: np.ndarray) -> np.ndarray:
    """A picture of normals, red to the right and green down -> unit vectors right, up and to the camera; 0 = none.

    Blue is to the camera in some releases and away from it in others. What is seen faces the camera, so the way counts
    in which the image as a whole does. Where there is no surface the picture is grey, black or white.
    """
    stored = read_rgb(path)
    require_same_size(path, stored[..., 0], image)
    normals = (stored.astype(np.float32) - 127.5) / 127.5 * np.array([1, -1, 1], np.float32)
    length = np.linalg.norm(normals, axis=2, keepdims=True)
    known = abs(length - 1) < 0.5
    normals = np.where(known, normals / length, 0)
    return normals * np.array([1, 1, -1 if normals[..., 2].sum() < 0 else 1], np.float32)
