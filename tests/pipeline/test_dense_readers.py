"""What holds for each reader of a public set with boxes or classes per pixel, on the small trees of `layouts`."""

import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from pipeline.datasets import DATASETS, detect
from pipeline.datasets.base import BadExample, Source
from pipeline.encoding import encode, resize
from pipeline.preparing import assign_splits
from tests.pipeline.layouts import ade20k, cityscapes, coco, voc
from tests.pipeline.test_readers import DAMAGES, assert_keeps_its_columns, missing, settings


class Layout(NamedTuple):
    plant: Callable[[Path], Path]
    splits: dict[str, int]
    columns: str
    by_content: bool = True  # its groups are exact copies


LAYOUTS = {
    "coco": Layout(coco.plant, {"train": 13, "test": 4}, "boxes objects segmentation"),
    "voc": Layout(voc.plant, {"train": 12, "test": 6}, "boxes segmentation"),
    "ade20k": Layout(ade20k.plant, {"train": 12, "test": 4}, "segmentation scene"),
    "cityscapes": Layout(
        cityscapes.plant, {"train": 12, "test": 3}, "segmentation instances disparity", by_content=False
    ),
}
readers = pytest.mark.parametrize("reader", LAYOUTS)


def planted(reader: str, folder: Path) -> Source:
    return DATASETS[reader](settings(LAYOUTS[reader].plant(folder)))


@readers
def test_examples_fit_the_columns_and_can_be_stored(reader: str, tmp_path: Path) -> None:
    source = planted(reader, tmp_path)
    columns = source.columns()
    assert set(columns) == set(LAYOUTS[reader].columns.split())
    assert_keeps_its_columns(source)
    for row in source.rows():
        stored = resize(source.load(row), columns, (24, 32))
        cells = {name: encode(name, column, stored.labels[name]) for name, column in columns.items()}
        assert any(cell is not None for cell in cells.values())


@readers
def test_the_official_val_is_our_test_and_val_is_drawn_from_train(reader: str, tmp_path: Path) -> None:
    rows = planted(reader, tmp_path).rows()
    assert Counter(row.split for row in rows) == LAYOUTS[reader].splits
    assert len({row.id for row in rows}) == len(rows)
    drawn = assign_splits(rows, val=0.4, test=0.4, seed=0)
    assert {row.id for row in drawn["test"]} == {row.id for row in rows if row.split == "test"}
    assert drawn["val"]
    assert {row.group for row in drawn["val"]}.isdisjoint(row.group for row in drawn["train"])


@readers
def test_a_used_source_is_picklable(reader: str, tmp_path: Path) -> None:
    source = planted(reader, tmp_path)
    rows, columns = source.rows(), source.columns()
    copy = pickle.loads(pickle.dumps(source))
    assert (copy.rows(), copy.columns()) == (rows, columns)
    for name, label in copy.load(rows[0]).labels.items():
        assert np.array_equal(label, source.load(rows[0]).labels[name])


@readers
def test_images_draws_some_rows_in_order(reader: str, tmp_path: Path) -> None:
    everything = planted(reader, tmp_path)
    rows, root = everything.rows(), everything.settings.root
    some = DATASETS[reader](settings(root, images=5)).rows()
    assert len(some) == 5
    assert [row for row in rows if row in some] == some


@readers
def test_the_layout_is_told_from_others(reader: str, tmp_path: Path) -> None:
    root = LAYOUTS[reader].plant(tmp_path / "unpacked")
    assert detect(root) == (reader,)
    if root == tmp_path / "unpacked":
        assert detect(tmp_path) == (reader,)


@readers
def test_the_set_may_stand_in_a_subfolder(reader: str, tmp_path: Path) -> None:
    root = LAYOUTS[reader].plant(tmp_path / "unpacked")
    rows = DATASETS[reader](settings(root)).rows()
    assert DATASETS[reader](settings(tmp_path / "unpacked")).rows() == rows


@readers
def test_a_missing_root_is_named(reader: str, tmp_path: Path) -> None:
    for root, message in ((tmp_path / "nowhere", "nowhere"), (None, "no root is set"), (tmp_path, "should hold")):
        with pytest.raises(ValueError, match=message):
            DATASETS[reader](settings(root)).rows()


@pytest.mark.parametrize(
    ("reader", "damage", "why"),
    # rows of the two others are the image files themselves: one that is missing is no row
    [(name, *damage) for name in LAYOUTS for damage in DAMAGES if damage[0] is not missing or name in ("coco", "voc")],
)
def test_a_bad_image_is_named_when_it_is_loaded(
    reader: str, damage: Callable[[Path], None], why: str, tmp_path: Path
) -> None:
    source = planted(reader, tmp_path)
    first, *others = source.rows()
    (path,) = (path for path in tmp_path.rglob(Path(first.origin).name) if path.suffix == Path(first.origin).suffix)
    damage(path)
    assert [row.id for row in source.rows()][1:] == [row.id for row in others]
    with pytest.raises(BadExample, match=rf"{first.origin}.*{why}"):
        source.load(first)


@pytest.mark.parametrize("reader", [name for name, layout in LAYOUTS.items() if layout.by_content])
def test_copies_of_an_image_are_one_group(reader: str, tmp_path: Path) -> None:
    source = planted(reader, tmp_path)
    before = source.rows()
    second, third = (next(tmp_path.rglob(Path(row.origin).name)) for row in before[1:3])
    third.write_bytes(second.read_bytes())
    after = source.rows()
    assert after[1].group == after[2].group
    assert len({row.group for row in after}) == len({row.group for row in before}) - 1
