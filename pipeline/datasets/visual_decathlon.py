"""One of the ten sets of the Visual Decathlon (Rebuffi et al. 2017): the column `label`.

The root is the folder of one set's images, as `decathlon-1.0/data/aircraft`; the lists stand in `annotations` above it,
or in `decathlon-1.0/annotations` beside one of the folders above: `<set>_train.json` and `<set>_val.json`, in COCO's
layout. Images have a shorter side of 72 pixels. Test labels are withheld, so the official val is our `test`, and val is
drawn from train.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from models.spec import Column
from pipeline.datasets._coco_json import Id
from pipeline.datasets._listed import Listed, label_column, listed_rows, load_listed, read_labels, unique_names
from pipeline.datasets.base import Example, Row, Source
from pipeline.datasets.folders import require_root

# fmt: off
SETS = (
    "aircraft", "cifar100", "daimlerpedcls", "dtd", "gtsrb", "imagenet12", "omniglot", "svhn", "ucf101", "vgg-flowers",
)
# fmt: on
LISTS = {"train": "train", "test": "val"}
PLACES = ("annotations", "decathlon-1.0/annotations", "decathlon-1.0-devkit/decathlon-1.0/annotations")
ABOVE = 3  # folders above a set's in which the annotations are looked for
LAYOUT = "the images of one of the ten sets, as decathlon-1.0/data/aircraft does"


class VisualDecathlon(Source):
    """One set's folder -> one class column, classes in the order of their ids.

    Copies of an image stay on one side of the drawn val, but in imagenet12, whose million images aren't compared.
    """

    licence: ClassVar[str] = "that of the set; none stated for the whole"
    marks: ClassVar[tuple[str, ...]] = ("../../annotations/aircraft_train.json",)

    @cached_property
    def _root(self) -> Path:
        root = require_root(self.settings.root, "Visual Decathlon", LAYOUT)
        if root.name not in SETS:
            found = [path.name for path in sorted(root.iterdir()) if path.name in SETS]
            inside = f"name one of its folders {', '.join(found)}" if found else f"it should hold {LAYOUT}"
            raise ValueError(f"Visual Decathlon: {root} is none of the sets {', '.join(SETS)}; {inside}")
        return root

    @cached_property
    def _annotations(self) -> Path:
        above = list(self._root.parents)[:ABOVE]
        places = [folder / place for folder in above for place in PLACES]
        found = next((place for place in places if (place / f"{self._root.name}_train.json").is_file()), None)
        if found is None:
            raise ValueError(
                f"Visual Decathlon: no annotations/{self._root.name}_train.json above {self._root}; unpack the "
                f"development kit so that {self._root.parent.parent} holds annotations"
            )
        return found

    @cached_property
    def _classes(self) -> Mapping[Id, str]:
        return read_labels(self._list("test"))[1]

    def columns(self) -> Mapping[str, Column]:
        return label_column(unique_names({str(key): name for key, name in self._classes.items()}))

    def rows(self) -> Sequence[Row]:
        listed, beginning = [], f"data/{self._root.name}/"
        for split in LISTS:
            path = self._list(split)
            entries, classes = read_labels(path)
            if classes != self._classes:
                raise ValueError(f"{path}: its categories are not those of {self._list('test')}")
            if strange := [file for file, _ in entries if not file.startswith(beginning)]:
                raise ValueError(f"{path}: the file_name {strange[0]!r} should begin with {beginning}")
            listed += [Listed(file.removeprefix(beginning), label, split) for file, label in entries]
        by_content = self._root.name != "imagenet12"
        return listed_rows(listed, self._root, self.settings, classes=len(self._classes), by_content=by_content)

    def load(self, row: Row) -> Example:
        return load_listed(self._root, row)

    def _list(self, split: str) -> Path:
        return self._annotations / f"{self._root.name}_{LISTS[split]}.json"
