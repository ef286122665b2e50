"""DomainNet, Visual Decathlon, Places-365, iNaturalist and Pets: their labels, and what is wrong with their lists."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets import BadExample, Source
from tests.pipeline.layouts import cub, domainnet, pets, visual_decathlon
from tests.pipeline.layouts._pictures import SIZE, save
from tests.pipeline.test_public_readers import open_at, plant

# Lists: what is wrong, in which reader's file, is named with the line


def append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")


LINES = {
    "domainnet, no label": ("domainnet", "../clipart_train.txt", "clipart/a/b.jpg", "line 25: 'clipart/a/b.jpg'"),
    "domainnet, twice": (
        "domainnet",
        "../clipart_train.txt",
        "clipart/zigzag/clipart_003_000300.jpg 3",
        "line 25: clipart/zigzag/clipart_003_000300.jpg stands there twice",
    ),
    "domainnet, outside": ("domainnet", "../clipart_test.txt", "clipart/../../x.jpg 3", "line 9: .*leads out of"),
    "domainnet, another's": ("domainnet", "../clipart_test.txt", "real/zigzag/x.jpg 3", "should begin with clipart/"),
    "domainnet, both lists": (
        "domainnet",
        "../clipart_test.txt",
        "clipart/zigzag/clipart_003_000300.jpg 3",
        "listed for train and for test",
    ),
    "domainnet, other class": (
        "domainnet",
        "../real_test.txt",
        "real/zigzag/x.jpg 2",
        "class 2, which elsewhere is t-s",
    ),
    "places365, out of range": (
        "places365",
        "places365_val.txt",
        "x.jpg 4",
        "x.jpg: its class is number 4, but there are 4",
    ),
    "places365, negative": ("places365", "places365_val.txt", "x.jpg -1", "line 9: 'x.jpg -1'"),
    "places365, outside": ("places365", "places365_train_standard.txt", "/../../x.jpg 1", "line 25: .*leads out of"),
    "places365, categories": ("places365", "categories_places365.txt", "/a/aqueduct 9", "numbered 0 to 4, each once"),
    "pets, malformed": ("pets", "annotations/test.txt", "beagle_7 3 2", "test.txt line 9: 'beagle_7 3 2'"),
    "pets, breed 0": ("pets", "annotations/test.txt", "beagle_7 0 2 1", "test.txt line 9"),
    "pets, third species": ("pets", "annotations/test.txt", "beagle_7 3 3 1", "test.txt line 9"),
    "pets, outside": ("pets", "annotations/test.txt", "../../x 3 2 1", "test.txt line 9: .*leads out of"),
    "pets, twice": ("pets", "annotations/test.txt", "beagle_1 3 2 2", "test.txt line 9: beagle_1 is listed twice"),
    "pets, other breed": ("pets", "annotations/test.txt", "boxer_1 3 2 2", "boxer_1 is of breed 3, as are .*beagle"),
    "cub, outside": ("cub", "CUB_200_2011/images.txt", "25 ../../x.jpg", "no line for the image 25"),
    "cub, malformed": ("cub", "CUB_200_2011/bounding_boxes.txt", "25 1 2 3", "bounding_boxes.txt line 25: '25 1 2 3'"),
    "cub, twice": ("cub", "CUB_200_2011/images.txt", "3 x.jpg", "images.txt line 25: the number 3 stands there twice"),
    "cub, class 0": ("cub", "CUB_200_2011/image_class_labels.txt", "25 0", "labels.txt line 25: '25 0'"),
    "taskonomy, header": (
        "taskonomy",
        "splits_taskonomy/train_val_test_tiny.csv",
        "ihlen,0,0,1",
        "ihlen is listed twice",
    ),
}


def read_all(source: Source) -> None:
    source.rows()
    source.columns()


@pytest.mark.parametrize(("name", "file", "line", "message"), LINES.values(), ids=LINES)
def test_a_line_at_fault_is_named(name: str, file: str, line: str, message: str, tmp_path: Path) -> None:
    root = plant(name, tmp_path)
    append(root / file, line)
    source = open_at(name, root)
    with pytest.raises(ValueError, match=message):
        read_all(source)


def test_cub_stays_in_its_folder(tmp_path: Path) -> None:
    root = cub.plant(tmp_path)
    for name, rest in (("images", "../../x.jpg"), ("image_class_labels", "1"), ("train_test_split", "1")):
        append(root / f"CUB_200_2011/{name}.txt", f"25 {rest}")
    append(root / "CUB_200_2011/bounding_boxes.txt", "25 1 1 2 2")
    with pytest.raises(ValueError, match=r"image 25: \.\./\.\./x.jpg leads out of"):
        open_at("cub", root).rows()


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    root = domainnet.plant(tmp_path)
    (tmp_path / "clipart_test.txt").unlink()
    with pytest.raises(ValueError, match=r"clipart_test.txt: not found"):
        open_at("domainnet", root).rows()


# DomainNet


def test_domains_share_their_classes(tmp_path: Path) -> None:
    domainnet.plant(tmp_path)
    for domain in domainnet.DOMAINS:
        source = open_at("domainnet", tmp_path / domain)
        classes = source.columns()["label"].classes
        assert classes == domainnet.CLASSES
        for row in source.rows():
            assert classes[source.load(row).labels["label"]] == row.id.split("/")[0]
    shown = {row.label for row in open_at("domainnet", tmp_path / "painting").rows() if row.split == "train"}
    assert shown == {0, 1, 3}, "its training list lacks the t-shirt"


def test_a_class_that_no_list_names_is_a_number(tmp_path: Path) -> None:
    domainnet.plant(tmp_path)
    for path in tmp_path.glob("*.txt"):
        if not path.name.startswith("painting_train"):
            path.unlink()
    (tmp_path / "painting_test.txt").write_text("painting/zigzag/x.jpg 3\n")
    assert open_at("domainnet", tmp_path / "painting").columns()["label"].classes[2] == "2"


@pytest.mark.parametrize(
    ("name", "one"), [("domainnet", "clipart, infograph"), ("visual_decathlon", "aircraft, cifar100")]
)
def test_the_folder_above_names_those_to_choose_from(name: str, one: str, tmp_path: Path) -> None:
    above = plant(name, tmp_path).parent
    with pytest.raises(ValueError, match=f"name one of its folders {one}"):
        open_at(name, above).columns()


# Visual Decathlon


@pytest.mark.parametrize("name", visual_decathlon.CLASSES)
def test_each_of_the_ten_sets_has_its_own_classes(name: str, tmp_path: Path) -> None:
    root = visual_decathlon.plant(tmp_path).parent / name
    source = open_at("visual_decathlon", root)
    classes = source.columns()["label"].classes
    assert classes == tuple(f"{name} {number + 1}" for number in range(visual_decathlon.CLASSES[name]))
    for row in source.rows():
        part, folder, _ = row.id.split("/")
        assert (part, int(folder)) == ({"train": "train", "test": "val"}[row.split or ""], (row.label or 0) + 1)
        assert min(source.load(row).image.shape[:2]) == 72


def test_the_decathlons_annotations_may_stand_beside_its_images(tmp_path: Path) -> None:
    root = visual_decathlon.plant(tmp_path / "a")
    before = open_at("visual_decathlon", root).rows()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/decathlon-1.0/data").rename(tmp_path / "b/decathlon-1.0-data")
    with pytest.raises(ValueError, match=r"no annotations/aircraft_train.json above .*development kit"):
        open_at("visual_decathlon", tmp_path / "b/decathlon-1.0-data/aircraft").rows()
    (tmp_path / "a/decathlon-1.0").rename(tmp_path / "b/decathlon-1.0")
    assert open_at("visual_decathlon", tmp_path / "b/decathlon-1.0-data/aircraft").rows() == before


def change(path: Path, edit: Callable[[dict], object]) -> None:
    found = json.loads(path.read_text())
    edit(found)
    path.write_text(json.dumps(found))


def test_two_classes_of_one_name_are_told_apart_by_their_numbers(tmp_path: Path) -> None:
    """As ImageNet's two cranes are."""
    root = visual_decathlon.plant(tmp_path)
    before = open_at("visual_decathlon", root).columns()["label"].classes
    for path in (tmp_path / "decathlon-1.0/annotations").glob("aircraft_*.json"):
        change(path, lambda found: found["categories"][1].update(name=found["categories"][0]["name"]))
    after = open_at("visual_decathlon", root).columns()["label"].classes
    assert len(set(after)) == len(before)
    assert all(name.startswith(f"{before[0]} (") for name in after[:2])


