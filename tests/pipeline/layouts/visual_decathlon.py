"""The Visual Decathlon's public layout, made small: ten sets, their images of a shorter side of 72 pixels."""

import json
from pathlib import Path
from typing import Any

from pipeline.datasets.visual_decathlon import SETS
from tests.pipeline.layouts._pictures import noise, save

CLASSES = {"daimlerpedcls": 2, "svhn": 3}  # others have 4
COUNTS = {"train": 5, "val": 2, "test": 1}  # images a class


def plant(folder: Path) -> Path:
    """Make `decathlon-1.0/annotations` and `data/<set>`; gives the folder of `aircraft`, the others lie beside it."""
    for number, name in enumerate(SETS, start=1):
        classes = range(1, 1 + CLASSES.get(name, 4))
        categories = [{"id": 1_000_000 * number + key, "name": f"{name} {key}"} for key in classes]
        for place, (split, count) in enumerate(COUNTS.items()):
            entries = [
                (10_000_000 * number + 100_000 * place + 100 * key + index, key)
                for key in classes
                for index in range(count)
            ]
            images = [{"id": key, "file_name": _file(name, split, key, label)} for key, label in entries]
            for image in images:
                save(folder / "decathlon-1.0" / image["file_name"], noise(image["id"], (72, 80, 3)))
            annotations = [
                {"id": key, "image_id": key, "category_id": 1_000_000 * number + label, "segmentation": []}
                for key, label in entries
            ]
            found: dict[str, Any] = {"info": {}, "images": images, "categories": categories}
            _write(folder, name, split, found if split == "test" else {**found, "annotations": annotations})
    return folder / "decathlon-1.0/data/aircraft"


def _file(name: str, split: str, key: int, label: int) -> str:
    return f"data/{name}/{split}/{key:06}.jpg" if split == "test" else f"data/{name}/{split}/{label:04}/{key:06}.jpg"


def _write(folder: Path, name: str, split: str, found: dict[str, Any]) -> None:
    path = folder / f"decathlon-1.0/annotations/{name}_{'test_stripped' if split == 'test' else split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found))
