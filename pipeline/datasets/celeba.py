"""CelebA (Liu et al. 2015) in its native layout: aligned faces, and 40 yes/no attributes, each a class column.

`img_align_celeba/<6 digits>.jpg`, `list_attr_celeba.txt` (the number of images, the attributes' names, a line of 1 and
-1 an image) and, where there, `list_eval_partition.txt` (0 train, 1 val, 2 test) and `identity_CelebA.txt`.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from models.spec import Column
from pipeline.datasets._listed import is_count, read_lines
from pipeline.datasets.base import SPLITS, Example, Row, Source
from pipeline.datasets.files import content_groups, draw, find_root, inside, read_rgb

FOLDER, ATTRIBUTES = "img_align_celeba", "list_attr_celeba.txt"
PARTITION, IDENTITY = "list_eval_partition.txt", "identity_CelebA.txt"
ANSWERS = ("no", "yes")
CODES = {"-1": 0, "1": 1}


class CelebA(Source):
    """The layout -> one class column, no or yes, for each attribute; the images of one person stay on one side.

    Without identities only exact copies do. The partition counts where it holds more than one part: a piece of the
    training images alone is split as if there were none.
    """

    licence: ClassVar[str] = "non-commercial research only"
    marks: ClassVar[tuple[str, ...]] = (FOLDER, ATTRIBUTES)

    @cached_property
    def _root(self) -> Path:
        return find_root(self.settings.root, self.marks, "CelebA")

    @cached_property
    def _attributes(self) -> tuple[Sequence[str], Mapping[str, bytes]]:
        return _read_attributes(self._root / ATTRIBUTES)

    def columns(self) -> Mapping[str, Column]:
        names, _ = self._attributes
        return {name: Column(layout="class", classes=ANSWERS) for name in names}

    def rows(self) -> Sequence[Row]:
        files = list(self._attributes[1])
        parts, people = self._listed(PARTITION, files), self._listed(IDENTITY, files)
        for file, part in parts.items():
            if part not in ("0", "1", "2"):
                raise ValueError(f"{self._root / PARTITION}: {file} is {part!r}, but 0, 1 or 2 is expected")
        official = len(set(parts.values())) > 1
        drawn = draw(list(enumerate(files, start=1)), self.settings)
        if people:
            groups = [people[file] for _, file in drawn]
        else:
            groups = content_groups([self._root / FOLDER / file for _, file in drawn])
        return [
            Row(
                id=file.removesuffix(".jpg"),
                origin=f"{ATTRIBUTES} row {number}: {FOLDER}/{file}",
                group=group,
                split=SPLITS[int(parts[file])] if official else None,
            )
            for (number, file), group in zip(drawn, groups, strict=True)
        ]

    def load(self, row: Row) -> Example:
        names, flags = self._attributes
        file = f"{row.id}.jpg"
        labels = {name: ANSWERS[flag] for name, flag in zip(names, flags[file], strict=True)}
        return Example(image=read_rgb(self._root / FOLDER / file), labels=labels)

    def _listed(self, name: str, files: Sequence[str]) -> dict[str, str]:
        """One of the optional files -> its word on each image, in their order; empty where there is no such file."""
        path = self._root / name
        if not path.exists():
            return {}
        words: dict[str, str] = {}
        for number, line in enumerate(read_lines(path), start=1):
            fields = line.split()
            if len(fields) != 2:
                raise ValueError(f"{path} row {number}: {line!r}, but an image and one number are expected")
            words[fields[0]] = fields[1]
        if missing := [file for file in files if file not in words]:
            raise ValueError(f"{path}: no line for {missing[0]} and {len(missing) - 1} more images of {ATTRIBUTES}")
        return {file: words[file] for file in files}


def _read_attributes(path: Path) -> tuple[Sequence[str], Mapping[str, bytes]]:
    """The file -> the attributes' names, and by image file one byte an attribute: 0 no, 1 yes."""
    count, header, *lines = [*read_lines(path), "", ""]
    names, lines = header.split(), [line for line in lines if line.strip()]
    if not is_count(count.strip()) or not names or not lines:
        raise ValueError(f"{path}: expected the number of images, the attributes' names, and then one line an image")
    flags: dict[str, bytes] = {}
    for number, (file, *words) in enumerate(map(str.split, lines), start=1):
        if len(words) != len(names):
            raise ValueError(f"{path} row {number}: {len(words)} values, but {len(names)} attributes are named")
        if wrong := [f"{name} is {word}" for name, word in zip(names, words, strict=True) if word not in CODES]:
            raise ValueError(f"{path} row {number}: {wrong[0]}, but 1 (yes) or -1 (no) is expected")
        if file in flags:
            raise ValueError(f"{path} row {number}: the image {file} stands there twice")
        inside(path.parent / FOLDER, file, f"{path} row {number}")
        flags[file] = bytes(CODES[word] for word in words)
    if len(flags) != int(count):
        raise ValueError(f"{path}: its first line says {count.strip()} images, but {len(flags)} follow; is it cut off?")
    return names, flags
