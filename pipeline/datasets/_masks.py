"""Label maps of a set's own ids -> masks of classes from 0."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.spec import IGNORE
from pipeline.datasets.base import BadExample
from pipeline.datasets.files import read_ids, require_same_size


def read_mask(path: Path, classes: Mapping[int, int], image: np.ndarray) -> np.ndarray:
    """A file of 8-bit ids -> class indices uint8 [H, W]. BadExample for an id without a class, and for another size."""
    ids = read_ids(path)
    require_same_size(path, ids, image)
    table = np.full(256, -1, np.int16)
    table[list(classes)] = list(classes.values())
    mask = table[ids]
    if (wrong := ids[mask < 0]).size:
        last = max(key for key in classes if key != IGNORE)
        raise BadExample(
            f"{path}: {wrong.size} pixels are out of range, with values up to {wrong.max()}; the last class has {last}"
        )
    return mask.astype(np.uint8)
