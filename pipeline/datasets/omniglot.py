"""Omniglot (Lake et al. 2015), one of its sets: handwritten characters, the columns `label` and `alphabet`.

`<root>/<alphabet>/<character>/<id>_<drawer>.png`. The official split holds back whole alphabets, for learning from one
example; here every character is a class, and of the 20 people that drew it 12 train, 3 validate and 5 test.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from models.spec import Column
from pipeline.datasets.base import Example, Row, Source
from pipeline.datasets.files import draw, read_rgb
from pipeline.datasets.folders import images_in, require_root, subfolders

DRAWERS = 20
LAST = {"train": 12, "val": 15, "test": DRAWERS}
LAYOUT = "<alphabet>/<character>/<id>_<drawer>.png, as the folder images_evaluation does"


class Omniglot(Source):
    """The layout -> the class columns `label`, `<alphabet>/<character>`, and `alphabet`; split by drawer.

    Twenty drawers are too few to draw a split from: at the default shares one in thirteen seeds leaves a part empty.
    """

    licence: ClassVar[str] = "MIT"

    @cached_property
    def _root(self) -> Path:
        return require_root(self.settings.root, "Omniglot", LAYOUT)

    @cached_property
    def _characters(self) -> Sequence[str]:
        folders = [folder for alphabet in subfolders(self._root) for folder in subfolders(alphabet)]
        if not folders:
            raise ValueError(f"Omniglot: {self._root} holds no folders of characters; it should hold {LAYOUT}")
        return [folder.relative_to(self._root).as_posix() for folder in folders]

    def columns(self) -> Mapping[str, Column]:
        alphabets = sorted({name.split("/")[0] for name in self._characters})
        return {
            "label": Column(layout="class", classes=tuple(self._characters)),
            "alphabet": Column(layout="class", classes=tuple(alphabets)),
        }

    def rows(self) -> Sequence[Row]:
        files: list[Path] = []
        for folder in (self._root / name for name in self._characters):
            found = images_in(folder)
            if not found:
                raise ValueError(f"Omniglot: {folder} holds no images; {self._root} should hold {LAYOUT}")
            files += found
        return [_row(path, path.relative_to(self._root).as_posix()) for path in draw(files, self.settings)]

    def load(self, row: Row) -> Example:
        alphabet, character, _ = row.id.split("/")
        labels = {"label": f"{alphabet}/{character}", "alphabet": alphabet}
        return Example(image=read_rgb(self._root / row.id), labels=labels)


def _row(path: Path, name: str) -> Row:
    _, mark, drawer = path.stem.rpartition("_")
    if not mark or not drawer.isdecimal() or not 1 <= int(drawer) <= DRAWERS:
        raise ValueError(f"Omniglot: {path} names no drawer; it should be <id>_<drawer>.png, drawers 01 to {DRAWERS}")
    split = next(split for split, last in LAST.items() if int(drawer) <= last)
    return Row(id=name, origin=name, group=drawer, split=split)
