"""The reader of COCO's layout: its labels against COCO's own tools and against every pixel, and what it refuses."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval import COCO as Oracle
from PIL import Image

from models.spec import IGNORE
from pipeline.datasets._coco_json import read_coco
from pipeline.datasets.base import BadExample, Example
from pipeline.datasets.coco import COCO
from tests.pipeline.layouts.coco import plant
from tests.pipeline.test_readers import assert_keeps_its_columns, noise, real, save, settings

TRAIN, PANOPTIC = "annotations/instances_train2017.json", "annotations/panoptic_train2017.json"


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change a JSON in place."""
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def first(root: Path) -> Example:
    source = COCO(settings(root))
    return source.load(source.rows()[0])


def bare(folder: Path, boxes: list[Any], size: tuple[int, int] | None = (12, 16), **entry: Any) -> Path:
    """One training image of 16x12 pixels, and such boxes of a dog."""
    save(folder / "images/train2017/1.png", noise(1))
    image = {"id": 1, "file_name": "1.png", **({"height": size[0], "width": size[1]} if size else {})}
    annotations = [{"id": n, "image_id": 1, "category_id": 7, "bbox": box, **entry} for n, box in enumerate(boxes)]
    (folder / "annotations").mkdir()
    found = {"images": [image], "annotations": annotations, "categories": [{"id": 7, "name": "dog"}]}
    (folder / TRAIN).write_text(json.dumps(found))
    return folder


def test_labels_are_those_that_cocos_own_tools_find(tmp_path: Path) -> None:
    root = plant(tmp_path)
    source = COCO(settings(root))
    classes = source.columns()["boxes"].classes
    crowds = 0
    for part in ("train2017", "val2017"):
        oracle = Oracle(str(root / f"annotations/instances_{part}.json"))
        images = {f"{part}/{image['file_name']}": image["id"] for image in oracle.dataset["images"]}
        rows = [row for row in source.rows() if row.id.startswith(part)]
        assert {row.id for row in rows} == images.keys()
        for row in rows:
            found = oracle.loadAnns(oracle.getAnnIds(imgIds=[images[row.id]]))
            names = [oracle.loadCats([entry["category_id"]])[0]["name"] for entry in found]
            labels = source.load(row).labels
            corners = [
                [x, y, x + w, y + h] for x, y, w, h in (entry["bbox"] for entry in found if not entry["iscrowd"])
            ]
            assert labels["boxes"][:, :4].tolist() == corners
            kinds = [name for name, entry in zip(names, found, strict=True) if not entry["iscrowd"]]
            assert [classes[int(kind)] for kind in labels["boxes"][:, 4]] == kinds
            assert [name for name, flag in zip(classes, labels["objects"], strict=True) if flag] == sorted(
                set(names), key=classes.index
            )
            crowds += len(names) - len(kinds)
    assert crowds, "regions of a crowd are there, and are no boxes"


def test_each_pixel_has_the_class_of_its_segment(tmp_path: Path) -> None:
    root = plant(tmp_path)
    source = COCO(settings(root))
    classes = source.columns()["segmentation"].classes
    found = json.loads((root / PANOPTIC).read_text())
    names = {entry["id"]: entry["name"] for entry in found["categories"]}
    assert classes == tuple(names[key] for key in sorted(names))
    rows = {row.id.removeprefix("train2017/"): row for row in source.rows()}
    for entry in found["annotations"]:
        mask = source.load(rows.pop(entry["file_name"].replace("png", "jpg"))).labels["segmentation"]
        kinds = {segment["id"]: names[segment["category_id"]] for segment in entry["segments_info"]}
        png = pixels(root / f"annotations/panoptic_train2017/{entry['file_name']}")
        for place, (red, green, blue) in enumerate(png.reshape(-1, 3).tolist()):
            kind = kinds.get(red + 256 * green + 65536 * blue)
            assert mask.flat[place] == (IGNORE if kind is None else classes.index(kind))
    unlabelled = [row for row in rows.values() if row.split == "train"]
    assert unlabelled, "some images have boxes alone"
    assert {source.load(row).labels["segmentation"] for row in unlabelled} == {None}


