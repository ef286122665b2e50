"""iNaturalist 2018 (Van Horn et al. 2018): the column `label` of 8,142 species.

`train2018.json` and `val2018.json` in COCO's layout, here or in `annotations`, the images below `train_val2018`;
`categories.json`, where there, names the species. Test labels are withheld, so the official val is our `test`, and val
is drawn from train.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from models.spec import Column
from pipeline.datasets._coco_json import Id
from pipeline.datasets._listed import Listed, label_column, listed_rows, load_listed, read_labels, unique_names
from pipeline.datasets.base import Example, Row, Source
from pipeline.datasets.files import find_root

IMAGES, NAMES = "train_val2018", "categories.json"
LISTS = {"train": "train2018.json", "test": "val2018.json"}


class INaturalist(Source):
    """The layout -> one class column, classes in the order of their ids, 0 to 8141.

    Without `categories.json` they are called what the lists call them: the competition hid the species. Val is drawn
    image by image: copies of an image aren't looked for.
    """

    licence: ClassVar[str] = "images: their photographers', non-commercial research and education only"
    marks: ClassVar[tuple[str, ...]] = (IMAGES,)

    @cached_property
    def _root(self) -> Path:
        return find_root(self.settings.root, self.marks, "iNaturalist")

    @cached_property
    def _species(self) -> Mapping[Id, str]:
        return read_labels(self._list("test"))[1]

    def columns(self) -> Mapping[str, Column]:
        path = self._root / NAMES
        names = _read_names(path) if path.is_file() else {}
        if names and (bare := [key for key in self._species if key not in names]):
            raise ValueError(f"{path}: no name for the id {bare[0]!r} of {self._list('test')}")
        return label_column(unique_names({str(key): names.get(key, name) for key, name in self._species.items()}))

    def rows(self) -> Sequence[Row]:
        listed = []
        for split in LISTS:
            entries, species = read_labels(self._list(split))
            if species != self._species:
                raise ValueError(f"{self._list(split)}: its categories are not those of {self._list('test')}")
            listed += [Listed(file, label, split) for file, label in entries]
        return listed_rows(listed, self._root, self.settings, classes=len(self._species), by_content=False)

    def load(self, row: Row) -> Example:
        return load_listed(self._root, row)

    def _list(self, split: str) -> Path:
        inner = self._root / "annotations" / LISTS[split]
        return inner if inner.is_file() else self._root / LISTS[split]


def _read_names(path: Path) -> dict[Id, str]:
    """The published names, a list of objects -> the species' by id."""
    try:
        return {entry["id"]: str(entry["name"]) for entry in json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: a list of objects with id and name is expected: {error!r}") from error