EDITS = {
    "no class": (lambda found: found["annotations"].pop(0), "has no annotation"),
    "two classes": (lambda found: found["annotations"].append(found["annotations"][0]), "has a class already"),
    "no category": (lambda found: found["annotations"][0].pop("category_id"), r"annotations\[0\] has no 'category_id'"),
    "other categories": (lambda found: found["categories"].append({"id": 9, "name": "x"}), "its categories are not"),
    "elsewhere": (lambda found: found["images"][0].update(file_name="data/dtd/x.jpg"), "begin with data/aircraft/"),
    "outside": (lambda found: found["images"][0].update(file_name="data/aircraft/../x"), "leads out of"),
}


@pytest.mark.parametrize(("edit", "message"), EDITS.values(), ids=EDITS)
def test_the_decathlons_json_is_checked(edit: Callable[[dict], object], message: str, tmp_path: Path) -> None:
    root = visual_decathlon.plant(tmp_path)
    change(tmp_path / "decathlon-1.0/annotations/aircraft_train.json", edit)
    with pytest.raises(ValueError, match=rf"aircraft_train.json: .*{message}"):
        open_at("visual_decathlon", root).rows()


# Places-365, iNaturalist, Pets


def test_places_are_found_in_other_folders_too(tmp_path: Path) -> None:
    root = plant("places365", tmp_path)
    (root / "data_256_standard").rename(root / "data_large")
    source = open_at("places365", root)
    assert source.columns()["label"].classes == (
        "airfield",
        "airplane_cabin",
        "apartment_building/outdoor",
        "zen_garden",
    )
    for row in source.rows():
        source.load(row)
    (root / "val_256").rename(root / "val_512")
    with pytest.raises(ValueError, match=r"no folder val_256 or val_large, for places365_val.txt"):
        source.rows()