def test_boxes_are_cut_at_the_edges_and_none_is_empty(tmp_path: Path) -> None:
    boxes = [[-2, 3, 6.5, 4], [10, 8, 20, 20], [5, 5, 0, 3], [5, 5, 3, 0.0], [0, 0, 16, 12]]
    found = first(bare(tmp_path, boxes)).labels["boxes"].tolist()
    assert found == [[0, 3, 4.5, 7, 0], [10, 8, 16, 12, 0], [0, 0, 16, 12, 0]]


def test_an_image_without_annotations_has_no_objects(tmp_path: Path) -> None:
    labels = first(bare(tmp_path, [])).labels
    assert labels["boxes"].shape == (0, 5)
    assert labels["objects"].tolist() == [0]
    assert labels.keys() == {"boxes", "objects"}, "without panoptic files there is no such column"


def test_a_crowd_shows_its_class_without_a_box(tmp_path: Path) -> None:
    labels = first(bare(tmp_path, [[1, 1, 9, 9]], iscrowd=1)).labels
    assert (len(labels["boxes"]), labels["objects"].tolist()) == (0, [1])


@pytest.mark.parametrize("year", ["2014", "", "_mini"])
def test_any_year_and_both_places_of_the_images_are_read(year: str, tmp_path: Path) -> None:
    root = plant(tmp_path)
    expected = [(Path(row.id).name, row.split) for row in COCO(settings(root)).rows()]
    (root / "images").mkdir()
    for split in ("train", "val"):
        (root / f"{split}2017").rename(root / f"images/{split}{year}")
        for kind in ("instances", "panoptic"):
            (root / f"annotations/{kind}_{split}2017.json").rename(root / f"annotations/{kind}_{split}{year}.json")
        (root / f"annotations/panoptic_{split}2017").rename(root / f"annotations/panoptic_{split}{year}")
    source = COCO(settings(root))
    assert [(Path(row.id).name, row.split) for row in source.rows()] == expected
    assert source.rows()[0].id.startswith(f"images/train{year}/")
    assert_keeps_its_columns(source)


def test_a_split_without_its_json_is_left_alone(tmp_path: Path) -> None:
    root = plant(tmp_path)
    (root / "annotations/instances_val2017.json").unlink()
    source = COCO(settings(root))
    assert {row.split for row in source.rows()} == {"train"}
    (root / PANOPTIC).unlink()
    assert COCO(settings(root)).columns().keys() == {"boxes", "objects"}
    (root / TRAIN).unlink()
    with pytest.raises(ValueError, match=r"annotations holds no instances_train<year>.json"):
        COCO(settings(root)).rows()


def test_names_are_found_by_ids_in_any_order(tmp_path: Path) -> None:
    root = plant(tmp_path)
    before = COCO(settings(root))
    edit(root / TRAIN, lambda found: found["categories"].reverse())
    edit(root / TRAIN, lambda found: found["annotations"].sort(key=lambda entry: -entry["id"]))
    after = COCO(settings(root))
    assert after.columns() == before.columns()
    for row in before.rows():
        old, new = (source.load(row).labels["boxes"].tolist() for source in (before, after))
        assert sorted(old) == sorted(new)


BOXES = {
    "[3, 4, -2, 5]": "the box 3, 4, -2, 5 of a dog in images/train2017/1.png must be x, y, width, height",
    "[3, 4, NaN, 5]": "the box 3, 4, nan, 5 of a dog",
    "[3, 4, Infinity, 5]": "the box 3, 4, inf, 5 of a dog",
    "[20, 2, 9, 9]": "the box that ends at 29, 11 is outside the image",
}


@pytest.mark.parametrize(("box", "message"), BOXES.items(), ids=BOXES)
def test_a_bad_box_is_named_when_its_image_is_loaded(box: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadExample, match=rf"instances_train2017.json: {message}"):
        first(bare(tmp_path, [json.loads(box)]))


def test_a_size_that_is_not_that_of_the_file_is_named(tmp_path: Path) -> None:
    said = r"instances_train2017.json: made for 12x16 pixels, but images/train2017/1.png has 16x12; if an EXIF tag"
    with pytest.raises(BadExample, match=said):
        first(bare(tmp_path / "turned", [], size=(16, 12)))
    assert first(bare(tmp_path / "unsaid", [], size=None)).image.shape == (12, 16, 3)


