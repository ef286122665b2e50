"""Oxford-IIIT Pet's public layout, made small: two breeds of cat and two of dog, and one image without a trimap."""

from pathlib import Path

import numpy as np

from tests.pipeline.layouts._pictures import SIZE, noise, save

# Name of the breed, its number, its species and its number in the species.
BREEDS = (("Abyssinian", 1, 1, 1), ("american_bulldog", 2, 2, 1), ("beagle", 3, 2, 2), ("Bengal", 4, 1, 2))
COUNTS = {"trainval": 6, "test": 2}  # images a breed
BARE = "beagle_101"


def plant(folder: Path) -> Path:
    """Make `images` and `annotations` with lists and trimaps; gives their folder."""
    for place, (split, count) in enumerate(COUNTS.items()):
        lines = []
        for name, breed, species, within in BREEDS:
            for index in range(count):
                stem = f"{name}_{100 * place + index + 1}"
                save(folder / f"images/{stem}.jpg", noise(1000 * place + 100 * breed + index))
                if stem != BARE:
                    save(folder / f"annotations/trimaps/{stem}.png", trimap(index))
                lines.append(f"{stem} {breed} {species} {within}")
        (folder / f"annotations/{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


def trimap(shift: int) -> np.ndarray:
    """A pet (1) in a border (3) before the background (2)."""
    values = np.full(SIZE, 2, np.uint8)
    values[6:20, 4 + shift : 20 + shift] = 3
    values[8:18, 6 + shift : 18 + shift] = 1
    return values
