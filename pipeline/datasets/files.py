"""Reading the files that data sets are made of: images, label maps, and which rows to take.

Every failure to read is a `BadExample` that names the file and why; nothing here guesses at half a picture.
"""

import hashlib
import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageFile

from models.spec import IGNORE
from pipeline.datasets.base import BadExample, SourceSettings

T = TypeVar("T")
UNREADABLE = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


def read_rgb(path: Path) -> np.ndarray:
    """An image file -> uint8 [H, W, 3]; greyscale, palette and alpha images are turned into RGB."""
    image = _decode(path)
    if image.mode.startswith(("I", "F")):
        raise BadExample(f"{path}: an image of more than 8 bits a channel (mode {image.mode}); store it with 8 bits")
    return np.array(image.convert("RGB"))


def read_ids(path: Path) -> np.ndarray:
    """A one-channel 8-bit file of ids (greyscale or palette) -> uint8 [H, W]."""
    image = _decode(path)
    if image.mode not in ("1", "L", "P"):
        raise BadExample(
            f"{path}: mode {image.mode}, but one channel of 8-bit class ids is expected ({IGNORE} = unlabelled); "
            "turn colours into class ids first"
        )
    return np.array(image, dtype=np.uint8)


def read_field(path: Path) -> np.ndarray:
    """A one-channel file of 8 or 16 bits -> float32 [H, W] of the stored values, 0 = unlabelled."""
    image = _decode(path)
    if image.mode not in ("L", "I", "I;16", "I;16B"):
        raise BadExample(f"{path}: mode {image.mode}, but one channel of 8- or 16-bit values is expected")
    return np.array(image, dtype=np.float32)


def content_group(path: Path) -> str:
    """A file -> the sha256 of its bytes, the same for exact copies; of a file that isn't there, its path."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else str(path)


def require_same_size(path: Path, label: np.ndarray, image: np.ndarray) -> None:
    """Refuse a label map that doesn't cover its image pixel by pixel."""
    if label.shape != image.shape[:2]:
        (height, width), (rows, columns) = label.shape, image.shape[:2]
        raise BadExample(f"{path}: {width}x{height} pixels, but its image has {columns}x{rows}")


def draw(items: Sequence[T], settings: SourceSettings) -> list[T]:
    """All items -> `settings.images` of them drawn with the seed, in their old order (all, where None)."""
    if settings.images is None or settings.images >= len(items):
        return list(items)
    kept = random.Random(settings.seed).sample(range(len(items)), settings.images)
    return [items[index] for index in sorted(kept)]


def find(kind: str, relative: str, folder: Path) -> Path:
    """A path relative to `folder` -> the path, which must be a file."""
    if not (folder / relative).is_file():
        raise BadExample(f"{kind} {relative or '(an empty cell)'} not found (looked in {folder})")
    return folder / relative


def find_root(root: Path | None, expected: Sequence[str], name: str) -> Path:
    """A set's folder -> the folder that holds all of `expected`: itself, or the one subfolder that an archive made."""
    layout = ", ".join(expected)
    if root is None:
        raise ValueError(f"{name}: no root is set; name the folder that holds {layout}")
    if not root.is_dir():
        raise ValueError(f"{name}: there is no folder {root}; it should hold {layout}")
    if all((root / entry).exists() for entry in expected):
        return root
    inner = [folder for folder in root.iterdir() if all((folder / entry).exists() for entry in expected)]
    if len(inner) != 1:
        missing = ", ".join(entry for entry in expected if not (root / entry).exists())
        raise ValueError(f"{name}: {root} lacks {missing}; the folder, or its one subfolder, should hold {layout}")
    return inner[0]


def _decode(path: Path) -> Image.Image:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES, "half a picture must not pass for a whole one"
    if not path.is_file():
        raise BadExample(f"{path}: not found")
    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    except Image.UnidentifiedImageError as error:
        raise BadExample(f"{path}: not an image") from error
    except UNREADABLE as error:
        raise BadExample(f"{path}: {error}") from error
