"""The user's own data: one csv or parquet file that lists images and their labels.

    image,split,group,species:class,mask:mask:wall|floor,depth:field:0.001,attr.young:flags,attr.male:flags
    img/001.jpg,train,session1,cat,masks/001.png,depth/001.png,1,0

`image` is a path relative to the manifest; `split` (train, val, test) and `group` may be left out or empty. Every other
column is a label, `name:layout[:option]`; an empty cell is unlabelled. The layouts of `models.spec.Column`, as cells:

class       a class name                              option: the classes, a|b|c (default: the values found, sorted)
mask        path of an 8-bit PNG of class indices     option: the classes (default: 0 to the largest value in any mask)
            or of one drawn in colours                option: each class with its colour, road=#804080|sky=#4682b4
field       path of an 8- or 16-bit PNG               option: the scale and unit, depth = value * scale (default: 1|m)
instances   path of an 8-bit PNG of instance ids
normals     path of an RGB PNG, 128 + 127 * (right, up, to the camera), black = unlabelled
points      JSON [[x, y, class], ...]                 option: the classes (default: 0 to the largest index)
boxes       JSON [[x0, y0, x1, y1, class], ...]       option: the classes (default: 0 to the largest index)
flags       0 or 1                                    `name.flag:flags`: those of one name make one label, in order

A header without a layout is a class, unless its values are paths of .png files: those must name their layout. A colour
that is not named is an error; black is unlabelled unless it is named, and a colour named '' is too: `=#e0e0c0`. Boxes
are cut at the image's border. Paths don't leave the manifest's folder, though links in it may.
Rows are counted from 1, the header not among them.
"""

import csv
import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from models.spec import Column
from pipeline.datasets._manifest_headers import Label, Table, parse_labels
from pipeline.datasets._manifest_labels import read_label
from pipeline.datasets.base import SPLITS, BadExample, Example, Row, Source
from pipeline.datasets.files import content_groups, draw, find, inside, read_rgb

LONGEST_CELL = 16 << 20  # letters; an image of thousands of boxes takes more than the 131,072 that csv allows


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
        table = self._table
        try:
            return parse_labels(table, self._path.parent)
        except ValueError as error:
            raise ValueError(f"{self._path}: {error}") from error

    def columns(self) -> Mapping[str, Column]:
        return {label.name: label.column for label in self._labels}

    def rows(self) -> Sequence[Row]:
        images = self._table["image"]
        numbers = draw(range(1, len(images) + 1), self.settings)
        copies = content_groups([self._file(images[number - 1]) for number in numbers])
        return [self._row(number, copy) for number, copy in zip(numbers, copies, strict=True)]

    def load(self, row: Row) -> Example:
        number, folder = int(row.id) - 1, self._path.parent
        image = read_rgb(find("image", self._table["image"][number], folder))
        labels = {}
        for label in self._labels:
            cells = [self._table[header][number] for header in label.headers]
            labels[label.name] = read_label(label, cells, folder, image)
        return Example(image=image, labels=labels)

    def _row(self, number: int, copies: str) -> Row:
        where = f"{self._path.name} row {number}"
        split = self._cell("split", number) or None
        if split not in (None, *SPLITS):
            raise ValueError(f"{where}: split {split!r}: use one of {', '.join(SPLITS)}, or leave it empty")
        origin = f"{where}: {self._cell('image', number)}"
        return Row(id=str(number), origin=origin, group=self._cell("group", number) or copies, split=split)

    def _cell(self, header: str, number: int) -> str:
        return self._table[header][number - 1] if header in self._table else ""

    def _file(self, image: str) -> str:
        """An image's file for its content; for a path that leads out, which load refuses, just its words."""
        try:
            return str(inside(self._path.parent, image))
        except BadExample:
            return ""


def _read_table(path: Path) -> Table:
    try:
        table = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except (OSError, OverflowError, NotImplementedError, ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from error
    if "image" not in table:
        hint = "; write commas between the cells" * any(";" in header for header in table)
        raise ValueError(f"{path}: no column 'image'; its header is {','.join(table)}{hint}")
    rows: dict[str, int] = {}
    for number, image in enumerate(table["image"], start=1):
        if image and (first := rows.setdefault(os.path.normpath(image), number)) != number:
            raise ValueError(f"{path.name} row {number}: {image} is row {first} too; write one row for an image")
    return table


def _read_csv(path: Path) -> Table:
    csv.field_size_limit(LONGEST_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = ([cell.strip() for cell in cells] for cells in csv.reader(file) if cells)
        header = _unique(next(lines, []))
        columns: list[list[str]] = [[] for _ in header]
        for number, cells in enumerate(lines, start=1):
            if len(cells) != len(header):
                raise ValueError(f"row {number}: {len(cells)} cells, but the header has {len(header)}")
            for column, cell in zip(columns, cells, strict=True):
                column.append(sys.intern(cell))
    if not columns or not columns[0]:
        raise ValueError("no rows; the first line is the header, every other line one image")
    return dict(zip(header, columns, strict=True))


def _read_parquet(path: Path) -> Table:
    import pyarrow.parquet  # as slow to import as all else here, and most manifests are csv

    table = pyarrow.parquet.read_table(path)
    if not table.num_rows:
        raise ValueError("no rows")
    header = _unique(table.column_names)
    return {name: [_cell(value) for value in table[name].to_pylist()] for name in header}


def _unique(header: list[str]) -> list[str]:
    if twice := [name for name in header if header.count(name) > 1]:
        raise ValueError(f"two columns are named {twice[0]!r}")
    return header


def _cell(value: object) -> str:
    """A parquet value -> the cell that a csv would hold (pandas writes a missing number as NaN)."""
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        return value.strip()
    return json.dumps(int(value) if isinstance(value, bool) else value, default=str)
