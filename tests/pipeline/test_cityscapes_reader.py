"""The reader of Cityscapes' layout: classes, objects and disparity by their definitions, and what it refuses."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.spec import IGNORE
from pipeline.datasets.base import BadExample
from pipeline.datasets.cityscapes import Cityscapes
from pipeline.encoding import resize
from tests.pipeline.layouts.cityscapes import FRAMES, SIZE, plant
from tests.pipeline.test_readers import noise, save, settings

# The official table: for each id from 0 its training id, 255 = not evaluated.
TRAIN_IDS = [
    *(255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 4, 255, 255, 255),
    *(5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255, 255, 16, 17, 18),
]
THINGS = ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
FIRST = "aachen/aachen_000000_000019"


def stored(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture).astype(int)


def test_classes_are_the_training_ids_of_the_official_table(tmp_path: Path) -> None:
    root = plant(tmp_path)
    every = np.zeros(SIZE, np.uint8)
    every.flat[:34] = range(34)
    save(root / f"gtFine/train/{FIRST}_gtFine_labelIds.png", every)
    source = Cityscapes(settings(root))
    for row in source.rows():
        (path,) = root.rglob(f"{row.id}_gtFine_labelIds.png")
        assert np.array_equal(source.load(row).labels["segmentation"], np.array(TRAIN_IDS)[stored(path)])
    classes = source.columns()["segmentation"].classes
    assert (len(classes), classes[:3], classes[11:]) == (19, ("road", "sidewalk", "building"), tuple(THINGS))


def test_instances_are_the_objects_of_the_eight_classes(tmp_path: Path) -> None:
    root = plant(tmp_path)
    source = Cityscapes(settings(root))
    for row in source.rows():
        (path,) = root.rglob(f"{row.id}_gtFine_instanceIds.png")
        ids, found = stored(path), source.load(row).labels["instances"]
        assert found.dtype == np.uint8
        numbered = {value for value in np.unique(ids) if value >= 1000 and TRAIN_IDS[value // 1000] != 255}
        assert sorted(numbered) == [24000, 26000, 26001], "a person, and two cars that touch"
        assert [set(found[ids == value]) for value in sorted(numbered)] == [{1}, {2}, {3}]
        assert set(found[ids == 24]) == {IGNORE}, "a group"
        assert set(found[ids == 30000]) == {IGNORE}, "a trailer is not evaluated"
        assert set(found[ids == 1]) == {IGNORE}, "the car with the camera"
        assert set(found[np.isin(ids, (7, 11, 23))]) == {0}, "road, building and sky"


def test_objects_stay_apart_when_they_are_stored_small(tmp_path: Path) -> None:
    source = Cityscapes(settings(plant(tmp_path)))
    example = source.load(source.rows()[0])
    small = resize(example, source.columns(), (SIZE[0] // 4, SIZE[1] // 4))
    assert set(np.unique(small.labels["instances"])) == {0, 1, 2, 3, IGNORE}, "no mixtures of two ids"
    assert np.array_equal(small.labels["instances"], example.labels["instances"][2::4, 2::4])


def test_disparity_is_in_pixels_of_the_original_image(tmp_path: Path) -> None:
    root = plant(tmp_path)
    path = root / f"disparity/train/{FIRST}_disparity.png"
    values = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE) * 16
    values[0, :3] = 0, 1, 2
    save(path, values)
    source = Cityscapes(settings(root))
    column = source.columns()["disparity"]
    assert (column.unit, column.scale) == ("px", 1 / 256)
    example = source.load(source.rows()[0])
    disparity = example.labels["disparity"]
    assert disparity[0, :3].tolist() == [0, 1 / 256, 1 / 256], (
        "none found; infinitely far, kept apart from that; a step"
    )
    assert np.array_equal(disparity[1:], (values[1:].astype(float) - 1) / 256)
    small = resize(example, source.columns(), (SIZE[0] // 2, SIZE[1] // 2))
    assert np.array_equal(small.labels["disparity"], disparity[1::2, 1::2]), "a smaller picture has the same values"


def test_frames_are_sorted_and_those_of_a_sequence_stay_together(tmp_path: Path) -> None:
    root = plant(tmp_path)
    for kind, ending in (
        ("leftImg8bit", "leftImg8bit"),
        ("gtFine", "gtFine_labelIds"),
        ("gtFine", "gtFine_instanceIds"),
    ):
        folder = root / kind / "train/aachen"
        shutil.copy(folder / f"aachen_000003_000019_{ending}.png", folder / f"aachen_000003_000049_{ending}.png")
    rows = Cityscapes(settings(root)).rows()
    assert [row.id for row in rows] == [
        *sorted([*FRAMES["train"], "aachen_000003_000049"]),
        *FRAMES["val"],
    ], "the test images have no labels"
    groups = {row.id: row.group for row in rows}
    assert groups["aachen_000003_000019"] == groups["aachen_000003_000049"]
    assert len(set(groups.values())) == len(rows) - 1


@pytest.mark.parametrize(
    ("column", "file"),
    [
        ("segmentation", "gtFine/train/{}_gtFine_labelIds.png"),
        ("instances", "gtFine/train/{}_gtFine_instanceIds.png"),
        ("disparity", "disparity/train/{}_disparity.png"),
    ],
)
def test_an_image_without_one_of_the_files_is_unlabelled_there(column: str, file: str, tmp_path: Path) -> None:
    (plant(tmp_path) / file.format(FIRST)).unlink()
    source = Cityscapes(settings(tmp_path))
    labels = source.load(source.rows()[0]).labels
    assert [name for name, label in labels.items() if label is None] == [column]


def test_disparity_is_a_download_of_its_own_and_labels_are_not(tmp_path: Path) -> None:
    root = plant(tmp_path)
    shutil.rmtree(root / "disparity")
    source = Cityscapes(settings(root))
    assert source.columns().keys() == source.load(source.rows()[0]).labels.keys() == {"segmentation", "instances"}
    for path in (root / "gtFine/train").rglob("*_labelIds.png"):
        path.rename(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    with pytest.raises(ValueError, match=r"gtFine holds no train/<city>/\*_gtFine_labelIds.png"):
        Cityscapes(settings(root)).rows()
    shutil.rmtree(root / "gtFine")
    with pytest.raises(ValueError, match=r"lacks gtFine; the folder"):
        Cityscapes(settings(root)).rows()


def test_a_set_without_training_images_is_refused(tmp_path: Path) -> None:
    shutil.rmtree(plant(tmp_path) / "leftImg8bit/train")
    with pytest.raises(ValueError, match=r"leftImg8bit holds no train/<city>/\*_leftImg8bit.png"):
        Cityscapes(settings(tmp_path)).rows()


MANY = (26000 + np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) // 8).astype(np.uint16)
BAD = {
    "an id that there is not": (
        "labelIds",
        np.full(SIZE, 34, np.uint8),
        "2048 pixels are out .* up to 34; the last .* 33",
    ),
    "training ids": ("labelIds", np.full(SIZE, 255, np.uint8), "2048 pixels are out of range, with values up to 255"),
    "colours": ("labelIds", noise(1, (*SIZE, 3)), "mode RGB, but one channel"),
    "labels of another size": ("labelIds", np.zeros((16, 32), np.uint8), "32x16 pixels, but its image has 64x32"),
    "an instance of no class": ("instanceIds", np.full(SIZE, 34001, np.uint16), "2048 pixels have the instance 34001"),
    "a class that there is not": ("instanceIds", np.full(SIZE, 40, np.uint16), "2048 pixels have the instance 40"),
    "too many objects": ("instanceIds", MANY, "256 objects, but at most 254 can be told apart"),
    "objects of another size": ("instanceIds", np.zeros((16, 32), np.uint16), "32x16 pixels, but its image has 64x32"),
}


@pytest.mark.parametrize(("kind", "array", "message"), BAD.values(), ids=BAD)
def test_a_bad_label_is_named(kind: str, array: np.ndarray, message: str, tmp_path: Path) -> None:
    file = f"{FIRST}_gtFine_{kind}.png"
    save(plant(tmp_path) / "gtFine/train" / file, array)
    source = Cityscapes(settings(tmp_path))
    with pytest.raises(BadExample, match=rf"{file}: {message}"):
        source.load(source.rows()[0])


def test_254_objects_can_be_told_apart(tmp_path: Path) -> None:
    file = plant(tmp_path) / f"gtFine/train/{FIRST}_gtFine_instanceIds.png"
    save(file, np.minimum(MANY, 26253))
    source = Cityscapes(settings(tmp_path))
    assert np.array_equal(np.unique(source.load(source.rows()[0]).labels["instances"]), np.arange(1, 255))


def test_a_bad_disparity_is_named(tmp_path: Path) -> None:
    path = plant(tmp_path) / f"disparity/train/{FIRST}_disparity.png"
    save(path, np.zeros((16, 32), np.uint16))
    source = Cityscapes(settings(tmp_path))
    with pytest.raises(BadExample, match=r"_disparity.png: 32x16 pixels, but its image has 64x32"):
        source.load(source.rows()[0])
    path.write_bytes(b"")
    with pytest.raises(BadExample, match=r"_disparity.png: not an image"):
        source.load(source.rows()[0])
