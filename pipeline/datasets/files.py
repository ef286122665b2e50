"""Reading the files that data sets are made of: images, label maps, and which rows to take.

Every failure to read is a `BadExample` that names the file and why; nothing here guesses at half a picture. Pictures
and label maps are turned upright by their own EXIF tag, as a viewer shows them.
"""

import hashlib
import os
import random
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageFile

from models.spec import IGNORE
from pipeline.datasets.base import BadExample, SourceSettings

T = TypeVar("T")
UNREADABLE = (OSError, RuntimeError, SyntaxError, ValueError, struct.error)
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # how to undo each value of EXIF's Orientation
HASHED_AT_ONCE = 256

_read: ContextVar[list[tuple[Path, np.ndarray]] | None] = ContextVar("read", default=None)


def read_rgb(path: Path) -> np.ndarray:
    """An image file -> uint8 [H, W, 3]: greyscale, palette and CMYK images as RGB, what is transparent over white."""
    return _noted(path, to_rgb(_decode(path), path))


def to_rgb(image: Image.Image, name: object) -> np.ndarray:
    """A decoded picture of any 8-bit mode -> uint8 [H, W, 3]; `name` is what a message calls it."""
    if image.mode.startswith(("I", "F")):
        raise BadExample(f"{name}: an image of more than 8 bits a channel (mode {image.mode}); store it with 8 bits")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return np.array(image.convert("RGB"))


def read_colours(path: Path) -> np.ndarray:
    """A label map drawn in colours -> uint8 [H, W, 3] of just these colours, whatever their transparency."""
    return _noted(path, np.array(_decode(path).convert("RGBA"))[..., :3])


def read_ids(path: Path) -> np.ndarray:
    """A one-channel 8-bit file of ids (greyscale or palette) -> uint8 [H, W]."""
    image = _decode(path)
    if image.mode not in ("1", "L", "P"):
        raise BadExample(
            f"{path}: mode {image.mode}, but one channel of 8-bit class ids is expected ({IGNORE} = unlabelled); "
            "for a map drawn in colours, a manifest can name them: 'parts:mask:road=#804080|sky=#4682b4'"
        )
    return _noted(path, np.array(image, dtype=np.uint8))


def read_field(path: Path) -> np.ndarray:
    """A one-channel file of 8 or 16 bits -> float32 [H, W] of the stored values, 0 = unlabelled."""
    image = _decode(path)
    if image.mode not in ("L", "I", "I;16", "I;16B"):
        raise BadExample(f"{path}: mode {image.mode}, but one channel of 8- or 16-bit values is expected")
    return _noted(path, np.array(image, dtype=np.float32))


def read_normals(path: Path) -> np.ndarray:
    """An RGB file of 128 + 127 * component -> float32 [H, W, 3], unit vectors, black = unlabelled."""
    stored = read_rgb(path)
    normals = (stored.astype(np.float32) - 128) * stored.any(2, keepdims=True)
    return normals / np.linalg.norm(normals, axis=2, keepdims=True).clip(min=1)


@contextmanager
def noting_reads() -> Iterator[list[tuple[Path, np.ndarray]]]:
    """What the functions above read within the block, in order: each file, and a copy of what was made of it."""
    found: list[tuple[Path, np.ndarray]] = []
    token = _read.set(found)
    try:
        yield found
    finally:
        _read.reset(token)


def content_group(path: Path | str) -> str:
    """A file -> the sha256 of its bytes, the same for exact copies; of a file that can't be read, its path."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except (OSError, ValueError):
        return str(path)


def content_groups(paths: Sequence[Path | str]) -> list[str]:
    """Files -> `content_group` of each, in their order, read by several threads."""
    parts = [paths[start : start + HASHED_AT_ONCE] for start in range(0, len(paths), HASHED_AT_ONCE)]
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        return [group for groups in pool.map(lambda part: list(map(content_group, part)), parts) for group in groups]


def require_same_size(path: Path, label: np.ndarray, image: np.ndarray) -> None:
    """Refuse a label map that doesn't cover its image pixel by pixel."""
    (height, width), (rows, columns) = label.shape[:2], image.shape[:2]
    if (height, width) != (rows, columns):
        turned = (height, width) == (columns, rows)
        why = "; where an EXIF tag turns the image, turn its labels too" if turned else ""
        raise BadExample(f"{path}: {width}x{height} pixels, but its image has {columns}x{rows}{why}")


def draw(items: Sequence[T], settings: SourceSettings) -> list[T]:
    """All items -> `settings.images` of them drawn with the seed, in their old order (all, where None)."""
    if settings.images is None or settings.images >= len(items):
        return list(items)
    kept = random.Random(settings.seed).sample(range(len(items)), settings.images)
    return [items[index] for index in sorted(kept)]


def inside(folder: Path, relative: str, where: str = "") -> Path:
    """A path as a list states it -> the path below `folder`, by its words alone: links may lead elsewhere.

    BadExample, beginning with `where`, for one that leaves the folder by `..` or from the root of the disk.
    """
    if ".." in relative or os.path.isabs(relative):
        base, path = os.path.abspath(folder), os.path.normpath(os.path.join(os.path.abspath(folder), relative))
        if os.path.commonpath([base, path]) != base:
            start = f"{where}: " if where else ""
            raise BadExample(
                f"{start}{relative} leads out of {folder}; name files below it, or link their folder there"
            )
    return folder / relative


def find(kind: str, relative: str, folder: Path) -> Path:
    """A path relative to `folder` -> the path, which must be a file below it."""
    path = inside(folder, relative, kind)
    if not _is_file(path):
        raise BadExample(f"{kind} {relative or '(an empty cell)'} not found (looked in {folder})")
    return path


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


def _noted(path: Path, values: np.ndarray) -> np.ndarray:
    if (found := _read.get()) is not None:
        found.append((path, values.copy()))
    return values


def _decode(path: Path) -> Image.Image:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES, "half a picture must not pass for a whole one"
    if not _is_file(path):
        raise BadExample(f"{path}: not found")
    try:
        with Image.open(path) as image:
            image.load()
            return _true(image)
    except Image.UnidentifiedImageError as error:
        raise BadExample(f"{path}: not an image that can be read; {_beginning(path)}") from error
    except Image.DecompressionBombError as error:
        raise BadExample(f"{path}: too many pixels for one image; cut it into tiles: {error}") from error
    except UNREADABLE as error:
        raise BadExample(f"{path}: {error}") from error


def _is_file(path: Path) -> bool:
    """Whether there is such a file; none has a name that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def _true(image: Image.Image) -> Image.Image:
    """A loaded file -> its picture, upright, with inks the right way round."""
    if image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes every file for one of Adobe's, whose inks are inverted
    turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image.copy() if turn is None else image.transpose(turn)


def _beginning(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(24)
    return f"it begins with {start!r}" if start else "the file is empty"
