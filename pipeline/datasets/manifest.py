"""The user's own data: one csv or parquet file that lists images and their labels.

    image,split,group,species:class,mask:mask:wall|floor,depth:field:0.001,attr.young:flags,attr.male:flags
    img/001.jpg,train,session1,cat,masks/001.png,depth/001.png,1,0

`image` is a path relative to the manifest; `split` (train, val, test) and `group` may be left out or empty. Every other
column is a label, `name:layout[:option]`; an empty cell is unlabelled. The layouts of `models.spec.Column`, as cells:

class       a class name                              option: the classes, a|b|c (default: the values found, sorted)
mask        path of an 8-bit PNG of class indices     option: the classes (default: 0 to the largest value in any mask)
field       path of an 8- or 16-bit PNG               option: the scale, metres = value * scale (default: 1)
instances   path of an 8-bit PNG of instance ids
normals     path of an RGB PNG, 128 + 127 * (right, up, to the camera), black = unlabelled
points      JSON [[x, y, class], ...]                 option: the classes (default: 0 to the largest index)
boxes       JSON [[x0, y0, x1, y1, class], ...]       option: the classes (default: 0 to the largest index)
flags       0 or 1                                    `name.flag:flags`: those of one name make one label, in order

A header without a layout is a class, unless its values are paths of .png files: those must name their layout.
Rows are counted from 1, the header not among them.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from models.spec import Column
from pipeline.datasets._manifest_labels import Label, Table, parse_labels, read_label
from pipeline.datasets.base import SPLITS, Example, Row, Source
from pipeline.datasets.files import content_group, draw, find, read_rgb


class Manifest(Source):
    """The csv or parquet file at `settings.root` -> the columns that its headers name."""

    licence: ClassVar[str] = "the user's own"

    @cached_property
    def _path(self) -> Path:
        path = self.settings.root
        if path is None:
            raise ValueError("manifest: no root is set; name a csv or parquet file with a column 'image'")
        if not path.is_file():
            raise ValueError(f"manifest: there is no file {path}; root is a csv or parquet file with a column 'image'")
        return path

    @cached_property
    def _table(self) -> Table:
        return _read_table(self._path)

    @cached_property
    def _labels(self) -> tuple[Label, ...]:
        try:
            return parse_labels(self._table, self._path.parent)
        except ValueError as error:
            raise ValueError(f"{self._path}: {error}") from error

    def columns(self) -> Mapping[str, Column]:
        return {label.name: label.column for label in self._labels}

    def rows(self) -> Sequence[Row]:
        return [self._row(number) for number in draw(range(1, len(self._table) + 1), self.settings)]

    def load(self, row: Row) -> Example:
        cells, folder = self._table[int(row.id) - 1], self._path.parent
        image = read_rgb(find("image", cells["image"], folder))
        return Example(
            image=image, labels={label.name: read_label(label, cells, folder, image) for label in self._labels}
        )

    def _row(self, number: int) -> Row:
        cells = self._table[number - 1]
        where = f"{self._path.name} row {number}"
        split = cells.get("split") or None
        if split not in (None, *SPLITS):
            raise ValueError(f"{where}: split {split!r}: use one of {', '.join(SPLITS)}, or leave it empty")
        group = cells.get("group") or content_group(self._path.parent / cells["image"])
        return Row(id=str(number), origin=f"{where}: {cells['image']}", group=group, split=split)


def _read_table(path: Path) -> Table:
    try:
        header, *lines = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from error
    if "image" not in header:
        raise ValueError(f"{path}: no column 'image'; its header is {','.join(header)}")
    if twice := [name for name in header if header.count(name) > 1]:
        raise ValueError(f"{path}: two columns are named {twice[0]!r}")
    for number, cells in enumerate(lines, start=1):
        if len(cells) != len(header):
            raise ValueError(f"{path.name} row {number}: {len(cells)} cells, but the header has {len(header)}")
    return [dict(zip(header, cells, strict=True)) for cells in lines]


def _read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [[cell.strip() for cell in cells] for cells in csv.reader(file) if cells]
    if len(lines) < 2:
        raise ValueError("no rows; the first line is the header, every other line one image")
    return lines


def _read_parquet(path: Path) -> Iterable[list[str]]:
    import pyarrow.parquet  # as slow to import as all else here, and most manifests are csv

    table = pyarrow.parquet.read_table(path)
    if not table.num_rows:
        raise ValueError("no rows")
    return [table.column_names, *([_cell(value) for value in row.values()] for row in table.to_pylist())]


def _cell(value: object) -> str:
    """A parquet value -> the cell that a csv would hold (pandas writes a missing number as NaN)."""
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        return value.strip()
    return json.dumps(int(value) if isinstance(value, bool) else value, default=str)
