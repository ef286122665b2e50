"""A source made of items at hand: lists of the user's own, or data sets as torch knows them."""

import sysconfig
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from traceback import extract_tb
from typing import Any, ClassVar, Protocol

import numpy as np
from PIL import Image

from models.spec import Column
from pipeline.datasets.base import SPLITS, BadExample, Example, Row, Source, SourceSettings
from pipeline.datasets.files import (
    content_groups,
    draw,
    read_field,
    read_ids,
    read_normals,
    read_rgb,
    require_same_size,
    to_rgb,
)

# Python's libraries and this package, where an error in the user's code may come out.
NOT_THEIRS = (*(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")), str(Path(__file__).parent), "<")
MAPS: dict[str, Callable[[Path], np.ndarray]] = {
    "mask": read_ids,
    "instances": read_ids,
    "field": read_field,
    "normals": read_normals,
}


class Indexed(Protocol):
    """A list, or a data set as torch knows them."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class Items(Source):
    """Items by split (None: for `prepare` to draw) -> rows in their order, from lists or from data sets as torch's are.

    An item is a mapping of `image` and the columns' names, or a tuple of the image and the labels in the columns'
    order. An image is a path below `settings.root`, a PIL image or uint8 [H, W, 3]; a label is as `Example` has it, or
    the path of a map's file, whose values count `scale` each; a missing or None label is unlabelled. Items of a list
    may have a `group`, by default the same for exact copies; other items are read only when they are loaded.
    """

    licence: ClassVar[str] = "the user's own"

    def __init__(
        self, settings: SourceSettings, *, columns: Mapping[str, Column], splits: Mapping[str | None, Indexed]
    ) -> None:
        super().__init__(settings)
        if strange := [split for split in splits if split not in (None, *SPLITS)]:
            raise ValueError(f"Items: split {strange[0]!r}: use {', '.join(SPLITS)}, or None for prepare to draw")
        self._columns, self._splits = dict(columns), dict(splits)

    def columns(self) -> Mapping[str, Column]:
        return self._columns

    def rows(self) -> Sequence[Row]:
        places = [(split, index) for split, items in self._splits.items() for index in range(len(items))]
        drawn = draw(places, self.settings)
        groups = self._groups(drawn)
        return [
            Row(id=f"{split or 'item'}-{index}", origin=f"{split or 'all'}[{index}]", group=group, split=split)
            for (split, index), group in zip(drawn, groups, strict=True)
        ]

    def load(self, row: Row) -> Example:
        item = self._item(row.split, int(row.id.rpartition("-")[2]))
        if strange := [name for name in item if name not in ("image", "group", *self._columns)]:
            raise BadExample(f"{strange[0]!r} is none of the columns {', '.join(self._columns)}")
        image = self._image(item.get("image"))
        return Example(image=image, labels={name: self._label(name, item.get(name), image) for name in self._columns})

    def _item(self, split: str | None, index: int) -> Mapping[str, Any]:
        try:
            item = self._splits[split][index]
        except Exception as error:
            raise BadExample(f"the item can't be read: {where_it_failed(error)}") from error
        if isinstance(item, tuple) and len(item) == 1 + len(self._columns):
            return dict(zip(("image", *self._columns), item, strict=True))
        if not isinstance(item, Mapping):
            raise BadExample(f"an item must be a mapping or a tuple of image, {', '.join(self._columns)}, not {item!r}")
        return item

    def _groups(self, places: Sequence[tuple[str | None, int]]) -> list[str]:
        """The groups of items that stand in a list; any other item is one of its own."""
        lists = {split: items for split, items in self._splits.items() if isinstance(items, list)}
        listed = [lists[split][index] if split in lists else {} for split, index in places]
        items = [item if isinstance(item, Mapping) else {} for item in listed]
        files = [self._folder / image if isinstance(image := item.get("image"), str | Path) else "" for item in items]
        own = [f"{split}[{index}]" for split, index in places]
        hashed = content_groups(files)
        return [
            str(item["group"]) if item.get("group") is not None else copy if file else alone
            for item, file, copy, alone in zip(items, files, hashed, own, strict=True)
        ]

    @cached_property
    def _folder(self) -> Path:
        return self.settings.root or Path.cwd()

    def _image(self, value: Any) -> np.ndarray:
        if isinstance(value, str | Path):
            return read_rgb(self._folder / value)
        if isinstance(value, Image.Image):
            return to_rgb(value, "image")
        image = np.asarray(value)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise BadExample(
                f"image: {image.dtype} {list(image.shape)}, but a path, a PIL image or uint8 [H, W, 3] is expected"
            )
        return image

    def _label(self, name: str, value: Any, image: np.ndarray) -> Any:
        column = self._columns[name]
        if value is None or column.layout not in MAPS:
            return value
        if not isinstance(value, str | Path):
            label = np.asarray(value)
            if label.ndim < 2:
                raise BadExample(f"{name}: shape {list(label.shape)}, but a map [H, W] or the path of one is expected")
            require_same_size(Path(name), label, image)
            return label
        stored = MAPS[column.layout](path := self._folder / value)
        require_same_size(path, stored, image)
        return stored * np.float32(column.scale) if column.layout == "field" else stored


def where_it_failed(error: Exception) -> str:
    """An error in the user's code -> one line that says where and what: their last line on the way to it."""
    frames = extract_tb(error.__traceback__)
    last = [frame for frame in frames if not frame.filename.startswith(NOT_THEIRS)][-1:] or frames[-1:]
    return f"{last[0].filename}:{last[0].lineno}: {type(error).__name__}: {error}"
