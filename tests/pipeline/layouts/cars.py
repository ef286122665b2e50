"""Stanford Cars' public layout, made small: three models, boxes that count pixels from 1."""

from pathlib import Path

import numpy as np
import scipy.io

from tests.pipeline.layouts._pictures import noise, save

CLASSES = ("AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Acura TL Sedan 2012")
COUNTS = {"train": 18, "test": 6}
BOX = (3, 5, 20, 22)  # x1, y1, x2, y2
FIELDS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")


def plant(folder: Path) -> Path:
    """Make `devkit`, `cars_train`, `cars_test` and the test set's labels beside them; gives their folder."""
    (folder / "devkit").mkdir(parents=True)
    names = np.array([CLASSES], dtype=object)
    scipy.io.savemat(folder / "devkit/cars_meta.mat", {"class_names": names})
    tables = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    for place, (split, count) in enumerate(COUNTS.items()):
        table = np.empty((1, count), dtype=[(name, object) for name in FIELDS])
        for index in range(count):
            file = f"{index + 1:05}.jpg"
            save(folder / f"cars_{split}/{file}", noise(100 * place + index))
            table[0, index] = (*BOX, index % len(CLASSES) + 1, file)
        scipy.io.savemat(folder / tables[split], {"annotations": table})
    return folder
