"""ADEChallengeData2016's public layout, made small: 150 classes, of which an image shows a few."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 64)  # height, width
COUNTS = {"training": ("train", 12), "validation": ("val", 4)}
SCENES = ("bathroom", "street", "airport_terminal")


def plant(folder: Path) -> Path:
    """Make `ADEChallengeData2016` with images, annotations (0 = other, 1 to 150) and both text files; gives it."""
    root = folder / "ADEChallengeData2016"
    lines = []
    for part, (word, count) in COUNTS.items():
        for kind in ("images", "annotations"):
            (root / kind / part).mkdir(parents=True)
        for number in range(1, count + 1):
            name = f"ADE_{word}_{number:08}"
            random = np.random.default_rng(number + 100 * (word == "val"))
            label = np.full(SIZE, 1 + number % 3, np.uint8)
            label[24:] = 4
            label[10:40, 8:30] = random.integers(1, 151)
            label[30:44, 40:60] = 150
            label[:4] = 0
            noise = random.integers(0, 60, (*SIZE, 3), dtype=np.uint8)
            image = noise + label[..., None]
            picture = Image.fromarray(image if number % 5 else image[..., 0])
            picture.save(root / f"images/{part}/{name}.jpg")
            Image.fromarray(label).save(root / f"annotations/{part}/{name}.png")
            lines.append(f"{name} {SCENES[number % 3]}\n")
    (root / "sceneCategories.txt").write_text("".join(lines))
    (root / "objectInfo150.txt").write_text(_object_info())
    return root


def _object_info() -> str:
    """The table as it is published, with its stray blanks; its names here are numbers, but for the first."""
    names = ["wall", "building, edifice", "sky", "floor, flooring", *(f"thing{n}, thing" for n in range(5, 151))]
    lines = [f"{n}{' ' * (n == 22)}\t0.0100\t1000\t100\t{name} " for n, name in enumerate(names, start=1)]
    return "\n".join(["Idx\tRatio\tTrain\tVal\tName", *lines, ""])