def test_pixels_of_a_segment_that_is_not_listed_are_named(tmp_path: Path) -> None:
    root = plant(tmp_path)
    edit(root / PANOPTIC, lambda found: found["annotations"][0]["segments_info"].pop(0))
    with pytest.raises(
        BadExample, match=r"panoptic_train2017/0+9.png: \d+ pixels of segment 1000, which panoptic_train"
    ):
        first(root)


def test_a_panoptic_png_of_another_size_or_none_is_named(tmp_path: Path) -> None:
    root = plant(tmp_path)
    save(root / "annotations/panoptic_train2017/000000000009.png", noise(2))
    with pytest.raises(BadExample, match=r"0+9.png: 16x12 pixels, but its image has 64x48"):
        first(root)
    (root / "annotations/panoptic_train2017/000000000009.png").unlink()
    with pytest.raises(BadExample, match=r"panoptic_train2017/0+9.png: not found"):
        first(root)


Fault = tuple[str, Callable[[Any], object], str]
FAULTS: dict[str, Fault] = {
    "no images": (TRAIN, lambda f: f.pop("images"), "it has no list 'images'"),
    "no categories": (TRAIN, lambda f: f.pop("categories"), "it has no list 'categories'"),
    "a list of words": (TRAIN, lambda f: f["images"].insert(2, "x"), r"images\[2\] is 'x', but an object"),
    "no file name": (TRAIN, lambda f: f["images"][3].pop("file_name"), r"images\[3\] has no 'file_name'"),
    "an empty file name": (TRAIN, lambda f: f["images"][3].update(file_name=""), r"images\[3\]: the file_name is ''"),
    "a way out": (
        TRAIN,
        lambda f: f["images"][3].update(file_name="../val2017/x.jpg"),
        r"images\[3\]: the file_name '../val2017/x.jpg' leads out of its folder",
    ),
    "another disk": (
        PANOPTIC,
        lambda f: f["annotations"][2].update(file_name="/etc/x.png"),
        r"annotations\[2\]: the file_name '/etc/x.png' leads out",
    ),
    "an id twice": (
        TRAIN,
        lambda f: f["images"][4].update(id=9),
        r"images\[4\]: the id 9 is already that of images\[0",
    ),
    "a file twice": (
        TRAIN,
        lambda f: f["images"][4].update(file_name=f["images"][0]["file_name"]),
        "two images have the file_name '0+9.jpg'",
    ),
    "an id that is none": (TRAIN, lambda f: f["images"][4].update(id=[9]), r"images\[4\]: the id is \[9\]"),
    "a width that is none": (TRAIN, lambda f: f["images"][4].update(width=0), r"images\[4\]: the width is 0"),
    "a category twice": (TRAIN, lambda f: f["categories"][1].update(id=1), r"categories\[1\]: the id 1 is already"),
    "a name twice": (TRAIN, lambda f: f["categories"][1].update(name="dog"), "two categories are called 'dog'"),
    "a strange image": (
        TRAIN,
        lambda f: f["annotations"][5].update(image_id=3),
        r"annotations\[5\]: there is no image 3",
    ),
    "a strange category": (
        TRAIN,
        lambda f: f["annotations"][5].update(category_id="3"),
        r"annotations\[5\]: there is no category '3'",
    ),
    "no category": (TRAIN, lambda f: f["annotations"][5].pop("category_id"), r"annotations\[5\] has no 'category_id'"),
    "no box": (TRAIN, lambda f: f["annotations"][5].pop("bbox"), r"annotations\[5\] has no 'bbox'"),
    "a short box": (
        TRAIN,
        lambda f: f["annotations"][5].update(bbox=[1, 2]),
        r"annotations\[5\]: the bbox is \[1, 2\]",
    ),
    "a box of words": (
        TRAIN,
        lambda f: f["annotations"][5].update(bbox=[1, 2, "3", 4]),
        r"annotations\[5\]: the bbox is .*four numbers are expected",
    ),
    "classes that differ": (
        TRAIN,
        lambda f: f["categories"][0].update(name="people"),
        r"its categories are not those of .*instances_train2017.json",
    ),
    "panoptic classes that differ": (
        PANOPTIC,
        lambda f: f["categories"][0].update(name="people"),
        r"panoptic_val2017.json: its categories are not those of .*panoptic_train2017.json",
    ),
    "no segments": (
        PANOPTIC,
        lambda f: f["annotations"][2].pop("segments_info"),
        r"annotations\[2\] has no 'segments_info'",
    ),
    "a segment of no category": (
        PANOPTIC,
        lambda f: f["annotations"][2]["segments_info"][0].update(category_id=2),
        r"annotations\[2\]: segment 1000: there is no category 2",
    ),
    "a segment of no number": (
        PANOPTIC,
        lambda f: f["annotations"][2]["segments_info"][0].update(id="a"),
        r"annotations\[2\]: the id of a segment is 'a'",
    ),
    "an image with two entries": (
        PANOPTIC,
        lambda f: f["annotations"].append(f["annotations"][0]),
        r"annotations\[\d+\]: the image 9 has an entry already",
    ),
}


