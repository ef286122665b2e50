"""VOC2012's public layout, made small: boxes of all images, palette masks of two in three of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 64)  # height, width
NAMES = {2: "bicycle", 8: "cat", 15: "person"}  # by their number in a mask
COUNTS = {"train": 12, "val": 6}
BORDER = 255


def plant(folder: Path) -> Path:
    """Make `VOCdevkit/VOC2012` with lists of train, val and trainval as in the public archive; gives `VOCdevkit`."""
    root = folder / "VOCdevkit/VOC2012"
    for part in ("Annotations", "JPEGImages", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    for split, count in COUNTS.items():
        names = [f"2007_{1000 * (split == 'val') + number:06}" for number in range(count)]
        for number, name in enumerate(names):
            _image(root, name, seed=number + 100 * (split == "val"), mask=number % 3 > 0)
        _append(root / "ImageSets/Main", split, names)
        _append(root / "ImageSets/Segmentation", split, [name for n, name in enumerate(names) if n % 3 > 0])
    return folder / "VOCdevkit"


def _image(root: Path, name: str, seed: int, *, mask: bool) -> None:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    classes = np.zeros(SIZE, np.uint8)
    objects = []
    for place, kind in enumerate(random.choice(list(NAMES), 1 + seed % 2)):
        x0, y0, x1, y1 = 30 * place + 3, int(random.integers(2, 12)), 30 * place + 27, int(random.integers(24, 46))
        image[y0 - 1 : y1, x0 - 1 : x1] = 10 * kind
        classes[y0 - 1 : y1, x0 - 1 : x1] = BORDER
        classes[y0 : y1 - 1, x0 : x1 - 1] = kind
        objects.append((NAMES[int(kind)], (x0, y0, x1, y1)))
    Image.fromarray(image).save(root / f"JPEGImages/{name}.jpg")
    (root / f"Annotations/{name}.xml").write_text(_annotation(name, objects))
    if mask:
        picture = Image.fromarray(classes)
        picture.putpalette(_palette())
        picture.save(root / f"SegmentationClass/{name}.png")


def _annotation(name: str, objects: Sequence[tuple[str, Sequence[int]]]) -> str:
    size = f"<size><width>{SIZE[1]}</width><height>{SIZE[0]}</height><depth>3</depth></size>"
    items = "".join(
        f"<object><name>{kind}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><bndbox>"
        f"<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for kind, (x0, y0, x1, y1) in objects
    )
    return f"<annotation><folder>VOC2012</folder><filename>{name}.jpg</filename>{size}{items}</annotation>"


def _palette() -> list[int]:
    """VOC's colours: the bits of a number, dealt to red, green and blue in turn from the highest down."""
    return [
        sum((number >> 3 * bit + channel & 1) << 7 - bit for bit in range(8))
        for number in range(256)
        for channel in range(3)
    ]


def _append(folder: Path, split: str, names: Sequence[str]) -> None:
    for file in (split, "trainval"):
        with (folder / f"{file}.txt").open("a") as text:
            text.writelines(f"{name}\n" for name in names)
