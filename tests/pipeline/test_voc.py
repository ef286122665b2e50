"""The reader of Pascal VOC's layout: what it makes of a small tree of files, of broken ones, and of a real set."""

import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.spec import IGNORE
from pipeline.artifacts import shards
from pipeline.datasets.base import BadExample, Example
from pipeline.datasets.voc import CLASSES_20, VOC
from pipeline.loading import Split
from pipeline.machine import Machine
from pipeline.preparing import assign_splits, open_source
from tests.pipeline.cases import DECODING, prepare
from tests.pipeline.cases import settings as study
from tests.pipeline.layouts.voc import plant
from tests.pipeline.test_readers import noise, real, save, settings

Corners = tuple[str, Sequence[float]]
BOXES: dict[str, list[Corners]] = {
    "a": [("dog", (1, 1, 16, 12)), ("cat", (3, 4, 5, 8))],
    "b": [],
    "c": [("dog", (10, 2, 19, 14)), ("cat", (0, -3, 4, 4)), ("cat", (7, 7, 7, 7)), ("dog", (2, 5, 9, 5))],
    "d": [("axolotl", (2.5, 3.5, 8.25, 9.0))],
}


def annotation(objects: Sequence[Corners], size: tuple[int, int] = (16, 12)) -> str:
    items = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox>"
        + "".join(f"<{side}>{x}</{side}>" for side, x in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
        + "</bndbox></object>"
        for name, corners in objects
    )
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{items}</annotation>"


def tree(folder: Path, boxes: dict[str, list[Corners]] = BOXES) -> Path:
    (folder / "Annotations").mkdir(parents=True)
    (folder / "ImageSets/Main").mkdir(parents=True)
    for number, (name, objects) in enumerate(boxes.items()):
        save(folder / f"JPEGImages/{name}.jpg", noise(number))
        (folder / f"Annotations/{name}.xml").write_text(annotation(objects))
    lists(folder, train="a b", val="c", test="d")
    return folder


def lists(folder: Path, **names: str) -> None:
    for old in (folder / "ImageSets/Main").iterdir():
        old.unlink()
    for split, words in names.items():
        (folder / f"ImageSets/Main/{split}.txt").write_text("".join(f"{word}\n" for word in words.split()))


def boxes_of(source: VOC, name: str) -> list[list[float]]:
    (row,) = (row for row in source.rows() if row.id == name)
    return source.load(row).labels["boxes"].tolist()


def test_boxes_count_from_the_images_corner_and_end_with_it(tmp_path: Path) -> None:
    source = VOC(settings(tree(tmp_path)))
    assert source.columns()["boxes"].classes == ("axolotl", "cat", "dog")
    assert boxes_of(source, "a") == [[0, 0, 16, 12, 2], [2, 3, 5, 8, 1]]
    assert boxes_of(source, "b") == []
    assert boxes_of(source, "c") == [[9, 1, 16, 12, 2], [0, 0, 4, 4, 1]], "cut at the edges, and no clicks"
    assert boxes_of(source, "d") == [[1.5, 2.5, 8.25, 9, 0]]
    assert source.load(source.rows()[1]).labels["boxes"].shape == (0, 5)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"train": "a b", "val": "c", "test": "d"}, "a train b train c val d test"),
        ({"train": "b a", "trainval": "a b c", "val": "c"}, "b train a train c test"),
        ({"trainval": "a b c", "test": "d"}, "a train b train c train d test"),
        ({"trainval": "a b c", "val": "c"}, "a train b train c train"),
    ],
)
def test_splits_are_those_of_the_lists(names: dict[str, str], expected: str, tmp_path: Path) -> None:
    lists(tree(tmp_path), **names)
    assert " ".join(f"{row.id} {row.split}" for row in VOC(settings(tmp_path)).rows()) == expected


def test_a_list_that_leads_out_of_the_set_is_refused(tmp_path: Path) -> None:
    lists(tree(tmp_path), train="a ../../b")
    with pytest.raises(ValueError, match=r"train.txt: ../../b leads out"):
        VOC(settings(tmp_path)).rows()


