"""Image folders as torchvision's ImageFolder has them, one folder a class: the column `label`.

`<root>/<class>/*`, or `<root>/{train,val,test}/<class>/*`, of which `val` and `test` may be absent. What `prepare` has
no folder for, it draws. Images lie in a class's folder itself; other files, and names that begin with a dot, are left
alone.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from models.spec import Column
from pipeline.datasets.base import SPLITS, Example, Row, Source
from pipeline.datasets.files import content_groups, draw, read_rgb

IMAGES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MEANT_SPLITS = {"valid": "val", "validation": "val", "testing": "test", "training": "train"}
LAYOUT = "one folder of images a class, or train, val and test with such folders in them"


class Folders(Source):
    """`<root>/<class>/*` or `<root>/<split>/<class>/*` -> one class column, its classes the folders' names, sorted."""

    licence: ClassVar[str] = "that of the images in the folders"

    @cached_property
    def _root(self) -> Path:
        return require_root(self.settings.root, "folders", LAYOUT)

    @cached_property
    def _parts(self) -> dict[str | None, Path]:
        """The folders that hold class folders, by split; one under None where there are no splits."""
        names = {folder.name for folder in subfolders(self._root)}
        if "train" in names and names <= set(SPLITS):
            return {split: self._root / split for split in SPLITS if split in names}
        if "train" in names and (other := sorted(names & set(MEANT_SPLITS))):
            raise ValueError(f"folders: {self._root / other[0]}: call it {MEANT_SPLITS[other[0]]}")
        return {None: self._root}

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        first, *others = self._parts.values()
        classes = tuple(folder.name for folder in subfolders(first))
        if not classes:
            raise ValueError(f"folders: {first} holds no folders; it should hold {LAYOUT}")
        for part in others:
            if strange := sorted({folder.name for folder in subfolders(part)} - set(classes)):
                raise ValueError(f"folders: the class {strange[0]!r} of {part} has no folder in {first}")
        return classes

    def columns(self) -> Mapping[str, Column]:
        return {"label": Column(layout="class", classes=self._classes)}

    def rows(self) -> Sequence[Row]:
        files: list[tuple[str, str | None]] = []
        for split, part in self._parts.items():
            for folder in (part / name for name in self._classes):
                found = images_in(folder)
                if not found and split in (None, "train"):
                    raise ValueError(f"folders: {folder} holds no images; {self._root} should hold {LAYOUT}")
                files += [(path.relative_to(self._root).as_posix(), split) for path in found]
        drawn = draw(files, self.settings)
        groups = content_groups([f"{self._root}/{file}" for file, _ in drawn])
        return [
            Row(id=file, origin=file, group=group, split=split)
            for (file, split), group in zip(drawn, groups, strict=True)
        ]

    def load(self, row: Row) -> Example:
        path = self._root / row.id
        return Example(image=read_rgb(path), labels={"label": path.parent.name})


def require_root(root: Path | None, name: str, layout: str) -> Path:
    """A set's folder -> the same, which must be there. Raises ValueError naming the layout."""
    if root is None:
        raise ValueError(f"{name}: no root is set; name the folder that holds {layout}")
    if not root.is_dir():
        raise ValueError(f"{name}: there is no folder {root}; it should hold {layout}")
    return root


def subfolders(folder: Path) -> list[Path]:
    """A folder -> the folders in it, sorted by name."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def images_in(folder: Path) -> list[Path]:
    """A folder -> the image files in it, sorted by name; none where there is no such folder."""
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted(file for file in files if file.suffix.lower() in IMAGES and not file.name.startswith("."))
