"""Small pictures for the fixture trees: noise, the same for the same seed, in any file format that Pillow writes."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (24, 32)  # height, width


def noise(seed: int, shape: tuple[int, ...] = (*SIZE, 3)) -> np.ndarray:
    """uint8 of the shape."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: np.ndarray) -> None:
    """Write a picture and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
