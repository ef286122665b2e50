"""ImageNet-1k (Russakovsky et al. 2015): the column `label`, its classes the folders of `train`, sorted.

`train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG`, here or below `ILSVRC/Data/CLS-LOC`. A `val` of files alone needs
`LOC_val_solution.csv`, or the development kit in `ILSVRC2012_devkit_t12`. `LOC_synset_mapping.txt`, where there, names
the classes. Test labels are withheld, so the official val is our `test`, and val is drawn from train.
"""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from models.spec import Column
from pipeline.datasets._listed import (
    Listed,
    image_names,
    is_count,
    label_column,
    listed_rows,
    load_listed,
    read_lines,
    read_mat,
    unique_names,
    whole,
)
from pipeline.datasets.base import Example, Row, Source
from pipeline.datasets.files import find_root
from pipeline.datasets.folders import subfolders

TRAIN, VAL, KAGGLE = "train", "val", "ILSVRC/Data/CLS-LOC"
NAMES, SOLUTION = "LOC_synset_mapping.txt", "LOC_val_solution.csv"
KIT = "ILSVRC2012_devkit_t12/data"
META, TRUTH = f"{KIT}/meta.mat", f"{KIT}/ILSVRC2012_validation_ground_truth.txt"


class ImageNet(Source):
    """The layout -> one class column. A part of it, with fewer classes, is read alike.

    Val is drawn image by image: copies of an image among a million aren't looked for.
    """

    licence: ClassVar[str] = "non-commercial research and education only"
    marks: ClassVar[tuple[str, ...]] = (f"{TRAIN}/n01440764", VAL)

    @cached_property
    def _root(self) -> Path:
        root = self.settings.root
        if root is not None and (root / KAGGLE).is_dir():
            root = root / KAGGLE
        return find_root(root, (TRAIN, VAL), "ImageNet")

    @cached_property
    def _wnids(self) -> Mapping[str, int]:
        wnids = [folder.name for folder in subfolders(self._root / TRAIN)]
        if not wnids:
            raise ValueError(f"ImageNet: {self._root / TRAIN} holds no folders; it should hold <wnid>/*.JPEG")
        return {wnid: number for number, wnid in enumerate(wnids)}

    def columns(self) -> Mapping[str, Column]:
        path = self._beside(NAMES)
        lines = (line.partition(" ") for line in read_lines(path)) if path else ()
        names = {wnid: name for wnid, _, name in lines}
        return label_column(unique_names({wnid: names.get(wnid) or wnid for wnid in self._wnids}))

    def rows(self) -> Sequence[Row]:
        val = f"{self._root}/{VAL}"
        with os.scandir(val) as entries:
            flat = not any(entry.is_dir() for entry in entries)
        listed = [*self._by_folder(TRAIN, "train"), *(self._flat() if flat else self._by_folder(VAL, "test"))]
        return listed_rows(listed, self._root, self.settings, classes=len(self._wnids), by_content=False)

    def load(self, row: Row) -> Example:
        return load_listed(self._root, row)

    def _by_folder(self, part: str, split: str) -> list[Listed]:
        listed = []
        for folder in subfolders(self._root / part):
            if folder.name not in self._wnids:
                raise ValueError(f"ImageNet: the class {folder.name} of {part} has no folder in {self._root / TRAIN}")
            names = image_names(folder)
            if not names:
                raise ValueError(f"ImageNet: {folder} holds no images")
            listed += [Listed(f"{part}/{folder.name}/{name}", self._wnids[folder.name], split) for name in names]
        return listed

    def _flat(self) -> list[Listed]:
        answers, listed = self._answers(), []
        for name in image_names(self._root / VAL):
            wnid = answers.get(name.rpartition(".")[0])
            if wnid is None:
                raise ValueError(f"ImageNet: no class is stated for {self._root / VAL / name}")
            if wnid in self._wnids:  # of a part of the classes, only those images
                listed.append(Listed(f"{VAL}/{name}", self._wnids[wnid], "test"))
        return listed

    def _answers(self) -> Mapping[str, str]:
        """The wnid of each image of val, by its name without ending."""
        if path := self._beside(SOLUTION):
            lines = (line.partition(",") for line in read_lines(path)[1:])
            return {name: words.partition(" ")[0] for name, _, words in lines}
        meta, truth = self._beside(META), self._beside(TRUTH)
        if not meta or not truth:
            raise ValueError(
                f"ImageNet: {self._root / VAL} holds no folders, so its classes must stand in {SOLUTION}, or in {META} "
                f"and {TRUTH}, in {self.settings.root}"
            )
        wnids = _kit_wnids(meta)
        numbers = [int(line) if is_count(line) else 0 for line in read_lines(truth)]
        if wrong := [line for line, number in enumerate(numbers, start=1) if number not in wnids]:
            raise ValueError(f"{truth} line {wrong[0]}: no number of a class in {meta}")
        return {f"ILSVRC2012_val_{line:08}": wnids[number] for line, number in enumerate(numbers, start=1)}

    def _beside(self, name: str) -> Path | None:
        """A file of the distribution that stands in the folder named as root, or beside `train`."""
        folders = [folder for folder in (self.settings.root, self._root) if folder is not None]
        return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _kit_wnids(path: Path) -> dict[int, str]:
    """The kit's table -> wnids by the kit's own numbers, which are not their order."""
    synsets = read_mat(path, "synsets")
    if not all(isinstance(entry, dict) and {"ILSVRC2012_ID", "WNID"} <= entry.keys() for entry in synsets):
        raise ValueError(f"{path}: synsets with ILSVRC2012_ID and WNID are expected")
    return {whole(entry["ILSVRC2012_ID"], str(path)): str(entry["WNID"]) for entry in synsets}