def test_species_without_published_names_are_numbers(tmp_path: Path) -> None:
    root = plant("inaturalist", tmp_path)
    source = open_at("inaturalist", root)
    assert source.columns()["label"].classes[1] == "Acer rubrum"
    assert {row.label == int(row.id.split("/")[2]) for row in source.rows()} == {True}
    (root / "categories.json").write_text('[{"id": 0, "name": "Accipiter cooperii"}]')
    with pytest.raises(ValueError, match=r"categories.json: no name for the id 1"):
        open_at("inaturalist", root).columns()
    (root / "categories.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"categories.json: a list of objects"):
        open_at("inaturalist", root).columns()
    (root / "categories.json").unlink()
    assert open_at("inaturalist", root).columns()["label"].classes == ("0", "1", "2", "3")


def test_a_pets_border_is_unlabelled(tmp_path: Path) -> None:
    source = open_at("pets", pets.plant(tmp_path))
    rows = {row.id: row for row in source.rows()}
    labels = source.load(rows["Abyssinian_2"]).labels
    assert np.array_equal(labels["segmentation"], np.array([0, 1, 0, 255])[pets.trimap(1)])
    assert (labels["breed"], labels["species"]) == (0, 0)
    assert source.columns()["breed"].classes == ("Abyssinian", "american_bulldog", "beagle", "Bengal")
    assert source.load(rows[pets.BARE]).labels == {"breed": 2, "species": 1, "segmentation": None}


@pytest.mark.parametrize(
    ("values", "message"),
    [(np.full(SIZE, 4, np.uint8), "a pixel is 4"), (np.ones((5, 7), np.uint8), "7x5 pixels, but its image has 32x24")],
)
def test_a_trimap_of_other_values_or_size_is_refused(values: np.ndarray, message: str, tmp_path: Path) -> None:
    source = open_at("pets", pets.plant(tmp_path))
    save(tmp_path / "annotations/trimaps/Abyssinian_1.png", values)
    with pytest.raises(BadExample, match=rf"Abyssinian_1.png: {message}"):
        source.load(source.rows()[0])