def test_an_image_need_not_be_a_jpeg(tmp_path: Path) -> None:
    save(tree(tmp_path) / "JPEGImages/e.png", noise(7))
    (tmp_path / "Annotations/e.xml").write_text(annotation([("cat", (1, 1, 2, 2))]))
    lists(tmp_path, train="e")
    source = VOC(settings(tmp_path))
    (row,) = source.rows()
    assert row.origin == "JPEGImages/e.png"
    assert np.array_equal(source.load(row).image, noise(7))


def test_lists_without_training_images_are_refused(tmp_path: Path) -> None:
    lists(tree(tmp_path), val="a", test="b")
    with pytest.raises(ValueError, match=r"ImageSets/Main holds neither train.txt nor trainval.txt"):
        VOC(settings(tmp_path)).rows()


def test_an_image_in_two_lists_is_refused(tmp_path: Path) -> None:
    lists(tree(tmp_path), train="a b", test="c a")
    with pytest.raises(ValueError, match=r"test.txt: a is listed twice, the first time in train.txt"):
        VOC(settings(tmp_path)).rows()


def test_a_set_without_any_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no file of .*Annotations holds an <object> with a <name>"):
        VOC(settings(tree(tmp_path, {"a": []}))).columns()


BOMB = (
    '<!DOCTYPE x [<!ENTITY e0 "ha">'
    + "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    + "]><annotation><object><name>&e9;</name></object></annotation>"
)
OUTSIDE = '<!DOCTYPE x [<!ENTITY e SYSTEM "b.xml">]><annotation><object><name>&e;</name></object></annotation>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("an error page", "not an XML annotation: syntax error"),
        ("", "not an XML annotation: no element found"),
        ("<annotation><object></annotation>", "not an XML annotation: mismatched tag"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "not an XML annotation: unknown encoding"),
        (BOMB, "not an XML annotation: limit on input amplification"),
        (OUTSIDE, "not an XML annotation: undefined entity"),
        ("<annotation><object/></annotation>", "an <object> without <name>"),
        ("<annotation><object><name>new</name></object></annotation>", "an <object> without <bndbox><xmin>"),
        (annotation([("dog", (5, 5, 3, 8))]), "the box 5, 5, 3, 8 of a dog must be xmin, ymin, xmax, ymax"),
        (annotation([("dog", (1, 1, float("nan"), 8))]), "the box 1, 1, nan, 8 of a dog must be"),
        (annotation([("dog", (1, 1, float("inf"), 8))]), "the box 1, 1, inf, 8 of a dog must be"),
        (annotation([("new", (1, 1, 2, 2))]).replace("<xmax>2", "<xmax>two"), "the box 1, 1, two, 2 of a new must"),
        (annotation([("dog", (30, 2, 40, 9))]), "the box that ends at 40, 9 is outside the image"),
        (annotation([], (12, 16)), r"made for 12x16 pixels, but JPEGImages/a.jpg has 16x12"),
    ],
)
def test_a_bad_annotation_is_named_when_it_is_loaded(text: str, message: str, tmp_path: Path) -> None:
    (tree(tmp_path) / "Annotations/a.xml").write_text(text)
    source = VOC(settings(tmp_path))
    assert {"axolotl", "cat", "dog"} <= set(source.columns()["boxes"].classes)
    first, *others = source.rows()
    with pytest.raises(BadExample, match=rf"Annotations/a.xml: .*{message}"):
        source.load(first)
    assert all(source.load(row).labels["boxes"] is not None for row in others)


def test_a_missing_annotation_is_named(tmp_path: Path) -> None:
    (tree(tmp_path) / "Annotations/a.xml").unlink()
    source = VOC(settings(tmp_path))
    with pytest.raises(BadExample, match=r"Annotations/a.xml: not found"):
        source.load(source.rows()[0])


@pytest.mark.parametrize("size", [(0, 0), None])
def test_a_size_that_is_not_stated_is_not_checked(size: tuple[int, int] | None, tmp_path: Path) -> None:
    text = annotation([("dog", (1, 1, 3, 3))], size or (16, 12))
    text = text if size else text.replace("size>", "extent>")
    (tree(tmp_path) / "Annotations/a.xml").write_text(text)
    assert boxes_of(VOC(settings(tmp_path)), "a") == [[0, 0, 3, 3, 2]]


