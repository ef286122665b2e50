"""The reader of ADE20K's layout: its classes against the files, its lists, and what it refuses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.spec import IGNORE
from pipeline.datasets.ade20k import ADE20K, CLASSES_150
from pipeline.datasets.base import BadExample
from tests.pipeline.layouts.ade20k import plant
from tests.pipeline.test_readers import noise, save, settings

FIRST = "annotations/training/ADE_train_00000001.png"


def test_a_class_is_its_number_less_one_and_0_is_unlabelled(tmp_path: Path) -> None:
    root = plant(tmp_path)
    source = ADE20K(settings(root))
    for row in source.rows():
        (path,) = root.glob(f"annotations/*/{row.id}.png")
        with Image.open(path) as picture:
            ids = np.array(picture).astype(int)
        mask = source.load(row).labels["segmentation"]
        assert np.array_equal(mask, np.where(ids == 0, IGNORE, ids - 1))


def test_names_are_the_first_of_the_table_or_those_that_are_known(tmp_path: Path) -> None:
    root = plant(tmp_path)
    named = ADE20K(settings(root)).columns()["segmentation"].classes
    assert named[:5] == ("wall", "building", "sky", "floor", "thing5")
    assert (len(named), named[149]) == (150, "thing150")
    (root / "objectInfo150.txt").unlink()
    known = ADE20K(settings(root)).columns()["segmentation"].classes
    assert known == CLASSES_150
    assert known[:4] == named[:4]
    assert len(set(known)) == 150
    assert [known[number - 1] for number in (13, 21, 66, 90, 131, 150)] == [
        *("person", "car", "toilet", "television", "screen", "flag")
    ], "some of the numbers of the published table"


def test_scenes_are_those_of_the_list_where_it_stands(tmp_path: Path) -> None:
    root = plant(tmp_path)
    lines = (root / "sceneCategories.txt").read_text().splitlines()
    (root / "sceneCategories.txt").write_text("\n".join(lines[1:]) + "\n")
    source = ADE20K(settings(root))
    listed = dict(line.split() for line in lines[1:])
    assert source.columns()["scene"].classes == ("airport_terminal", "bathroom", "street")
    scenes = {row.id: source.load(row).labels["scene"] for row in source.rows()}
    assert scenes == {"ADE_train_00000001": None, **listed}
    (root / "sceneCategories.txt").unlink()
    bare = ADE20K(settings(root))
    assert bare.columns().keys() == bare.load(bare.rows()[0]).labels.keys() == {"segmentation"}


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            np.full((48, 64), 151, np.uint8),
            "3072 pixels are out of range, with values up to 151; the last class has 150",
        ),
        (np.full((48, 64), 255, np.uint8), "3072 pixels are out of range, with values up to 255"),
        (np.zeros((24, 32), np.uint8), "32x24 pixels, but its image has 64x48"),
        (noise(1, (48, 64, 3)), "mode RGB, but one channel of 8-bit class ids"),
        (None, "not found"),
    ],
)
def test_a_bad_mask_is_named(mask: np.ndarray | None, message: str, tmp_path: Path) -> None:
    path = plant(tmp_path) / FIRST
    path.unlink()
    if mask is not None:
        save(path, mask)
    source = ADE20K(settings(tmp_path))
    first, *others = source.rows()
    with pytest.raises(BadExample, match=rf"{FIRST}: {message}"):
        source.load(first)
    assert all(source.load(row).labels["segmentation"] is not None for row in others)


LISTS: dict[str, tuple[str, Callable[[str], str], str]] = {
    "cut off": ("objectInfo150.txt", lambda text: text[: len(text) // 2], r"objectInfo150.txt"),
    "short": ("objectInfo150.txt", lambda text: "\n".join(text.splitlines()[:50]), "49 classes, but 150 are expected"),
    "a line twice": (
        "objectInfo150.txt",
        lambda text: text.replace("\n3\t", "\n2\t"),
        r"objectInfo150.txt line 4: .*class 3 and tabs are expected",
    ),
    "commas": ("objectInfo150.txt", lambda text: text.replace("\t", ","), "objectInfo150.txt line 2: "),
    "no scene": (
        "sceneCategories.txt",
        lambda text: text.replace("00000002 airport_terminal", "00000002"),
        "sceneCategories.txt line 2: ",
    ),
    "an image twice": (
        "sceneCategories.txt",
        lambda text: text.replace("train_00000003", "train_00000001"),
        "sceneCategories.txt line 3: .*not named before",
    ),
}


@pytest.mark.parametrize(("file", "change", "message"), LISTS.values(), ids=LISTS)
def test_a_broken_list_is_named(file: str, change: Callable[[str], str], message: str, tmp_path: Path) -> None:
    path = plant(tmp_path) / file
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message):
        ADE20K(settings(tmp_path)).columns()
