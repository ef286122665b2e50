"""One domain of DomainNet (Peng et al. 2019): the column `label` of 345 classes that all domains share.

The root is the folder of one domain, as `domainnet/clipart`, with images at `<class>/*`; beside it stand
`<domain>_train.txt` and `<domain>_test.txt`, lines `clipart/zebra/clipart_344_000001.jpg 344`. There is no official
val: it is drawn from train.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from models.spec import Column
from pipeline.datasets._listed import Listed, label_column, listed_rows, load_listed, read_list
from pipeline.datasets.base import Example, Row, Source
from pipeline.datasets.folders import require_root

DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
SPLITS = ("train", "test")
LAYOUT = "<class>/*, the images of one of the six domains, as domainnet/clipart does"


class DomainNet(Source):
    """One domain's folder -> one class column, the same in every domain: a class's name is its folder's.

    Names are gathered from the lists of all domains that stand beside it: some lack a class (painting_train.txt has
    no t-shirt, 327). One that no list names is called by its number. Copies of an image stay on one side of the drawn
    val.
    """

    licence: ClassVar[str] = "images: their owners', for non-commercial research and education only"
    marks: ClassVar[tuple[str, ...]] = ("../clipart_train.txt", "../clipart_test.txt")

    @cached_property
    def _root(self) -> Path:
        root = require_root(self.settings.root, "DomainNet", LAYOUT)
        if root.name not in DOMAINS:
            found = [path.name for path in sorted(root.iterdir()) if path.name in DOMAINS and path.is_dir()]
            inside = f"name one of its folders {', '.join(found)}" if found else f"it should hold {LAYOUT}"
            raise ValueError(f"DomainNet: {root} is none of the domains {', '.join(DOMAINS)}; {inside}")
        return root

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        names: dict[int, str] = {}
        lists = [self._root.parent / f"{domain}_{split}.txt" for domain in DOMAINS for split in SPLITS]
        for path in filter(Path.is_file, lists):
            for file, label in read_list(path):
                folder = file.rpartition("/")[0].rpartition("/")[2]
                if names.setdefault(label, folder) != folder:
                    raise ValueError(f"{path}: {file} is of class {label}, which elsewhere is {names[label]}")
        if not names:
            raise ValueError(f"DomainNet: {self._root.parent} lacks {self._root.name}_train.txt")
        return tuple(names.get(label, str(label)) for label in range(max(names) + 1))

    def columns(self) -> Mapping[str, Column]:
        return label_column(self._classes)

    def rows(self) -> Sequence[Row]:
        listed, beginning = [], f"{self._root.name}/"
        for split in SPLITS:
            path = self._root.parent / f"{self._root.name}_{split}.txt"
            entries = read_list(path)
            if strange := [file for file, _ in entries if not file.startswith(beginning)]:
                raise ValueError(f"{path}: the path {strange[0]} should begin with {beginning}")
            listed += [Listed(file.removeprefix(beginning), label, split) for file, label in entries]
        return listed_rows(listed, self._root, self.settings, classes=len(self._classes), by_content=True)

    def load(self, row: Row) -> Example:
        return load_listed(self._root, row)
