"""COCO's JSON (Lin et al. 2014), which several sets use: images, categories, and annotations that name one of each.

The file is checked as a whole when it is read: every message names the file and the entry, as in `annotations[17]`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

Id = int | str
POLYGONS = "segmentation"  # nine tenths of COCO's bytes, and read by nobody here


class Picture(NamedTuple):
    """One of `images`: its file, relative to the folder of images, and its size where that is stated."""

    file: str
    height: int | None
    width: int | None


@dataclass(frozen=True, kw_only=True)
class CocoJson:
    """The three lists: pictures and class names by id, classes in the order of their ids; annotations as they stand.

    Each annotation's `image_id` is one of `pictures`, its `category_id`, where it has one, is one of `classes`.
    """

    pictures: Mapping[Id, Picture]
    classes: Mapping[Id, str]
    annotations: Sequence[Mapping[str, Any]]


def read_coco(path: Path) -> CocoJson:
    """A file -> its lists, without polygons; `annotations` may be absent, as in a test set. ValueError on any fault."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            found = json.load(file, object_hook=_without_polygons)
    except FileNotFoundError:
        raise ValueError(f"{path}: not found") from None
    except (OSError, RecursionError, ValueError) as error:
        raise ValueError(f"{path}: not JSON, or cut off: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: not in COCO's layout; an object with lists of images and categories is expected")
    classes = _by_id(path, "categories", _entries(path, found, "categories"))
    names = {key: str(value_of(path, f"categories[{n}]", entry, "name")) for key, (n, entry) in classes.items()}
    coco = CocoJson(
        pictures=_pictures(path, _entries(path, found, "images")),
        classes={key: names[key] for key in sorted(names, key=lambda key: (isinstance(key, str), key))},
        annotations=_entries(path, found, "annotations") if "annotations" in found else (),
    )
    _check_annotations(path, coco)
    return coco


def file_name(path: Path, where: str, entry: Mapping[str, Any]) -> str:
    """An entry -> its `file_name`, which stays in its folder. ValueError names the JSON and `where` in it."""
    name = value_of(path, where, entry, "file_name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{path}: {where}: the file_name is {name!r}, but a path is expected")
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"{path}: {where}: the file_name {name!r} leads out of its folder")
    return name


def value_of(path: Path, where: str, entry: Mapping[str, Any], name: str) -> Any:
    """An entry -> what it says of `name`. ValueError names the JSON and `where` in it."""
    if name not in entry:
        raise ValueError(f"{path}: {where} has no {name!r}")
    return entry[name]


def _without_polygons(entry: dict[str, Any]) -> dict[str, Any]:
    entry.pop(POLYGONS, None)
    return entry


def _entries(path: Path, found: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    entries = found.get(name)
    if not isinstance(entries, list):
        raise ValueError(f"{path}: not in COCO's layout; it has no list {name!r}")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"{path}: {name}[{number}] is {entry!r}, but an object is expected")
    return entries


def _pictures(path: Path, entries: Sequence[Mapping[str, Any]]) -> dict[Id, Picture]:
    pictures: dict[Id, Picture] = {}
    for key, (number, entry) in _by_id(path, "images", entries).items():
        where = f"images[{number}]"
        file = file_name(path, where, entry)
        pictures[key] = Picture(file, *(_side(path, where, entry, side) for side in ("height", "width")))
    if twice := _first_double(picture.file for picture in pictures.values()):
        raise ValueError(f"{path}: two images have the file_name {twice!r}")
    return pictures


def _check_annotations(path: Path, coco: CocoJson) -> None:
    for number, entry in enumerate(coco.annotations):
        for name, known in (("image_id", coco.pictures), ("category_id", coco.classes)):
            if name == "category_id" and name not in entry:
                continue
            key = _id(path, f"annotations[{number}]", entry, name)
            if key not in known:
                kind = "image" if name == "image_id" else "category"
                raise ValueError(f"{path}: annotations[{number}]: there is no {kind} {key!r}")


def _by_id(path: Path, name: str, entries: Sequence[Mapping[str, Any]]) -> dict[Id, tuple[int, Mapping[str, Any]]]:
    """Entries -> their number and themselves, by their id."""
    found: dict[Id, tuple[int, Mapping[str, Any]]] = {}
    for number, entry in enumerate(entries):
        key = _id(path, f"{name}[{number}]", entry, "id")
        if key in found:
            raise ValueError(f"{path}: {name}[{number}]: the id {key!r} is already that of {name}[{found[key][0]}]")
        found[key] = number, entry
    return found


def _id(path: Path, where: str, entry: Mapping[str, Any], name: str) -> Id:
    key = value_of(path, where, entry, name)
    if type(key) not in (int, str):
        raise ValueError(f"{path}: {where}: the {name} is {key!r}, but a number or a name is expected")
    return key


def _side(path: Path, where: str, entry: Mapping[str, Any], name: str) -> int | None:
    side = entry.get(name)
    if side is not None and (type(side) is not int or not 1 <= side < 1 << 31):
        raise ValueError(f"{path}: {where}: the {name} is {side!r}, but a number of pixels is expected")
    return side


def refuse_doubles(path: Path, coco: CocoJson) -> None:
    """Classes must differ by name: two files of one set are matched by it. ValueError names the file."""
    if twice := _first_double(coco.classes.values()):
        raise ValueError(f"{path}: two categories are called {twice!r}")


def _first_double(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)
