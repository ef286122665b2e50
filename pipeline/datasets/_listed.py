"""Sets that come as lists of images with one class each: reading the lists, and rows that carry their class.

A million rows are listed in seconds: no object a row but the row itself, and no file is opened but to find its copies.
"""

import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from models.spec import Column
from pipeline.datasets._coco_json import Id, read_coco
from pipeline.datasets._matlab import read_matlab
from pipeline.datasets.base import Example, Row, SourceSettings
from pipeline.datasets.files import content_groups, draw, inside, read_rgb
from pipeline.datasets.folders import IMAGES


class Listed(NamedTuple):
    """An image's path below the root, its class, its split."""

    file: str
    label: int
    split: str


def read_lines(path: Path) -> list[str]:
    """A text file -> its lines, without blank ones at the end. ValueError where it can't be read."""
    try:
        return path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except FileNotFoundError:
        raise ValueError(f"{path}: not found") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a text file: {error}") from error


def read_rows(path: Path, delimiter: str) -> tuple[Sequence[str], list[dict[str, str]]]:
    """A csv file -> its header and its rows' cells by name, "" where a row is short. ValueError where it is no csv."""
    lines = csv.DictReader(read_lines(path), delimiter=delimiter, restval="")
    try:
        return lines.fieldnames or (), list(lines)
    except csv.Error as error:
        raise ValueError(f"{path} row {lines.line_num}: {error}") from error


def is_count(word: str) -> bool:
    """Whether a word is a whole number of no more digits than a class or an image can have."""
    return word.isdecimal() and len(word) < 10


def read_list(path: Path) -> list[tuple[str, int]]:
    """A file of lines `<image> <class>` -> paths and numbers in its order. ValueError names the line at fault."""
    entries: list[tuple[str, int]] = []
    seen: set[str] = set()
    for number, line in enumerate(read_lines(path), start=1):
        file, _, word = line.strip().rpartition(" ")
        if not file or not is_count(word):
            raise ValueError(f"{path} line {number}: {line!r}, but an image and the number of its class are expected")
        if file in seen:
            raise ValueError(f"{path} line {number}: {file} stands there twice")
        if ".." in file:
            inside(path.parent, file, f"{path} line {number}")
        seen.add(file)
        entries.append((file, int(word)))
    return entries


def read_labels(path: Path) -> tuple[list[tuple[str, int]], Mapping[Id, str]]:
    """A file in COCO's layout, one category an image -> paths and classes from 0, and the categories' names by id."""
    coco = read_coco(path)
    index = {key: number for number, key in enumerate(coco.classes)}
    labels: dict[Id, int] = {}
    for number, entry in enumerate(coco.annotations):
        if "category_id" not in entry:
            raise ValueError(f"{path}: annotations[{number}] has no 'category_id'")
        if entry["image_id"] in labels:
            raise ValueError(f"{path}: annotations[{number}]: the image {entry['image_id']!r} has a class already")
        labels[entry["image_id"]] = index[entry["category_id"]]
    if len(labels) < len(coco.pictures):
        bare = next(key for key in coco.pictures if key not in labels)
        raise ValueError(
            f"{path}: the image {bare!r} ({coco.pictures[bare].file}) has no annotation; is it a test set's file?"
        )
    return [(picture.file, labels[key]) for key, picture in coco.pictures.items()], coco.classes


def read_mat(path: Path, name: str) -> list[Any]:
    """A MATLAB file (before 7.3; it can hold no code) -> one variable's elements. ValueError on any fault."""
    try:
        return read_matlab(path, name)
    except FileNotFoundError:
        raise ValueError(f"{path}: not found") from None
    except KeyError:
        raise ValueError(f"{path}: it holds no {name!r}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a MATLAB file, or cut off: {error}") from error


def whole(value: Any, where: str) -> int:
    """A MATLAB value -> the whole number that it is. ValueError begins with `where`."""
    if not isinstance(value, int | float) or value != value // 1:
        raise ValueError(f"{where}: {value!r}, but a whole number is expected")
    return int(value)


def image_names(folder: Path | str) -> list[str]:
    """A folder -> the names of the image files in it, sorted; faster than paths by far."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.name.lower().endswith(IMAGES) and not e.name.startswith("."))


def unique_names(names: Mapping[str, str]) -> tuple[str, ...]:
    """Names by key -> the names, one that occurs twice with its key: ImageNet has two kinds of crane."""
    counts = Counter(names.values())
    return tuple(name if counts[name] == 1 else f"{name} ({key})" for key, name in names.items())


def label_column(classes: Sequence[str]) -> dict[str, Column]:
    """Class names -> the one column `label`."""
    return {"label": Column(layout="class", classes=tuple(classes))}


def listed_rows(
    listed: Sequence[Listed], root: Path, settings: SourceSettings, *, classes: int, by_content: bool
) -> list[Row]:
    """All that is listed -> rows, some where the settings say so. ValueError for a class there isn't, or a file twice.

    `by_content`: copies of a training image are one group, so that a drawn val holds none of them. It reads every
    training image once, which sets of a million images are spared.
    """
    splits: dict[str, str] = {}
    for file, label, split in listed:
        if label >= classes:
            raise ValueError(
                f"{root / file}: its class is number {label}, but there are {classes} (0 to {classes - 1})"
            )
        if splits.setdefault(file, split) != split:
            raise ValueError(f"{root / file}: listed for {splits[file]} and for {split}")
    kept = draw(listed, settings)
    groups = {file: file for file, _, _ in kept}
    if by_content:
        train = [file for file, _, split in kept if split == "train"]
        groups |= zip(train, content_groups([f"{root}/{file}" for file in train]), strict=True)
    return [Row(id=file, origin=file, group=groups[file], split=split, label=label) for file, label, split in kept]


def load_listed(root: Path, row: Row) -> Example:
    """A row of `listed_rows` -> its image and the class it carries."""
    return Example(image=read_rgb(root / row.id), labels={"label": row.label})
