"""Caltech-UCSD Birds-200-2011's public layout, made small: three species, boxes with decimal points."""

from pathlib import Path

from tests.pipeline.layouts._pictures import noise, save

CLASSES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
TRAIN, TEST = 6, 2  # images a class


def plant(folder: Path) -> Path:
    """Make `CUB_200_2011/images` and the five lists; gives the folder that holds `CUB_200_2011`."""
    root, number = folder / "CUB_200_2011", 0
    names, labels, splits, boxes = [], [], [], []
    for label, name in enumerate(CLASSES, start=1):
        for index in range(TRAIN + TEST):
            number += 1
            file = f"{name}/{name[4:]}_{index:04}_{number}.jpg"
            save(root / "images" / file, noise(number))
            names.append(f"{number} {file}")
            labels.append(f"{number} {label}")
            splits.append(f"{number} {int(index < TRAIN)}")
            boxes.append(f"{number} {2.0 + index} 3.0 {16.0} {12.0}")
    lists = {
        "images": names,
        "image_class_labels": labels,
        "train_test_split": splits,
        "bounding_boxes": boxes,
        "classes": [f"{label} {name}" for label, name in enumerate(CLASSES, start=1)],
    }
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return folder
