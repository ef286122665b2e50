"""Oxford Flowers-102's public layout, made small: 102 labels are allowed, four occur."""

from pathlib import Path

import numpy as np
import scipy.io

from tests.pipeline.layouts._pictures import noise, save

LABELS = (1, 7, 77, 102)
COUNTS = {"trnid": 8, "valid": 4, "tstid": 4}


def plant(folder: Path) -> Path:
    """Make `jpg`, `imagelabels.mat` and `setid.mat`, whose parts are mixed as the real ones are; gives their folder."""
    total = sum(COUNTS.values())
    for number in range(1, total + 1):
        save(folder / f"jpg/image_{number:05}.jpg", noise(number))
    labels = np.array([LABELS[number % len(LABELS)] for number in range(total)], dtype=np.uint8)
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": labels[None]})
    order = np.random.default_rng(0).permutation(total) + 1
    parts = np.split(order.astype(np.uint16), np.cumsum(list(COUNTS.values()))[:-1])
    scipy.io.savemat(folder / "setid.mat", {name: part[None] for name, part in zip(COUNTS, parts, strict=True)})
    return folder
