"""COCO's public layout, made small: six of its categories, thirteen training and four validation images."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (48, 64)  # height, width
THINGS = {1: "person", 3: "car", 18: "dog", 90: "toothbrush"}
STUFF = {187: "sky-other-merged", 193: "grass-merged"}
COUNTS = {"train": 13, "val": 4}


def plant(folder: Path) -> Path:
    """Make the tree: image folders, and for each split a JSON of instances and one of panoptic PNGs; gives its root."""
    for split, count in COUNTS.items():
        numbers = [1000 * (split == "val") + 9 + 7 * n for n in range(count)]
        boxes = {number: _objects(number) for number in numbers}
        (folder / f"{split}2017").mkdir(parents=True)
        (folder / f"annotations/panoptic_{split}2017").mkdir(parents=True)
        for number in numbers:
            image = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            for category, (x, y, width, height) in boxes[number]:
                image[y : y + height, x : x + width] = 2 * category
            Image.fromarray(image).save(folder / f"{split}2017/{number:012}.jpg")
        _write(folder / f"annotations/instances_{split}2017.json", numbers, _instances(boxes), THINGS)
        panoptic = [_panoptic(folder, split, number, boxes[number]) for number in numbers if number % 5]
        labelled = [number for number in numbers if number % 5]
        _write(folder / f"annotations/panoptic_{split}2017.json", labelled, panoptic, {**THINGS, **STUFF})
    return folder


def _objects(number: int) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Category and [x, y, width, height] of an image's objects, left to right; every fifth image has none."""
    random = np.random.default_rng(100 + number)
    places = range(number % 5 % 3 + bool(number % 5))
    return [
        (
            int(random.choice(list(THINGS))),
            (20 * place + 2, int(random.integers(2, 12)), 16, int(random.integers(12, 30))),
        )
        for place in places
    ]


def _instances(boxes: Mapping[int, Sequence[tuple[int, Sequence[int]]]]) -> list[dict[str, Any]]:
    """Annotations as COCO has them; the last object of an image with three is a crowd."""
    found = []
    for number, objects in boxes.items():
        for place, (category, (x, y, width, height)) in enumerate(objects):
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            entry = {"segmentation": [corners], "area": float(width * height), "iscrowd": int(place == 2)}
            entry |= {"image_id": number, "bbox": [float(x), float(y), float(width), float(height)]}
            found.append({**entry, "category_id": category, "id": 10 * number + place})
    return found


def _panoptic(folder: Path, split: str, number: int, objects: Sequence[tuple[int, Sequence[int]]]) -> dict[str, Any]:
    """Write one PNG of segment ids: sky above, grass below, the objects before them, a strip unlabelled."""
    ids = np.full(SIZE, 1000, np.uint32)
    ids[SIZE[0] // 2 :] = 70000
    ids[:2] = 0
    segments = [{"id": 1000, "category_id": 187, "iscrowd": 0}, {"id": 70000, "category_id": 193, "iscrowd": 0}]
    for place, (category, (x, y, width, height)) in enumerate(objects):
        ids[y : y + height, x : x + width] = 3_000_001 + place
        segments.append({"id": 3_000_001 + place, "category_id": category, "iscrowd": int(place == 2)})
    coded = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)
    Image.fromarray(coded).save(folder / f"annotations/panoptic_{split}2017/{number:012}.png")
    return {"segments_info": segments, "file_name": f"{number:012}.png", "image_id": number}


def _write(path: Path, numbers: Sequence[int], annotations: Sequence[dict[str, Any]], names: Mapping[int, str]) -> None:
    images = [
        {"license": 3, "file_name": f"{number:012}.jpg", "height": SIZE[0], "width": SIZE[1], "id": number}
        for number in numbers
    ]
    categories = [{"supercategory": "any", "id": number, "name": name} for number, name in names.items()]
    found = {"info": {"year": 2017}, "images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(found))