@pytest.mark.filterwarnings(DECODING)
def test_prepare_stores_boxes_at_the_size_asked_for(tmp_path: Path) -> None:
    config = study({"reader": "voc", "root": str(tree(tmp_path / "set")), "images": None, "size": (24, 8)})
    manifest, _ = prepare(tmp_path, open_source("tiny", config, Machine()), config)
    assert manifest.counts == {"train": 2, "val": 1, "test": 1}
    column = manifest.columns["boxes"]
    split = Split(dataset="tiny", paths=shards("tiny", "train", tmp_path), size=(24, 8), columns={"boxes": column})
    padding = [0, 0, 0, 0, -1]
    stored = split.read([0, 1]).labels["boxes"]
    assert stored.tolist() == [[[0, 0, 8, 24, 2], [1, 6, 2.5, 16, 1]], [padding, padding]]


# Masks


def images_of(source: VOC) -> dict[str, Example]:
    return {row.id: source.load(row) for row in source.rows()}


def colours() -> np.ndarray:
    """VOC's colour of each number, by the rule of its development kit: three bits at a time, highest first."""
    table = np.zeros((256, 3), int)
    for number in range(256):
        for step in range(8):
            bits = number >> 3 * step
            table[number] |= np.array([bits & 1, bits >> 1 & 1, bits >> 2 & 1]) << 7 - step
    return table


def test_masks_have_the_classes_of_their_colours(tmp_path: Path) -> None:
    root = plant(tmp_path) / "VOC2012"
    source = VOC(settings(root))
    classes = source.columns()["segmentation"].classes
    assert classes == ("background", *CLASSES_20)
    assert classes[1:] == tuple(sorted(CLASSES_20)), "VOC numbers its classes by their names"
    table = {tuple(colour): number for number, colour in enumerate(colours().tolist())}
    for name, example in images_of(source).items():
        path = root / f"SegmentationClass/{name}.png"
        assert (example.labels["segmentation"] is not None) == path.is_file()
        if path.is_file():
            with Image.open(path) as picture:
                assert picture.mode == "P"
                shown = np.array(picture.convert("RGB")).reshape(-1, 3).tolist()
            assert example.labels["segmentation"].ravel().tolist() == [table[tuple(colour)] for colour in shown]


def test_masks_and_boxes_are_of_the_same_objects(tmp_path: Path) -> None:
    source = VOC(settings(plant(tmp_path)))
    names = source.columns()["boxes"].classes
    for example in images_of(source).values():
        if (mask := example.labels["segmentation"]) is None:
            continue
        for *corners, kind in example.labels["boxes"].tolist():
            x0, y0, x1, y1 = map(int, corners)
            within = mask[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1]
            assert set(within.ravel()) == {1 + CLASSES_20.index(names[int(kind)])}
            assert mask[y0, x0] == IGNORE, "the border is void"


def segmented(folder: Path, **names: str) -> Path:
    """The small tree with masks, 12 x 16, of all its images; `names` are the lists of these."""
    for number, name in enumerate("abcd"):
        save(folder / f"SegmentationClass/{name}.png", np.full((12, 16), number, np.uint8))
    (folder / "ImageSets/Segmentation").mkdir()
    for split, words in names.items():
        (folder / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(words.split()))
    return folder


def test_an_image_may_have_one_label_of_two(tmp_path: Path) -> None:
    lists(tree(tmp_path), train="a b", test="c")
    images = images_of(VOC(settings(segmented(tmp_path, train="b", test="d"))))
    has = {name: [kind for kind, label in image.labels.items() if label is not None] for name, image in images.items()}
    assert has == {"a": ["boxes"], "b": ["boxes", "segmentation"], "c": ["boxes"], "d": ["segmentation"]}


def test_an_image_that_one_list_holds_out_is_held_out(tmp_path: Path) -> None:
    lists(tree(tmp_path), train="a b c", val="d")
    source = VOC(settings(segmented(tmp_path, train="a d", val="b", test="c")))
    assert {row.id: row.split for row in source.rows()} == {"a": "train", "b": "val", "c": "test", "d": "val"}


