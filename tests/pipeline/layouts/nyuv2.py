"""NYU Depth v2 in the layout of three folders, made small: 48 x 64 pixels where the set has 480 x 640."""

from pathlib import Path

import numpy as np

from tests.pipeline.layouts._pictures import noise, save

SIZE = (48, 64)  # height, width
STEMS = {"train": range(12), "test": range(12, 15)}


def plant(folder: Path) -> Path:
    """Make images, labels and depths of rooms of a floor and two walls, and the two lists; gives their folder."""
    for split, stems in STEMS.items():
        for stem in stems:
            save(folder / f"nyu_images/{stem}.jpg", noise(stem, (*SIZE, 3)))
            label = np.zeros(SIZE, np.uint8)
            label[:, 32:], label[36:] = 2 + stem % 6, 1
            label[:4] = 39  # otherprop, which is also what has no label
            save(folder / f"nyu_labels40/{stem}.png", label)
            depth = np.linspace(60 + stem, 120, SIZE[0])[:, None] + np.zeros(SIZE)
            save(folder / f"nyu_depths/{stem}.png", depth.round().astype(np.uint8))
        (folder / f"official_{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    return folder
