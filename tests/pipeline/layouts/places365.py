"""Places-365's public layout, made small: four of its scenes, the training list with its leading slashes."""

from pathlib import Path

from tests.pipeline.layouts._pictures import noise, save

CATEGORIES = ("/a/airfield", "/a/airplane_cabin", "/a/apartment_building/outdoor", "/z/zen_garden")
TRAIN, VAL = 6, 2  # images a class


def plant(folder: Path) -> Path:
    """Make the three lists, `data_256_standard` and `val_256`; gives their folder."""
    train, val = [], []
    for label, category in enumerate(CATEGORIES):
        for index in range(1, TRAIN + 1):
            train.append(f"{category}/{index:08}.jpg {label}")
            save(folder / f"data_256_standard{category}/{index:08}.jpg", noise(100 * label + index))
        for index in range(VAL):
            number = 1 + label + index * len(CATEGORIES)
            val.append(f"Places365_val_{number:08}.jpg {label}")
            save(folder / f"val_256/Places365_val_{number:08}.jpg", noise(1000 + number))
    lines = [f"{category} {label}" for label, category in enumerate(CATEGORIES)]
    (folder / "categories_places365.txt").write_text("\n".join(lines) + "\n")
    (folder / "places365_train_standard.txt").write_text("\n".join(train) + "\n")
    (folder / "places365_val.txt").write_text("\n".join(val) + "\n")
    return folder
