"""Fashion Product Images in the Kaggle layout: `styles.csv` beside `images/<id>.jpg`, eight class labels an image."""

import csv
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from models.spec import Column
from pipeline.datasets.base import Example, Row, Source
from pipeline.datasets.files import content_groups, draw, find_root, inside, read_rgb

LABELS = ("gender", "masterCategory", "subCategory", "articleType", "baseColour", "season", "year", "usage")
HEADER = ("id", *LABELS)


class Fashion(Source):
    """`<root>/styles.csv` and `<root>/images/<id>.jpg` -> eight class columns; an empty or NA cell is unlabelled."""

    licence: ClassVar[str] = "MIT by the set's Kaggle page; copies elsewhere often state none"
    marks: ClassVar[tuple[str, ...]] = ("styles.csv", "images")

    @cached_property
    def _root(self) -> Path:
        return find_root(self.settings.root, self.marks, "Fashion Product Images")

    @cached_property
    def _products(self) -> dict[str, dict[str, str]]:
        return _read_styles(self._root / "styles.csv")

    def columns(self) -> Mapping[str, Column]:
        values = {name: {cells[name] for cells in self._products.values()} - {""} for name in LABELS}
        return {name: Column(layout="class", classes=tuple(sorted(values[name]))) for name in LABELS}

    def rows(self) -> Sequence[Row]:
        drawn = draw(list(enumerate(self._products, start=1)), self.settings)
        groups = content_groups([self._image(product) for _, product in drawn])
        return [
            Row(id=product, origin=f"styles.csv row {number}: images/{product}.jpg", group=group)
            for (number, product), group in zip(drawn, groups, strict=True)
        ]

    def load(self, row: Row) -> Example:
        cells = self._products[row.id]
        return Example(image=read_rgb(self._image(row.id)), labels={name: cells[name] or None for name in LABELS})

    def _image(self, product: str) -> Path:
        return self._root / "images" / f"{product}.jpg"


def _read_styles(path: Path) -> dict[str, dict[str, str]]:
    """The csv -> cells by name, by product id, in the file's order."""
    # The last field, a product's name, may hold bare commas and quotes; the first nine never do.
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            header, *lines = [fields for fields in csv.reader(file, quoting=csv.QUOTE_NONE) if fields] or [[]]
    except csv.Error as error:
        raise ValueError(f"{path}: {error}") from error
    if tuple(header[: len(HEADER)]) != HEADER or not lines:
        raise ValueError(f"{path}: expected the header {','.join(HEADER)},... and one line an image")
    products: dict[str, dict[str, str]] = {}
    for number, fields in enumerate(lines, start=1):
        if len(fields) < len(HEADER):
            raise ValueError(f"{path} row {number}: {len(fields)} fields, but at least {len(HEADER)} are expected")
        cells = {name: "" if value == "NA" else value for name, value in zip(HEADER, fields, strict=False)}
        if cells["id"] in products:
            raise ValueError(f"{path} row {number}: the id {cells['id']} stands there twice")
        inside(path.parent / "images", cells["id"], f"{path} row {number}")
        # Where years are missing, a table that went through pandas holds 2012.0 for 2012.
        products[cells["id"]] = cells | {"year": cells["year"].removesuffix(".0")}
    return products