@pytest.mark.parametrize(("file", "change", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_of_the_json_is_named_with_its_entry(
    file: str, change: Callable[[Any], object], message: str, tmp_path: Path
) -> None:
    root = plant(tmp_path)
    edit(root / file, change)
    with pytest.raises(ValueError, match=message) as error:
        COCO(settings(root)).columns()
    assert Path(file).stem.split("_")[0] in str(error.value)


@pytest.mark.parametrize("text", ["", "an error page", '{"images": [{"id": 1', "[1, 2]", "\udce4", "[" * 100_000])
def test_a_file_that_is_no_coco_json_is_named(text: str, tmp_path: Path) -> None:
    (plant(tmp_path) / TRAIN).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"instances_train2017.json: not (JSON, or cut off|in COCO's layout)"):
        COCO(settings(tmp_path)).rows()


def test_a_json_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = (plant(tmp_path) / TRAIN).read_bytes()
    for length in range(1, len(whole) - 1, len(whole) // 40):
        (tmp_path / TRAIN).write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cut off"):
            read_coco(tmp_path / TRAIN)


def test_what_is_not_unpacked_is_named(tmp_path: Path) -> None:
    root = plant(tmp_path)
    shutil.rmtree(root / "annotations/panoptic_val2017")
    with pytest.raises(
        ValueError, match=r"no folder panoptic_val2017 of its PNGs beside it; unpack panoptic_val2017.zip"
    ):
        COCO(settings(root)).columns()
    shutil.rmtree(root / "val2017")
    with pytest.raises(ValueError, match="holds neither val2017 nor images/val2017"):
        COCO(settings(root)).rows()


def test_two_years_side_by_side_are_refused(tmp_path: Path) -> None:
    root = plant(tmp_path)
    shutil.copy(root / TRAIN, root / "annotations/instances_train2014.json")
    with pytest.raises(ValueError, match=r"holds instances_train2014.json and instances_train2017.json; keep one"):
        COCO(settings(root)).rows()


def test_the_real_coco128_set() -> None:
    root = real("coco128") / "coco128"
    source = COCO(settings(root))
    rows = source.rows()
    assert Counter(row.split for row in rows) == {"train": 128}, "val2017 has no JSON of instances"
    assert [len(source.columns()[name].classes) for name in ("boxes", "objects", "segmentation")] == [80, 80, 133]
    assert_keeps_its_columns(COCO(settings(root, images=10)))
    found = {row.id: source.load(row) for row in rows}
    assert sum(len(example.labels["boxes"]) for example in found.values()) == 929
    ids = sorted(entry["id"] for entry in json.loads(panoptic(root).read_text())["categories"])
    masks = {key: example.labels["segmentation"] for key, example in found.items()}
    assert sum(mask is not None for mask in masks.values()) == 100
    table = np.full(256, IGNORE)
    table[ids] = range(133)
    for key, mask in masks.items():
        path = root / "semantic_segmentation/masks/train2017" / f"{Path(key).stem}.png"
        assert (mask is not None) == path.is_file()
        if mask is not None:
            assert np.array_equal(mask, table[pixels(path)])


def panoptic(root: Path) -> Path:
    return root / "panoptic_segmentation" / PANOPTIC
