"""Oxford-IIIT Pet (Parkhi et al. 2012): the columns `breed` (37), `species` and `segmentation`, pet or background.

`images/<name>.jpg`, `annotations/trainval.txt` and `test.txt` (lines `<name> <breed> <species> <breed of the species>`)
and `annotations/trimaps/<name>.png`. There is no official val: it is drawn from trainval.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from models.spec import IGNORE, Column
from pipeline.datasets._listed import is_count, read_lines
from pipeline.datasets.base import BadExample, Example, Row, Source
from pipeline.datasets.files import content_groups, draw, find_root, inside, read_ids, read_rgb, require_same_size

IMAGES, TRIMAPS = "images", "annotations/trimaps"
LISTS = {"train": "annotations/trainval.txt", "test": "annotations/test.txt"}
SPECIES = {"1": "cat", "2": "dog"}
# The trimaps' values: pet, background, and a border that their makers left unclassified.
CLASSES = np.array([1, 0, IGNORE], np.uint8)


class Pets(Source):
    """The layout -> two class columns and a mask; copies of an image stay on one side.

    A breed is called what its images' names begin with. Without a trimap an image has no mask.
    """

    licence: ClassVar[str] = "CC BY-SA 4.0"
    marks: ClassVar[tuple[str, ...]] = (IMAGES, *LISTS.values())

    @cached_property
    def _root(self) -> Path:
        return find_root(self.settings.root, self.marks, "Pets")

    @cached_property
    def _listed(self) -> Mapping[str, tuple[int, int, str]]:
        """Each image's breed, from 0, species and split, by its name."""
        listed: dict[str, tuple[int, int, str]] = {}
        for split, list_name in LISTS.items():
            path = self._root / list_name
            for number, line in enumerate(read_lines(path), start=1):
                if line.startswith("#"):
                    continue
                name, *words = line.split() or [""]
                if len(words) != 3 or not is_count(words[0]) or int(words[0]) < 1 or words[1] not in SPECIES:
                    raise ValueError(
                        f"{path} line {number}: {line!r}, but a name, a breed from 1 and 1 or 2 (cat, dog) "
                        "and one more number are expected"
                    )
                inside(self._root / IMAGES, name, f"{path} line {number}")
                if name in listed:
                    raise ValueError(
                        f"{path} line {number}: {name} is listed twice, the first time for {listed[name][2]}"
                    )
                listed[name] = int(words[0]) - 1, int(words[1]) - 1, split
        return listed

    def columns(self) -> Mapping[str, Column]:
        breeds: dict[int, str] = {}
        for name, (breed, _, _) in self._listed.items():
            word = name.rpartition("_")[0]
            if breeds.setdefault(breed, word) != word:
                raise ValueError(
                    f"Pets: {self._root}: {name} is of breed {breed + 1}, as are images called {breeds[breed]}"
                )
        names = tuple(breeds.get(breed, str(breed + 1)) for breed in range(max(breeds, default=-1) + 1))
        return {
            "breed": Column(layout="class", classes=names),
            "species": Column(layout="class", classes=tuple(SPECIES.values())),
            "segmentation": Column(layout="mask", classes=("background", "pet")),
        }

    def rows(self) -> Sequence[Row]:
        names = draw(list(self._listed), self.settings)
        groups = content_groups([self._root / IMAGES / f"{name}.jpg" for name in names])
        return [
            Row(id=name, origin=f"{IMAGES}/{name}.jpg", group=group, split=self._listed[name][2])
            for name, group in zip(names, groups, strict=True)
        ]

    def load(self, row: Row) -> Example:
        image, path = read_rgb(self._root / row.origin), self._root / TRIMAPS / f"{row.id}.png"
        breed, species, _ = self._listed[row.id]
        mask = _read_trimap(path, image) if path.is_file() else None
        return Example(image=image, labels={"breed": breed, "species": species, "segmentation": mask})


def _read_trimap(path: Path, image: np.ndarray) -> np.ndarray:
    trimap = read_ids(path)
    require_same_size(path, trimap, image)
    if wrong := sorted(set(np.unique(trimap)) - {1, 2, 3}):
        raise BadExample(f"{path}: a pixel is {wrong[0]}, but 1 (pet), 2 (background) or 3 (border) is expected")
    return CLASSES[trimap - 1]
