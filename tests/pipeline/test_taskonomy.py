"""The reader of Taskonomy: what the planted rooms' labels must be, in any of the trees in use, and what it refuses."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.spec import IGNORE
from pipeline.artifacts import shards
from pipeline.datasets import BadExample, Example
from pipeline.datasets._taskonomy_labels import OBJECTS
from pipeline.loading import Split
from pipeline.machine import Machine
from pipeline.preparing import open_source
from tests.pipeline.cases import DECODING, prepare
from tests.pipeline.cases import settings as study
from tests.pipeline.layouts import places365
from tests.pipeline.layouts._pictures import save
from tests.pipeline.layouts.taskonomy import BUILDINGS, COUNTS, SIZE, pictures, plant
from tests.pipeline.test_public_readers import open_at

HALF = SIZE // 2
FIRST = "allensville/point_0_view_0_domain_"


def first(root: Path) -> Example:
    source = open_at("taskonomy", root)
    return source.load(source.rows()[0])


def alike(left: Example, right: Example) -> bool:
    return left.labels.keys() == right.labels.keys() and all(
        np.array_equal(left.labels[name], right.labels[name]) for name in left.labels
    )


def test_the_planted_room_is_read_as_it_was_planted(tmp_path: Path) -> None:
    labels, drawn = first(plant(tmp_path)).labels, pictures(0)
    assert labels["scene"] == 0
    segmentation = labels["segmentation"]
    assert (segmentation[:4] == IGNORE).all()
    assert {OBJECTS[index] for index in np.unique(segmentation[4:])} == {"background", "chair"}
    assert OBJECTS[segmentation[-1, 0]] == "chair"
    assert (labels["depth"][:, :2] == 0).all()
    assert labels["depth"][:HALF, 2:] == pytest.approx(4.0)
    assert labels["depth"][HALF:, 2:] == pytest.approx(2.0)
    assert (labels["normals"][:, :2] == 0).all()
    assert labels["normals"][:HALF, 2:] == pytest.approx(np.broadcast_to([0, 0, 1], (HALF, SIZE - 2, 3)), abs=0.01)
    assert labels["normals"][HALF:, 2:] == pytest.approx(np.broadcast_to([0, 1, 0], (HALF, SIZE - 2, 3)), abs=0.01)
    for name, folder in (("edges", "edge_texture"), ("keypoints", "keypoints2d")):
        steps = labels[name] * 65535
        assert np.round(steps).tolist() == np.maximum(drawn[folder], 1).tolist(), "0 would mean unlabelled"


@pytest.mark.filterwarnings(DECODING)
def test_prepare_keeps_what_is_labelled_and_what_is_not(tmp_path: Path) -> None:
    config = study({"reader": "taskonomy", "root": str(plant(tmp_path / "set")), "images": None, "size": (SIZE, SIZE)})
    manifest, _ = prepare(tmp_path, open_source("tiny", config, Machine()), config)
    assert manifest.counts == {"train": 12, "val": 2, "test": 2}
    paths = shards("tiny", "test", tmp_path)
    split = Split(dataset="tiny", paths=paths, size=(SIZE, SIZE), columns=manifest.columns)
    labels = {name: np.asarray(value)[0] for name, value in split.read([0]).labels.items()}
    source = open_at("taskonomy", tmp_path / "set")
    expected = source.load(next(row for row in source.rows() if row.split == "test")).labels
    assert labels["scene"] == expected["scene"]
    assert np.array_equal(labels["segmentation"], expected["segmentation"])
    for name in ("edges", "keypoints", "depth"):
        assert labels[name] == pytest.approx(expected[name], rel=1e-6)
    assert (labels["edges"] > 0).all()
    assert labels["normals"] == pytest.approx(expected["normals"].transpose(2, 0, 1), abs=0.01)


def test_blue_may_lead_away_from_the_camera(tmp_path: Path) -> None:
    root = plant(tmp_path)
    before, path = first(root), root / "normal" / f"{FIRST}normal.png"
    picture = pictures(0)["normal"]
    picture[..., 2] = 254 - picture[..., 2].clip(max=254)
    save(path, picture)
    assert first(root).labels["normals"] == pytest.approx(before.labels["normals"], abs=0.01)
    save(path, np.zeros((SIZE, SIZE, 3), np.uint8))
    assert not first(root).labels["normals"].any(), "black is no surface"


def test_a_heat_map_may_have_8_bits(tmp_path: Path) -> None:
    root = plant(tmp_path)
    save(root / "edge_texture" / f"{FIRST}edge_texture.png", np.full((SIZE, SIZE), 51, np.uint8))
    assert first(root).labels["edges"] == pytest.approx(0.2)


def as_omnidata(root: Path) -> None:
    for modality in filter(Path.is_dir, list(root.iterdir())):
        if modality.name != "splits_taskonomy":
            modality.rename(root / "away")
            (root / "away").rename(_made(root / modality.name) / "taskonomy")


def by_building(root: Path) -> None:
    for folder in [path for path in root.glob("*/*") if path.is_dir()]:
        folder.rename(_made(root / folder.name) / folder.parent.name)
    for folder in root.iterdir():
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def with_old_names(root: Path) -> None:
    old = {
        "class_scene": "places",
        "segment_semantic": "segmentsemantic",
        "edge_texture": "edge2d",
        "keypoints2d": "keypoint2d",
        "depth_zbuffer": "depth",
    }
    for folder, name in old.items():
        for path in [path for path in (root / folder).rglob("*") if path.is_file()]:
            path.rename(path.with_name(f"{path.stem.partition('_domain_')[0]}_domain_{name}{path.suffix}"))
        (root / folder).rename(root / name)


def without_endings(root: Path) -> None:
    for path in [path for path in root.rglob("point_*") if path.is_file()]:
        path.rename(path.with_name(f"{path.stem.partition('_domain_')[0]}{path.suffix}"))


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("change", [as_omnidata, by_building, with_old_names, without_endings])
def test_other_trees_and_names_are_read_alike(change: Callable[[Path], None], tmp_path: Path) -> None:
    source = open_at("taskonomy", plant(tmp_path / "before"))
    change(plant(tmp_path / "after"))
    other = open_at("taskonomy", tmp_path / "after")
    assert other.columns() == source.columns()
    for left, right in zip(source.rows(), other.rows(), strict=True):
        assert (left.id, left.group, left.split) == (right.id, right.group, right.split)
        assert np.array_equal(source.load(left).image, other.load(right).image)
        assert alike(source.load(left), other.load(right))
        assert all(label is not None for label in other.load(right).labels.values())


def test_what_is_missing_is_not_labelled(tmp_path: Path) -> None:
    root = plant(tmp_path)
    (root / "keypoints2d" / f"{FIRST}keypoints2d.png").unlink()
    assert first(root).labels["keypoints"] is None
    shutil.rmtree(root / "keypoints2d")
    shutil.rmtree(root / "normal")
    source = open_at("taskonomy", root)
    assert list(source.columns()) == ["scene", "segmentation", "edges", "depth"]
    assert source.load(source.rows()[0]).labels.keys() == source.columns().keys()


def test_the_split_is_that_of_the_building(tmp_path: Path) -> None:
    rows = open_at("taskonomy", plant(tmp_path)).rows()
    assert {row.group: row.split for row in rows} == BUILDINGS
    shutil.rmtree(tmp_path / "splits_taskonomy")
    rows = open_at("taskonomy", tmp_path).rows()
    assert {row.split for row in rows} == {None}
    assert {row.group for row in rows} == set(BUILDINGS)


def test_the_smallest_list_that_names_all_buildings_counts(tmp_path: Path) -> None:
    root = plant(tmp_path)
    lists = root / "splits_taskonomy"
    shutil.copytree(root / "rgb/allensville", root / "rgb/adairsville")
    (lists / "train_val_test_medium.csv").write_text(
        (lists / "train_val_test_medium.csv").read_text().replace("allensville,1,0,0", "allensville,0,0,1")
    )
    splits = {row.group: row.split for row in open_at("taskonomy", root).rows()}
    assert splits == {**BUILDINGS, "allensville": "test", "adairsville": "train"}
    (lists / "train_val_test_medium.csv").unlink()
    (lists / "train_val_test_tiny.csv").rename(root / "train_val_test_tiny.csv")
    rows = open_at("taskonomy", root).rows()
    assert {row.group: row.split for row in rows} == BUILDINGS, "a building in no list is left alone"
    assert len(rows) == sum(COUNTS[split] for split in BUILDINGS.values())


def test_a_split_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (plant(tmp_path) / "splits_taskonomy/train_val_test_tiny.csv").write_text("building,split\nihlen,test\n")
    with pytest.raises(ValueError, match=r"tiny.csv: expected a header with id, train, val and test"):
        open_at("taskonomy", tmp_path).rows()


def test_scenes_are_named_by_places_list(tmp_path: Path) -> None:
    root = plant(tmp_path)
    assert open_at("taskonomy", root).columns()["scene"].classes[364] == "364"
    path = root / "categories_places365.txt"
    path.write_text("".join(f"/a/room_{number} {number}\n" for number in range(365)))
    assert open_at("taskonomy", root).columns()["scene"].classes[7] == "room_7"
    places365.plant(tmp_path / "places")
    shutil.copy(tmp_path / "places/categories_places365.txt", path)
    with pytest.raises(ValueError, match=r"categories_places365.txt: 4 classes, but 365 are expected"):
        open_at("taskonomy", root).columns()


def test_a_folder_without_labels_or_images_is_refused(tmp_path: Path) -> None:
    root = plant(tmp_path)
    for folder in root.iterdir():
        if folder.name not in ("rgb", "splits_taskonomy"):
            shutil.rmtree(folder)
    with pytest.raises(ValueError, match="holds images and no labels, none of scene, segmentation"):
        open_at("taskonomy", root).columns()
    shutil.rmtree(root / "rgb")
    with pytest.raises(ValueError, match=r"holds no folders of images; it should hold rgb/<building>"):
        open_at("taskonomy", root).rows()


def big_depth(path: Path) -> None:
    save(path, np.ones((5, 7), np.uint16))


def class_18(path: Path) -> None:
    save(path, np.full((SIZE, SIZE), 18, np.uint8))


def two_scores(path: Path) -> None:
    np.save(path, np.ones(2, np.float32))


def code(path: Path) -> None:
    np.save(path, np.array([print], dtype=object), allow_pickle=True)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


FAULTS = [
    ("depth_zbuffer", "depth_zbuffer.png", big_depth, "7x5 pixels, but its image has 32x32"),
    ("segment_semantic", "segmentsemantic.png", class_18, "a pixel is 18, but 0 to 17 are expected"),
    ("class_scene", "class_places.npy", two_scores, r"an array \[2\], but 365 finite scores"),
    ("class_scene", "class_places.npy", code, "not an array of numpy"),
    ("class_scene", "class_places.npy", cut, "not an array of numpy, or cut off"),
    ("normal", "normal.png", cut, "truncated"),
    ("edge_texture", "edge_texture.png", cut, "truncated"),
]


@pytest.mark.parametrize(("folder", "ending", "damage", "message"), FAULTS)
def test_a_bad_label_is_named(
    folder: str, ending: str, damage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    root = plant(tmp_path)
    damage(root / folder / f"{FIRST}{ending}")
    with pytest.raises(BadExample, match=rf"{FIRST}{ending}: .*{message}"):
        first(root)
