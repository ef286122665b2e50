"""What the readers of public sets have in common, each on the planted tree of its layout."""

import pickle
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets import DATASETS, BadExample, Source, SourceSettings, detect
from pipeline.encoding import encode, resize
from pipeline.preparing import assign_splits
from tests.pipeline.layouts import pets
from tests.pipeline.layouts._pictures import SIZE

NAMES = (
    "cars",
    "cub",
    "domainnet",
    "flowers",
    "folders",
    "imagenet",
    "inaturalist",
    "pets",
    "places365",
    "taskonomy",
    "visual_decathlon",
)
UNDRAWN = ("flowers", "taskonomy")  # with an official val
BY_CONTENT = ("cars", "cub", "domainnet", "folders", "pets", "visual_decathlon")
readers = pytest.mark.parametrize("name", NAMES)


def open_at(name: str, root: Path | None, images: int | None = None) -> Source:
    return DATASETS[name](SourceSettings(root=root, images=images, seed=3, size=SIZE))


def plant(name: str, folder: Path) -> Path:
    return import_module(f"tests.pipeline.layouts.{name}").plant(folder)


@readers
def test_every_example_can_be_stored(name: str, tmp_path: Path) -> None:
    source = open_at(name, plant(name, tmp_path))
    columns, rows = source.columns(), source.rows()
    assert len({row.id for row in rows}) == len(rows)
    for column in columns.values():
        assert len(set(column.classes)) == len(column.classes)
    for row in rows:
        example = source.load(row)
        assert example.image.dtype == np.uint8
        assert example.image.shape[2:] == (3,)
        assert example.labels.keys() == columns.keys()
        small = resize(example, columns, (8, 8))
        for key, column in columns.items():
            cell = encode(key, column, small.labels[key])
            assert cell is not None or (name, row.id) == ("pets", pets.BARE)


@readers
def test_every_class_of_the_fixture_occurs(name: str, tmp_path: Path) -> None:
    source = open_at(name, plant(name, tmp_path))
    for key, column in source.columns().items():
        if column.layout == "class" and len(column.classes) < 100:
            labels = {source.load(row).labels[key] for row in source.rows()}
            assert labels in (set(range(len(column.classes))), set(column.classes))


@readers
def test_the_official_test_stays_and_val_is_drawn_from_train(name: str, tmp_path: Path) -> None:
    rows = open_at(name, plant(name, tmp_path)).rows()
    official = Counter(row.split for row in rows)
    assert official.keys() == ({"train", "val", "test"} if name in UNDRAWN else {"train", "test"})
    assert official["train"] >= 4
    parts = assign_splits(rows, val=0.3, test=0.3, seed=1)
    assert [row.id for row in parts["test"]] == [row.id for row in rows if row.split == "test"]
    assert all(len(part) >= 2 for part in parts.values())


@readers
def test_a_used_source_is_small_and_picklable(name: str, tmp_path: Path) -> None:
    source = open_at(name, plant(name, tmp_path))
    rows = source.rows()
    source.columns()
    copy = pickle.loads(pickle.dumps(source))
    assert copy.rows() == rows
    assert np.array_equal(copy.load(rows[0]).image, source.load(rows[0]).image)


@readers
def test_images_draws_some_rows_in_order(name: str, tmp_path: Path) -> None:
    root = plant(name, tmp_path)
    everything, five = open_at(name, root).rows(), open_at(name, root, images=5).rows()
    assert [row for row in everything if row in five] == five
    assert len(five) == 5
    assert open_at(name, root, images=1000).rows() == everything


@readers
def test_a_missing_root_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        open_at(name, tmp_path / "nowhere").rows()
    with pytest.raises(ValueError, match="no root is set"):
        open_at(name, None).rows()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty"):
        open_at(name, tmp_path / "empty").rows()


@readers
def test_its_layout_is_told_from_the_others(name: str, tmp_path: Path) -> None:
    root = plant(name, tmp_path)
    assert detect(root) == (() if name == "folders" else (name,))


@readers
@pytest.mark.parametrize(("damage", "why"), [(Path.unlink, "not found"), (lambda path: path.write_bytes(b""), "empty")])
def test_a_bad_image_is_named_when_it_is_loaded(
    name: str, damage: Callable[[Path], object], why: str, tmp_path: Path
) -> None:
    root = plant(name, tmp_path)
    source = open_at(name, root)
    first, *others = source.rows()
    (path,) = tmp_path.rglob(Path(first.origin).name) if name == "cub" else [root / first.origin]
    damage(path)
    if name not in ("imagenet", "folders", "taskonomy"):  # those list what is there
        assert [row.id for row in open_at(name, root).rows()] == [first.id, *(row.id for row in others)]
    with pytest.raises(BadExample, match=rf"{path.name}.*{why}"):
        source.load(first)


@pytest.mark.parametrize("name", BY_CONTENT)
def test_copies_of_an_image_stay_on_one_side(name: str, tmp_path: Path) -> None:
    root = plant(name, tmp_path)
    first, second, *_ = open_at(name, root).rows()
    paths = [
        next(tmp_path.rglob(Path(row.origin).name)) if name == "cub" else root / row.origin for row in (first, second)
    ]
    paths[1].write_bytes(paths[0].read_bytes())
    groups = {row.id: row.group for row in open_at(name, root).rows()}
    assert groups[first.id] == groups[second.id]
    assert len(set(groups.values())) == len(groups) - 1