def test_masks_of_other_classes_are_called_by_their_numbers(tmp_path: Path) -> None:
    root = segmented(tree(tmp_path), train="a b", test="c d")
    assert VOC(settings(root)).columns()["segmentation"].classes == ("0", "1", "2", "3"), "an axolotl is none of the 20"


def test_without_the_folder_or_its_lists_there_are_no_masks(tmp_path: Path) -> None:
    (segmented(tree(tmp_path), train="a") / "SegmentationClass").rename(tmp_path / "SegmentationObject")
    source = VOC(settings(tmp_path))
    assert source.columns().keys() == {"boxes"}
    assert source.load(source.rows()[0]).labels.keys() == {"boxes"}


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((48, 64), 21, np.uint8), "3072 pixels are out of range, with values up to 21; the last class has 20"),
        (np.zeros((64, 48), np.uint8), "48x64 pixels, but its image has 64x48"),
        (np.zeros((48, 64, 3), np.uint8), "mode RGB, but one channel of 8-bit class ids"),
        (None, "not found"),
    ],
)
def test_a_bad_mask_is_named(mask: np.ndarray | None, message: str, tmp_path: Path) -> None:
    path = plant(tmp_path) / "VOC2012/SegmentationClass/2007_000001.png"
    path.unlink()
    if mask is not None:
        save(path, mask)
    source = VOC(settings(tmp_path))
    with pytest.raises(BadExample, match=rf"SegmentationClass/2007_000001.png: {message}"):
        source.load(source.rows()[1])


def test_the_kit_is_found_two_folders_down(tmp_path: Path) -> None:
    root = plant(tmp_path)
    rows = VOC(settings(root / "VOC2012")).rows()
    assert VOC(settings(tmp_path)).rows() == VOC(settings(root)).rows() == rows


def test_the_real_bccd_set() -> None:
    source = VOC(settings(real("bccd")))
    rows = source.rows()
    assert Counter(row.split for row in rows) == {"train": 205, "val": 87, "test": 72}
    assert source.columns()["boxes"].classes == ("Platelets", "RBC", "WBC")
    boxes = np.concatenate([source.load(row).labels["boxes"] for row in rows])
    assert Counter(boxes[:, 4].tolist()) == {0: 361, 1: 4153, 2: 372}, "4,155 RBC, two of them clicks"
    assert boxes[:, :4].min() >= 0
    assert (boxes[:, 2:4] <= [640, 480]).all()
    assert (boxes[:, 2:4] > boxes[:, :2]).all()
    assert {part: len(some) for part, some in assign_splits(rows, val=0.2, test=0.2, seed=0).items()} == {
        "train": 205,
        "val": 87,
        "test": 72,
    }


def test_a_used_source_is_picklable(tmp_path: Path) -> None:
    source = VOC(settings(tree(tmp_path)))
    rows, columns = source.rows(), source.columns()
    copy = pickle.loads(pickle.dumps(source))
    assert (copy.rows(), copy.columns()) == (rows, columns)


def test_copies_of_an_image_are_one_group_and_a_seed_draws_rows(tmp_path: Path) -> None:
    (tree(tmp_path) / "JPEGImages/b.jpg").write_bytes((tmp_path / "JPEGImages/d.jpg").read_bytes())
    groups = {row.id: row.group for row in VOC(settings(tmp_path)).rows()}
    assert groups["b"] == groups["d"]
    assert len(set(groups.values())) == 3
    assert len(VOC(settings(tmp_path, images=2)).rows()) == 2


def test_a_missing_root_and_a_missing_image_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no root is set"):
        VOC(settings(None)).rows()
    (tree(tmp_path / "set") / "JPEGImages/a.jpg").unlink()
    source = VOC(settings(tmp_path))
    with pytest.raises(BadExample, match=r"JPEGImages/a.jpg: not found"):
        source.load(source.rows()[0])
    (tmp_path / "set/ImageSets/Main").rename(tmp_path / "set/Lists")
    with pytest.raises(ValueError, match=r"lacks .*ImageSets/Main; the folder"):
        VOC(settings(tmp_path)).rows()
