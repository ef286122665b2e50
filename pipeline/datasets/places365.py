"""Places-365, standard (Zhou et al. 2017): the column `label` of 365 scenes.

`categories_places365.txt`, `places365_train_standard.txt` and `places365_val.txt` (lines `<image> <class>`), the images
in `data_256_standard` (or `data_256`, `data_large_standard`, `data_large`) and `val_256` (or `val_large`). Test labels
are withheld, so the official val is our `test`, and val is drawn from train.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from models.spec import Column
from pipeline.datasets._listed import Listed, label_column, listed_rows, load_listed, read_list
from pipeline.datasets.base import Example, Row, Source
from pipeline.datasets.files import find_root

CATEGORIES = "categories_places365.txt"
LISTS = {"train": "places365_train_standard.txt", "test": "places365_val.txt"}
FOLDERS = {
    "train": ("data_256_standard", "data_256", "data_large_standard", "data_large"),
    "test": ("val_256", "val_large"),
}


class Places365(Source):
    """The layout -> one class column. Val is drawn image by image: copies among 1.8 million aren't looked for."""

    licence: ClassVar[str] = "images: their owners', for research and education only; lists: CC BY"
    marks: ClassVar[tuple[str, ...]] = (CATEGORIES, *LISTS.values())

    @cached_property
    def _root(self) -> Path:
        return find_root(self.settings.root, self.marks, "Places365")

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        return read_categories(self._root / CATEGORIES)

    def columns(self) -> Mapping[str, Column]:
        return label_column(self._classes)

    def rows(self) -> Sequence[Row]:
        listed = []
        for split, name in LISTS.items():
            folder = next((folder for folder in FOLDERS[split] if (self._root / folder).is_dir()), None)
            if folder is None:
                raise ValueError(f"Places365: {self._root} holds no folder {' or '.join(FOLDERS[split])}, for {name}")
            # The official training list begins its paths with a slash.
            entries = read_list(self._root / name)
            listed += [Listed(f"{folder}/{file.removeprefix('/')}", label, split) for file, label in entries]
        return listed_rows(listed, self._root, self.settings, classes=len(self._classes), by_content=False)

    def load(self, row: Row) -> Example:
        return load_listed(self._root, row)


def read_categories(path: Path) -> tuple[str, ...]:
    """The official list, lines `/a/airfield 0` -> the scenes' names by number, `airfield` first."""
    entries = read_list(path)
    if sorted(label for _, label in entries) != list(range(len(entries))):
        raise ValueError(f"{path}: its {len(entries)} classes must be numbered 0 to {len(entries) - 1}, each once")
    return tuple(name.removeprefix("/")[2:] for name, _ in sorted(entries, key=lambda entry: entry[1]))
