"""The readers of real layouts: what they make of small trees of files, of broken ones, and of the real sets."""

import os
import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.io
from PIL import Image

from models.spec import IGNORE
from pipeline.datasets._normals import CENTRE, FOCAL, fit_planes, normals_from_depth
from pipeline.datasets.base import BadExample, Source, SourceSettings
from pipeline.datasets.celeba import CelebA
from pipeline.datasets.fashion import HEADER, LABELS, Fashion
from pipeline.datasets.files import read_rgb
from pipeline.datasets.folders import Folders
from pipeline.datasets.gtsrb import GTSRB
from pipeline.datasets.manifest import Manifest
from pipeline.datasets.nyuv2 import CLASSES_13, CLASSES_39, SEAM, TO_13, NYUv2, close_seams, region_edges
from pipeline.datasets.omniglot import Omniglot
from pipeline.preparing import assign_splits

SIZE = (24, 32)


def settings(root: Path | None, images: int | None = None, size: tuple[int, int] = SIZE) -> SourceSettings:
    return SourceSettings(root=root, images=images, seed=3, size=size)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def noise(seed: int, shape: tuple[int, ...] = (12, 16, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def fashion_tree(folder: Path) -> Path:
    lines = [
        ",".join((*HEADER, "productDisplayName")),
        "11,Men,Apparel,Topwear,Shirts,Blue,Fall,2011,Casual,Turtle Men Shirt",
        "12,Women,Apparel,Topwear,Tops,,Summer,2012.0,,Tops, red, and blue",
        '13,Men,Accessories,Watches,Watches,Black,Winter,2016,NA,"bare quote',
        "14,Women,Apparel,Topwear,Tops,Red,Summer,2012,Sports,copy of 12",
    ]
    for number in (11, 12, 13):
        save(folder / f"images/{number}.jpg", noise(number, (12, 16) if number == 13 else (12, 16, 3)))
    (folder / "images/14.jpg").write_bytes((folder / "images/12.jpg").read_bytes())
    (folder / "styles.csv").write_text("\n".join(lines) + "\n")
    return folder


def nyu_tree(folder: Path) -> Path:
    for stem in range(4):
        label = np.zeros((48, 64), np.uint8)
        label[:, 32:] = 1 + stem
        label[:8] = 39
        depth = np.full((48, 64), 51 + stem, np.uint8)
        depth[:2] = 0
        save(folder / f"nyu_images/{stem}.jpg", noise(stem, (48, 64, 3)))
        save(folder / f"nyu_labels40/{stem}.png", label)
        save(folder / f"nyu_depths/{stem}.png", depth)
    (folder / "official_train.txt").write_text("0\n1\n3\n")
    (folder / "official_test.txt").write_text("2\n")
    return folder


NAMES = ("5_o_Clock_Shadow", "Bald", "Young")


def celeba_tree(folder: Path) -> Path:
    for number in range(1, 5):
        save(folder / f"img_align_celeba/{number:06d}.jpg", noise(number))
    rows = [
        f"{number:06d}.jpg {' '.join('1' if number >> bit & 1 else '-1' for bit in range(3))}" for number in range(1, 5)
    ]
    (folder / "list_attr_celeba.txt").write_text("\n".join(["4", " ".join(NAMES), *rows]) + "\n")
    return folder


def celeba_list(folder: Path, name: str, *words: str) -> None:
    (folder / name).write_text("".join(f"{number:06d}.jpg {word}\n" for number, word in enumerate(words, start=1)))


def manifest_tree(folder: Path, header: str = "image,split,group,species:class,mask:mask:wall|floor") -> Path:
    for number in (1, 2, 3):
        save(folder / f"img/{number}.jpg", noise(number))
        save(folder / f"masks/{number}.png", noise(number, (12, 16)) % 2)
    rows = ["img/1.jpg,train,a,cat,masks/1.png", "img/2.jpg,test,,dog,", "img/3.jpg,,,,masks/3.png"]
    return write_manifest(folder, [header, *rows])


def write_manifest(folder: Path, lines: Sequence[str]) -> Path:
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def folders_tree(folder: Path) -> Path:
    for number, file in enumerate(("ash/1.png", "ash/2.PNG", "ash/3.jpg", "elm/1.png", "oak/1.png")):
        save(folder / file, noise(number))
    (folder / "ash/notes.txt").write_text("no image")
    save(folder / "ash/._1.png", noise(9))
    return folder


def split_folders_tree(folder: Path, *splits: str) -> Path:
    for number, split in enumerate(splits):
        for place, name in enumerate(("ash", "elm", "train")):
            save(folder / split / name / "1.png", noise(10 * number + place))
    return folder


def gtsrb_tree(folder: Path) -> Path:
    for number, file in enumerate(("00000/00000_00004", "00000/00000_00014", "00000/00001_00004", "00042/00000_00004")):
        save(folder / f"GTSRB/Training/{file}.ppm", noise(number))
    (folder / "GTSRB/Training/00042/GT-00042.csv").write_text("Filename;ClassId\n00000_00004.ppm;42\n")
    for number in (0, 8):
        save(folder / f"GTSRB/Final_Test/Images/{number:05}.ppm", noise(20 + number))
    lines = ["Filename;Width;Height;ClassId", "00008.ppm;53;54;7", "00000.ppm;53;54;42"]
    (folder / "GT-final_test.csv").write_text("\n".join(lines) + "\n")
    return folder


def omniglot_tree(folder: Path) -> Path:
    for number, name in enumerate(("Greek/character01", "Greek/character02", "Tibetan/character01")):
        for drawer in (1, 12, 13, 15, 16, 20):
            path = folder / name / f"{900 + number:04}_{drawer:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(100 * number + drawer, (105, 105)) > 50).save(path)
    return folder


class Layout(NamedTuple):
    reader: type[Source]
    tree: Callable[[Path], Path]
    first: str  # the first row's image
    by_content: bool = True  # its groups are exact copies

    def source(self, folder: Path) -> Source:
        return self.reader(settings(self.tree(folder)))


LAYOUTS = {
    "fashion": Layout(Fashion, fashion_tree, "images/11.jpg"),
    "nyuv2": Layout(NYUv2, nyu_tree, "nyu_images/0.jpg"),
    "celeba": Layout(CelebA, celeba_tree, "img_align_celeba/000001.jpg"),
    "manifest": Layout(Manifest, manifest_tree, "img/1.jpg"),
    "folders": Layout(Folders, folders_tree, "ash/1.png"),
    "gtsrb": Layout(GTSRB, gtsrb_tree, "GTSRB/Training/00000/00000_00004.ppm", by_content=False),
    "omniglot": Layout(Omniglot, omniglot_tree, "Greek/character01/0900_01.png", by_content=False),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def assert_keeps_its_columns(source: Source) -> None:
    """Every example holds an image and, for every column and no other, None or a value that fits the layout."""
    columns = source.columns()
    for row in source.rows():
        example = source.load(row)
        assert example.image.dtype == np.uint8
        assert example.image.ndim == 3
        assert example.image.shape[2] == 3
        assert example.labels.keys() == columns.keys()
        for name, label in example.labels.items():
            column = columns[name]
            if label is None:
                continue
            if column.layout == "class":
                assert label in column.classes
            elif column.layout == "mask":
                assert label.dtype == np.uint8
                assert label.shape == example.image.shape[:2]
                assert set(np.unique(label)) <= {*range(len(column.classes)), IGNORE}
            elif column.layout == "field":
                assert label.shape == example.image.shape[:2]
                assert label.min() >= 0
                assert label.max() / column.scale < 2**16
            elif column.layout == "normals":
                assert label.shape == example.image.shape
                length = np.linalg.norm(label, axis=2)
                assert length[length > 0] == pytest.approx(1, abs=1e-6)


@layouts
def test_examples_fit_the_columns(layout: Layout, tmp_path: Path) -> None:
    source = layout.source(tmp_path)
    assert_keeps_its_columns(source)
    rows = source.rows()
    assert len({row.id for row in rows}) == len(rows)
    assert layout.first in rows[0].origin


@layouts
def test_a_used_source_is_picklable(layout: Layout, tmp_path: Path) -> None:
    source = layout.source(tmp_path)
    rows = source.rows()
    copy = pickle.loads(pickle.dumps(source))
    assert copy.rows() == rows
    assert np.array_equal(copy.load(rows[0]).image, source.load(rows[0]).image)


@layouts
def test_images_draws_some_rows_in_order(layout: Layout, tmp_path: Path) -> None:
    root = layout.tree(tmp_path)
    everything = layout.reader(settings(root)).rows()
    two = layout.reader(settings(root, images=2)).rows()
    assert [row for row in everything if row in two] == two
    assert len(two) == 2
    assert layout.reader(settings(root, images=2)).rows() == two
    assert layout.reader(settings(root, images=1000)).rows() == everything


@layouts
def test_a_missing_root_is_named(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        layout.reader(settings(tmp_path / "nowhere")).rows()
    with pytest.raises(ValueError, match="no root is set"):
        layout.reader(settings(None)).rows()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def text(path: Path) -> None:
    path.write_text("an error page")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def missing(path: Path) -> None:
    path.unlink()


DAMAGES = [(truncated, "truncated"), (text, "not an image"), (empty, "not an image"), (missing, "not found")]


@layouts
@pytest.mark.parametrize(("damage", "why"), DAMAGES)
def test_a_bad_image_is_named_when_it_is_loaded(
    layout: Layout, damage: Callable[[Path], None], why: str, tmp_path: Path
) -> None:
    source = layout.source(tmp_path)
    first, *others = source.rows()
    damage(tmp_path / layout.first)
    assert [row.id for row in source.rows()][-len(others) :] == [row.id for row in others]
    with pytest.raises(BadExample, match=rf"{layout.first}.*{why}"):
        source.load(first)


@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if layout.by_content])
def test_copies_of_an_image_are_one_group(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    source = layout.source(tmp_path)
    before = {row.group for row in source.rows()}
    _, second, third, *_ = sorted((tmp_path / layout.first).parent.iterdir())
    third.write_bytes(second.read_bytes())
    after = {row.group for row in source.rows()}
    assert after < before
    assert len(after) == len(before) - 1


# Fashion


def test_fashion_reads_the_first_nine_fields(tmp_path: Path) -> None:
    source = Fashion(settings(fashion_tree(tmp_path)))
    labels = {row.id: source.load(row).labels for row in source.rows()}
    assert tuple(source.columns()) == LABELS
    assert labels["12"]["usage"] is None
    assert labels["12"]["baseColour"] is None
    assert labels["13"]["usage"] is None
    assert source.columns()["usage"].classes == ("Casual", "Sports")
    assert source.columns()["year"].classes == ("2011", "2012", "2016")
    groups = {row.id: row.group for row in source.rows()}
    assert groups["12"] == groups["14"]
    assert len(set(groups.values())) == 3
    grey = source.load(source.rows()[2]).image
    assert np.array_equal(grey[..., 0], grey[..., 2])


@pytest.mark.parametrize("name", ["fashion", "nyuv2", "celeba", "gtsrb"])
def test_the_set_may_stand_in_a_subfolder(name: str, tmp_path: Path) -> None:
    reader, tree, *_ = LAYOUTS[name]
    tree(tmp_path / "unpacked" / "set")
    assert reader(settings(tmp_path / "unpacked")).rows() == reader(settings(tmp_path / "unpacked" / "set")).rows()
    with pytest.raises(ValueError, match=f"{tmp_path} lacks .* should hold"):
        reader(settings(tmp_path)).rows()


@pytest.mark.parametrize(
    ("line", "message"),
    [("15,Men,Apparel", "row 5: 3 fields"), ("11,Men,Apparel,Topwear,Tops,Red,Fall,2012,Casual,x", "row 5: the id 11")],
)
def test_fashion_refuses_a_broken_csv(line: str, message: str, tmp_path: Path) -> None:
    with (fashion_tree(tmp_path) / "styles.csv").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        Fashion(settings(tmp_path)).rows()


def test_fashion_refuses_another_header(tmp_path: Path) -> None:
    (fashion_tree(tmp_path) / "styles.csv").write_text("id,colour\n1,red\n")
    with pytest.raises(ValueError, match=r"styles.csv.*header"):
        Fashion(settings(tmp_path)).columns()


# NYUv2


def test_nyuv2_follows_the_official_split(tmp_path: Path) -> None:
    rows = NYUv2(settings(nyu_tree(tmp_path))).rows()
    assert [(row.id, row.split) for row in rows] == [("0", "train"), ("1", "train"), ("3", "train"), ("2", "test")]


def test_nyuv2_labels_are_those_of_the_files_at_the_stored_size(tmp_path: Path) -> None:
    source = NYUv2(settings(nyu_tree(tmp_path)))
    example = source.load(source.rows()[1])
    assert example.image.shape == (*SIZE, 3)
    fine, coarse = example.labels["segmentation40"], example.labels["segmentation"]
    assert (fine[:4] == IGNORE).all()
    assert (coarse[:4] == IGNORE).all()
    assert {CLASSES_39[index] for index in np.unique(fine[4:])} == {"wall", "cabinet"}
    assert {CLASSES_13[index] for index in np.unique(coarse[4:])} == {"wall", "furniture"}
    assert example.labels["depth"][0, 0] == 0
    assert example.labels["depth"][1:] == pytest.approx(52 / 25.5)
    edges = example.labels["edges"]
    assert (edges[:4] == IGNORE).all()
    assert (edges[4:, 15:17] == 1).all()
    assert (edges[5:, :15] == 0).all()


def edges_by_definition(label: np.ndarray) -> np.ndarray:
    height, width = label.shape
    edges = np.zeros_like(label)
    for y, x in np.ndindex(height, width):
        around = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        values = [int(label[i, j]) for i, j in around if 0 <= i < height and 0 <= j < width]
        if label[y, x] == IGNORE:
            edges[y, x] = IGNORE
        elif any(value not in (label[y, x], IGNORE) for value in values):
            edges[y, x] = 1
        elif IGNORE in values:
            edges[y, x] = IGNORE
    return edges


@pytest.mark.parametrize("seed", range(5))
def test_region_edges_follow_their_definition(seed: int) -> None:
    values = np.array([0, 0, 0, 0, 1, 2, IGNORE], np.uint8)
    label = values[np.random.default_rng(seed).integers(0, len(values), (9, 13))]
    assert np.array_equal(region_edges(label), edges_by_definition(label))


@pytest.mark.parametrize("width", [1, SEAM - 1, SEAM, SEAM + 1, 3 * SEAM])
@pytest.mark.parametrize("axis", [0, 1])
def test_seams_are_closed_and_regions_left_alone(width: int, axis: int) -> None:
    label = np.zeros((60, 60), np.uint8)
    label[30:] = 7
    label[30 : 30 + width] = IGNORE
    closed = close_seams(label if axis == 0 else label.T)
    closed = closed if axis == 0 else closed.T
    labelled = label != IGNORE
    assert np.array_equal(closed[labelled], label[labelled])
    if width > SEAM:
        assert np.array_equal(closed, label)
    else:
        assert set(np.unique(closed)) == {0, 7}
        assert (np.diff(closed.astype(int), axis=0) != 0).sum(axis=0).tolist() == [1] * 60


def test_nyuv2_refuses_labels_of_another_layout(tmp_path: Path) -> None:
    source = NYUv2(settings(nyu_tree(tmp_path)))
    rows = source.rows()
    save(tmp_path / "nyu_labels40/0.png", np.full((48, 64), 40, np.uint8))
    save(tmp_path / "nyu_depths/1.png", np.full((24, 64), 40, np.uint8))
    with pytest.raises(BadExample, match=r"nyu_labels40/0.png.*3072 pixels.*40"):
        source.load(rows[0])
    with pytest.raises(BadExample, match=r"nyu_depths/1.png: 64x24 pixels, but its image has 64x48"):
        source.load(rows[1])


def look(size: tuple[int, int]) -> np.ndarray:
    """The ray through each pixel of an image of 480 x 640: (right, up, out of the scene), its depth 1."""
    y, x = np.mgrid[: size[0], : size[1]]
    right = (x + 0.5 - CENTRE[0] * size[1]) / (FOCAL[0] * size[1])
    down = (y + 0.5 - CENTRE[1] * size[0]) / (FOCAL[1] * size[0])
    return np.stack([right, -down, -np.ones(size)], axis=-1)


def depth_of(planes: Sequence[tuple[Sequence[float], float]], step: float) -> tuple[np.ndarray, np.ndarray]:
    """Planes (normal, distance) -> the depth [480, 640] of the nearest, in whole steps, and the normal seen there."""
    normals = np.array([np.array(normal) / np.linalg.norm(normal) for normal, _ in planes])
    inverse = np.stack([-(look((480, 640)) @ n) / d for n, (_, d) in zip(normals, planes, strict=True)])
    return np.round(1 / (inverse.max(0) * step)) * step, normals[inverse.argmax(0)]


def apart(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The angles in degrees between the normals of the labelled pixels."""
    found, wanted = found[labelled := found.any(-1)].astype(float), wanted[labelled]
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(found, wanted), axis=-1), (found * wanted).sum(-1)))


@pytest.mark.parametrize("normal", [(0, 0, 1), (0.5, 0, 1), (-0.5, 0.3, 1), (0, 1, 0.4), (0, -1, 0.3)])
def test_the_normals_of_one_plane(normal: tuple[float, float, float]) -> None:
    """Exact from exact depth, within some degrees from steps of 4 cm, as far as 4 m."""
    for step, worst, mean in ((1e-9, 0.01, 0.001), (1 / 25.5, 10, 2)):
        depth, wanted = depth_of([(normal, 1.5)], step)
        depth[depth > 4] = 0
        found = normals_from_depth(depth, (48, 64), step, mirrored=False)
        assert found.any(-1).mean() > 0.95 * (depth > 0).mean()
        error = apart(found, wanted[5::10, 5::10])
        assert error.max() < worst
        assert error.mean() < mean


def test_the_normals_of_a_room() -> None:
    """Floor, ceiling, two side walls and a far wall, all parallel or at right angles."""
    planes = [((0, 1, 0), 1.2), ((0, -1, 0), 1.3), ((1, 0, 0), 1.5), ((-1, 0, 0), 1.8), ((0, 0, 1), 3.5)]
    depth, wanted = depth_of(planes, 1 / 25.5)
    found = normals_from_depth(depth, (96, 128), 1 / 25.5, mirrored=False)
    error = apart(found, wanted[2::5, 2::5])
    assert found.any(-1).mean() > 0.95
    assert np.median(error) < 2
    assert (error < 15).mean() > 0.9


def test_normals_stop_at_an_edge_and_are_right_up_to_it() -> None:
    """A board one metre before a wall: no plane through both, and nearly every pixel keeps its own."""
    depth, wanted = depth_of([((0.4, 0, 1), 3.0)], 1e-9)
    board = np.zeros(depth.shape, bool)
    board[100:300, 200:400] = True
    near, turned = depth_of([((-0.4, 0, 1), 1.5)], 1e-9)
    depth, wanted = np.where(board, near, depth), np.where(board[..., None], turned, wanted)
    found = normals_from_depth(depth, (96, 128), 1e-9, mirrored=False)
    assert apart(found, wanted[2::5, 2::5]).max() < 1
    assert found.any(-1).mean() > 0.95


def test_there_are_no_normals_without_depth() -> None:
    depth, _ = depth_of([((0, 0, 1), 2.0)], 1e-9)
    depth[:, :320] = 0
    depth[202, 102] = 2.0
    found = normals_from_depth(depth, (96, 128), 1e-9, mirrored=False)
    assert not found[:, :64].any()
    assert found[:, 64:].any(-1).all()
    assert not normals_from_depth(np.zeros((48, 64)), (48, 64), 0.04, mirrored=True).any()


def test_a_mirrored_scene_has_mirrored_normals() -> None:
    depth, _ = depth_of([((0.5, 0.2, 1), 2.0)], 1e-9)
    found = normals_from_depth(depth, (96, 128), 1e-9, mirrored=False)
    mirrored = normals_from_depth(depth[:, ::-1], (96, 128), 1e-9, mirrored=True)
    np.testing.assert_allclose(mirrored, found[:, ::-1] * [-1, 1, 1], atol=1e-6)


def test_planes_are_those_of_least_squares() -> None:
    draw = np.random.default_rng(0)
    inverse = draw.uniform(0.2, 1, (12, 15)) * (draw.random((12, 15)) < 0.92)
    x, y, radius = np.linspace(-0.6, 0.5, 15), np.linspace(-0.4, 0.4, 12), 2
    planes, rms = fit_planes(inverse, x, y, radius)
    for row, column in np.ndindex(inverse.shape):
        rows, columns = (
            slice(max(0, row - radius), row + radius + 1),
            slice(max(0, column - radius), column + radius + 1),
        )
        seen = inverse[rows, columns] > 0
        if seen.sum() < 0.9 * 25:
            assert rms[row, column] == np.inf
            continue
        across, down = (part[seen] for part in np.meshgrid(x[columns], y[rows]))
        system = np.column_stack([across, down, np.ones(seen.sum())])
        wanted, *_ = np.linalg.lstsq(system, inverse[rows, columns][seen])
        assert [plane[row, column] for plane in planes] == pytest.approx(wanted, abs=1e-9)
        left_over = inverse[rows, columns][seen] - system @ wanted
        assert rms[row, column] == pytest.approx(np.sqrt(np.mean(left_over**2)), abs=1e-9)


def test_nyuv2_has_normals_where_the_depth_camera_saw(tmp_path: Path) -> None:
    """The tree's depth is a wall that faces the camera; the frame around the view is filled in, not seen."""
    source = NYUv2(settings(nyu_tree(tmp_path), size=(48, 64)))
    normals = source.load(source.rows()[0]).labels["normals"]
    seen = np.zeros((48, 64), bool)
    seen[5:47, 4:60] = True
    assert np.array_equal(normals.any(-1), seen)
    np.testing.assert_allclose(normals[seen], np.broadcast_to([0, 0, 1], normals[seen].shape), atol=1e-6)


# CelebA


def test_celeba_attributes_are_columns(tmp_path: Path) -> None:
    source = CelebA(settings(celeba_tree(tmp_path)))
    assert tuple(source.columns()) == NAMES
    assert {(column.layout, column.classes) for column in source.columns().values()} == {("class", ("no", "yes"))}
    labels = [source.load(row).labels for row in source.rows()]
    assert [[label[name] for label in labels] for name in NAMES] == [
        ["yes", "no", "yes", "no"],
        ["no", "yes", "yes", "no"],
        ["no", "no", "no", "yes"],
    ]


def test_celeba_groups_are_people(tmp_path: Path) -> None:
    celeba_list(celeba_tree(tmp_path), "identity_CelebA.txt", "7", "3", "7", "5")
    assert [row.group for row in CelebA(settings(tmp_path)).rows()] == ["7", "3", "7", "5"]


@pytest.mark.parametrize(
    ("parts", "splits"), [("0120", ["train", "val", "test", "train"]), ("0000", [None] * 4), ("2222", [None] * 4)]
)
def test_celeba_partition_counts_where_it_parts(parts: str, splits: list[str | None], tmp_path: Path) -> None:
    celeba_list(celeba_tree(tmp_path), "list_eval_partition.txt", *parts)
    assert [row.split for row in CelebA(settings(tmp_path)).rows()] == splits
    assert {row.split for row in CelebA(settings(tmp_path, images=1)).rows()} <= set(splits)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list_attr_celeba.txt", "", "expected the number of images"),
        ("list_attr_celeba.txt", "1\nBald Young\n", "expected the number of images"),
        ("list_attr_celeba.txt", "1\nBald Young\n000001.jpg 1\n", "row 1: 1 values, but 2 attributes"),
        ("list_attr_celeba.txt", "1\nBald Young\n000001.jpg 1 2\n", "row 1: Young is 2, but 1"),
        ("list_attr_celeba.txt", "2\nBald\n000001.jpg 1\n000001.jpg -1\n", "row 2: the image 000001.jpg stands"),
        ("list_attr_celeba.txt", "3\nBald\n000001.jpg 1\n", "says 3 images, but 1 follow"),
        ("identity_CelebA.txt", "000001.jpg 5\n000002.jpg\n", "row 2: '000002.jpg', but an image and one number"),
        ("identity_CelebA.txt", "000001.jpg 5\n000002.jpg 5\n", "no line for 000003.jpg and 1 more"),
        ("list_eval_partition.txt", "000001.jpg 0\n000002.jpg 3\n000003.jpg 0\n000004.jpg 0\n", "000002.jpg is '3'"),
    ],
)
def test_celeba_refuses_a_broken_list(name: str, text: str, message: str, tmp_path: Path) -> None:
    (celeba_tree(tmp_path) / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        CelebA(settings(tmp_path)).rows()


# Image folders


def test_folders_are_classes(tmp_path: Path) -> None:
    source = Folders(settings(folders_tree(tmp_path)))
    assert source.columns()["label"].classes == ("ash", "elm", "oak")
    labels = {row.id: source.load(row).labels for row in source.rows()}
    assert [(name, label["label"]) for name, label in labels.items()] == [
        ("ash/1.png", "ash"),
        ("ash/2.PNG", "ash"),
        ("ash/3.jpg", "ash"),
        ("elm/1.png", "elm"),
        ("oak/1.png", "oak"),
    ]
    assert {row.split for row in source.rows()} == {None}


@pytest.mark.parametrize("splits", [("train",), ("train", "test"), ("train", "val"), ("train", "val", "test")])
def test_folders_of_splits(splits: tuple[str, ...], tmp_path: Path) -> None:
    """A class may be called train, too. What there is no folder for is left to prepare."""
    source = Folders(settings(split_folders_tree(tmp_path, *splits)))
    assert source.columns()["label"].classes == ("ash", "elm", "train")
    rows = source.rows()
    assert [(row.split, row.id) for row in rows] == [
        (split, f"{split}/{name}/1.png") for split in splits for name in ("ash", "elm", "train")
    ]
    assert [source.load(row).labels["label"] for row in rows] == ["ash", "elm", "train"] * len(splits)
    drawn = assign_splits(rows, val=0.5, test=0.5, seed=0)
    assert all(len(drawn[split]) == 3 for split in splits if split != "train")


def test_a_class_may_have_no_test_image(tmp_path: Path) -> None:
    (split_folders_tree(tmp_path, "train", "test") / "test/ash/1.png").unlink()
    source = Folders(settings(tmp_path))
    assert len(source.rows()) == 5
    assert source.columns()["label"].classes == ("ash", "elm", "train")


def test_folders_called_train_and_bus_are_classes(tmp_path: Path) -> None:
    for name in ("train", "bus"):
        save(tmp_path / name / "1.png", noise(1))
    assert Folders(settings(tmp_path)).columns()["label"].classes == ("bus", "train")


def refused(root: Path) -> str:
    with pytest.raises(ValueError, match=r"^folders: ") as caught:
        Folders(settings(root)).rows()
    return str(caught.value)


def test_folders_refuse_what_is_no_class(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "empty/train").mkdir(parents=True)
    (folders_tree(tmp_path / "flat") / "yew").mkdir()
    folders_tree(tmp_path / "outer/set")
    should = "should hold one folder of images a class, or train, val and test with such folders in them"
    assert refused(tmp_path / "bare") == f"folders: {tmp_path}/bare holds no folders; it {should}"
    assert refused(tmp_path / "empty") == f"folders: {tmp_path}/empty/train holds no folders; it {should}"
    assert refused(tmp_path / "flat") == f"folders: {tmp_path}/flat/yew holds no images; {tmp_path}/flat {should}"
    assert refused(tmp_path / "outer") == f"folders: {tmp_path}/outer/set holds no images; {tmp_path}/outer {should}"


@pytest.mark.parametrize("split", ["val", "test"])
def test_folders_refuse_a_class_that_is_never_trained(split: str, tmp_path: Path) -> None:
    save(split_folders_tree(tmp_path, "train", "val", "test") / split / "yew/1.png", noise(1))
    assert refused(tmp_path) == f"folders: the class 'yew' of {tmp_path / split} has no folder in {tmp_path / 'train'}"


# GTSRB


def test_gtsrb_follows_the_official_split(tmp_path: Path) -> None:
    source = GTSRB(settings(gtsrb_tree(tmp_path)))
    assert source.columns()["label"].classes == tuple(f"{number:02}" for number in range(43))
    rows = [(row.split, row.id.rsplit("/", 1)[1], source.load(row).labels["label"]) for row in source.rows()]
    assert rows == [
        ("train", "00000_00004.ppm", "00"),
        ("train", "00000_00014.ppm", "00"),
        ("train", "00001_00004.ppm", "00"),
        ("train", "00000_00004.ppm", "42"),
        ("test", "00008.ppm", "07"),
        ("test", "00000.ppm", "42"),
    ]


def test_gtsrb_groups_are_physical_signs(tmp_path: Path) -> None:
    first, again, other, other_class, *tests = [row.group for row in GTSRB(settings(gtsrb_tree(tmp_path))).rows()]
    assert first == again
    assert len({first, other, other_class, *tests}) == 5


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ("", "expected a header"),
        ("Filename;Width\n00000.ppm;53\n", "expected a header"),
        ("Filename,ClassId\n00000.ppm,1\n", "expected a header"),
        ("Filename;ClassId\n00000.ppm;43\n", "row 1: the class of 00000.ppm is '43', but 0 to 42"),
        ("Filename;ClassId\n00000.ppm;1\n00008.ppm\n", "row 2: the class of 00008.ppm is ''"),
        ("Filename;ClassId\n00000.ppm;1\n00000.ppm;1\n", "row 2: the image 00000.ppm stands there twice"),
    ],
)
def test_gtsrb_refuses_broken_answers(answers: str, message: str, tmp_path: Path) -> None:
    (gtsrb_tree(tmp_path) / "GT-final_test.csv").write_text(answers)
    with pytest.raises(ValueError, match=f"GT-final_test.csv.*{message}"):
        GTSRB(settings(tmp_path)).rows()


@pytest.mark.parametrize(
    ("file", "message"),
    [("00043/00000_00001.ppm", "00043: .* the number of a class"), ("00001/7.ppm", "7.ppm: .* <track>_<frame>")],
)
def test_gtsrb_refuses_other_names(file: str, message: str, tmp_path: Path) -> None:
    save(gtsrb_tree(tmp_path) / "GTSRB/Training" / file, noise(1))
    with pytest.raises(ValueError, match=message):
        GTSRB(settings(tmp_path)).rows()


def test_gtsrb_without_training_images(tmp_path: Path) -> None:
    for path in gtsrb_tree(tmp_path).glob("GTSRB/Training/*/*.ppm"):
        path.unlink()
    with pytest.raises(ValueError, match="Training holds no images"):
        GTSRB(settings(tmp_path)).rows()


# Omniglot


def test_omniglot_labels_characters_and_alphabets(tmp_path: Path) -> None:
    source = Omniglot(settings(omniglot_tree(tmp_path)))
    characters = ("Greek/character01", "Greek/character02", "Tibetan/character01")
    assert {name: column.classes for name, column in source.columns().items()} == {
        "label": characters,
        "alphabet": ("Greek", "Tibetan"),
    }
    rows = source.rows()
    assert [source.load(row).labels["label"] for row in rows] == [name for name in characters for _ in range(6)]
    assert [source.load(row).labels["alphabet"] for row in rows] == ["Greek"] * 12 + ["Tibetan"] * 6


def test_omniglot_is_split_by_drawer(tmp_path: Path) -> None:
    rows = Omniglot(settings(omniglot_tree(tmp_path))).rows()
    assert [row.split for row in rows[:6]] == ["train", "train", "val", "val", "test", "test"]
    drawers = [{row.group for row in part} for part in assign_splits(rows, val=0.15, test=0.15, seed=0).values()]
    assert drawers == [{"01", "12"}, {"13", "15"}, {"16", "20"}]


def test_omniglot_ink_is_black_on_white(tmp_path: Path) -> None:
    source = Omniglot(settings(omniglot_tree(tmp_path)))
    image = source.load(source.rows()[0]).image
    paper = noise(1, (105, 105)) > 50
    assert np.array_equal(image, np.where(paper, 255, 0)[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("name", ["1.png", "0900_00.png", "0900_21.png", "0900_x.png"])
def test_omniglot_needs_a_drawer(name: str, tmp_path: Path) -> None:
    Image.new("1", (105, 105)).save(omniglot_tree(tmp_path) / "Greek/character01" / name)
    with pytest.raises(ValueError, match=rf"{name} names no drawer"):
        Omniglot(settings(tmp_path)).rows()


@pytest.mark.parametrize("inner", ["alphabet", "set/alphabet/character"])
def test_omniglot_refuses_another_depth(inner: str, tmp_path: Path) -> None:
    (tmp_path / inner).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"holds no .*should hold <alphabet>/<character>"):
        Omniglot(settings(tmp_path)).rows()


# Manifest


def test_manifest_reads_every_layout(tmp_path: Path) -> None:
    save(tmp_path / "a.png", noise(1))
    save(tmp_path / "mask.png", np.tile(np.array([0, 1, 2, IGNORE], np.uint8), (12, 4)))
    save(tmp_path / "depth.png", np.full((12, 16), 3000, np.uint16))
    faces = np.zeros((12, 16, 3), np.uint8)
    faces[0, 0], faces[0, 1] = (128, 128, 255), (1, 128, 128)  # to the camera; to the left
    save(tmp_path / "faces.png", faces)
    boxes, points = [[1, 2, 3, 4.5, 2], [0, 0, 1, 1, 0]], [[0.5, 0.5, 1]]
    cells = {
        "image": "a.png",
        "species": "cat",
        "mood:class:good|bad": "bad",
        "mask:mask": "mask.png",
        "depth:field:0.001": "depth.png",
        "parts:instances": "mask.png",
        "faces:normals": "faces.png",
        "points:points:tip|root": points,
        "boxes:boxes": boxes,
        "attr.young:flags": 1,
        "attr.male:flags": None,
        "attr.hat:flags": False,
    }
    save(tmp_path / "b.png", noise(2))
    table = pyarrow.table({name: [cell, "b.png" if name == "image" else None] for name, cell in cells.items()})
    pyarrow.parquet.write_table(table, tmp_path / "m.parquet")
    source = Manifest(settings(tmp_path / "m.parquet"))
    columns, (full, bare) = source.columns(), source.rows()
    labels = source.load(full).labels
    layouts = ["class", "class", "mask", "field", "instances", "normals", "points", "boxes", "flags"]
    assert [column.layout for column in columns.values()] == layouts
    assert columns["mood"].classes == ("good", "bad")
    assert columns["mask"].classes == columns["boxes"].classes == ("0", "1", "2")
    assert columns["attr"].classes == ("young", "male", "hat")
    assert (columns["depth"].scale, columns["depth"].unit) == (0.001, "m")
    assert (labels["species"], labels["mood"], list(labels["attr"])) == ("cat", "bad", [1, -1, 0])
    assert labels["depth"] == pytest.approx(3.0)
    assert labels["faces"][0, :3].tolist() == [[0, 0, 1], [-1, 0, 0], [0, 0, 0]]
    assert labels["points"].tolist() == points
    assert labels["boxes"].tolist() == boxes
    assert np.array_equal(labels["mask"], labels["parts"])
    assert set(source.load(bare).labels.values()) == {None}
    assert_keeps_its_columns(source)


def test_manifest_splits_groups_and_origins(tmp_path: Path) -> None:
    rows = Manifest(settings(manifest_tree(tmp_path))).rows()
    assert [row.split for row in rows] == ["train", "test", None]
    assert rows[0].group == "a"
    assert len({row.group for row in rows}) == 3
    assert rows[1].origin == "manifest.csv row 2: img/2.jpg"


def test_manifest_csv_and_parquet_read_alike(tmp_path: Path) -> None:
    header = "image,boxes:boxes,flag.a:flags"
    save(tmp_path / "a.png", noise(1))
    save(tmp_path / "b.png", noise(2))
    write_manifest(tmp_path, [header, 'a.png,"[[1, 2, 3, 4, 0]]",1', "b.png,[],0"])
    table = {"image": ["a.png", "b.png"], "boxes:boxes": [[[1.0, 2, 3, 4, 0]], []], "flag.a:flags": [True, False]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "manifest.parquet")
    sources = [Manifest(settings(tmp_path / f"manifest.{kind}")) for kind in ("csv", "parquet")]
    first, second = ([source.load(row).labels for row in source.rows()] for source in sources)
    assert sources[0].columns() == sources[1].columns()
    for left, right in zip(first, second, strict=True):
        assert np.array_equal(left["boxes"], right["boxes"])
        assert left["boxes"].shape[1] == 5
        assert left["flag"] == right["flag"]


def test_manifest_says_where_it_looked_for_an_image(tmp_path: Path) -> None:
    source = Manifest(settings(write_manifest(tmp_path, ["image,kind", "img/017.jpg,a"])))
    (row,) = source.rows()
    with pytest.raises(BadExample, match=rf"^image img/017.jpg not found \(looked in {tmp_path}\)$"):
        source.load(row)


HEADERS = {
    "picture,kind": "no column 'image'",
    "image,kind,kind": "two columns are named 'kind'",
    "image,kind:class,kind:mask:a": "have one name",
    "image,kind:colour": "'colour': use one of class",
    "image,kind:flags": r"name.flag:flags",
    "image,kind:field:wide": "scale 'wide'",
    "image,kind:field:-1": "scale '-1'",
    "image,kind:instances:a": "takes no option",
    "id,image": "no label can be named 'id'",
    "image,kind:mask": "no mask can be read",
}


@pytest.mark.parametrize(("header", "message"), HEADERS.items(), ids=HEADERS)
def test_manifest_refuses_a_header(header: str, message: str, tmp_path: Path) -> None:
    path = write_manifest(tmp_path, [header, ",".join(["x"] * len(header.split(",")))])
    with pytest.raises(ValueError, match=rf"manifest.csv: .*{message}"):
        Manifest(settings(path)).columns()


def test_manifest_refuses_a_png_without_a_layout(tmp_path: Path) -> None:
    path = manifest_tree(tmp_path, "image,split,group,species,mask")
    with pytest.raises(ValueError, match=r"'mask' holds paths of \.png files: name its layout"):
        Manifest(settings(path)).columns()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["image,split", "a.png,train", "b.png,dev"], "manifest.csv row 2: split 'dev'"),
        (["image,split", "a.png"], "manifest.csv: row 1: 1 cells"),
        (["image,split"], "no rows"),
    ],
)
def test_manifest_refuses_rows(lines: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        Manifest(settings(write_manifest(tmp_path, lines))).rows()


CELLS = {
    "label:mask:a|b": (
        "three.png",
        r"three.png: 192 pixels are out of range, with values up to 3: label has 2 classes",
    ),
    "label:mask:a": ("colour.png", "colour.png: mode RGB, but one channel of 8-bit class ids"),
    "label:mask:a|b|c": ("small.png", "small.png: 4x4 pixels, but its image has 16x12"),
    "label:instances": ("none.png", "label none.png not found"),
    "label:field": ("colour.png", "mode RGB, but one channel of 8- or 16-bit"),
    "label:class:a|b": ("c", "'c' is none of a, b"),
    "label.x:flags": ("yes", "'yes' must be 0, 1 or empty"),
    "label:points": ("[[1 2]]", "no JSON list of points"),
    "label:boxes": ("[[1]]", "list of lists of 5 numbers"),
    "label:points:a": ('"[[1, 2, 1]]"', "whole number from 0 to 0"),
    "label:points:a|b": ('"[[NaN, 2, 1]]"', "not finite"),
}


@pytest.mark.parametrize(("header", "cell", "message"), [(header, *rest) for header, rest in CELLS.items()], ids=CELLS)
def test_manifest_refuses_a_label(header: str, cell: str, message: str, tmp_path: Path) -> None:
    save(tmp_path / "a.png", noise(1))
    save(tmp_path / "three.png", np.full((12, 16), 3, np.uint8))
    save(tmp_path / "colour.png", noise(2))
    save(tmp_path / "small.png", np.zeros((4, 4), np.uint8))
    source = Manifest(settings(write_manifest(tmp_path, [f"image,{header}", f"a.png,{cell}"])))
    (row,) = source.rows()
    assert source.columns().keys() == {"label"}
    with pytest.raises(BadExample, match=message):
        source.load(row)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_any_8_bit_image_becomes_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{'tif' if mode == 'CMYK' else 'png'}"
    Image.fromarray(noise(0)).convert(mode).save(path)
    assert read_rgb(path).shape == (12, 16, 3)


def test_a_16_bit_image_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.full((12, 16), 3000, np.uint16))
    with pytest.raises(BadExample, match=r"a.png.*more than 8 bits"):
        read_rgb(tmp_path / "a.png")


# The real sets


def real(name: str) -> Path:
    folder = os.environ.get("COPPICE_DATA")
    if not folder:
        pytest.skip("COPPICE_DATA, the folder with the unpacked sets, is not set")
    root = Path(folder) / name
    if not root.is_dir():
        pytest.skip(f"COPPICE_DATA holds no {name}")
    return root


def test_the_real_fashion_set() -> None:
    source = Fashion(settings(real("fashion-product-images-small")))
    rows = source.rows()
    counts = {name: len(column.classes) for name, column in source.columns().items()}
    expected = [("gender", 5), ("masterCategory", 6), ("subCategory", 35), ("articleType", 98), ("baseColour", 41)]
    assert counts == {**dict(expected), "season": 4, "year": 10, "usage": 6}
    assert len(rows) == 2000
    assert len({row.group for row in rows}) == 1997
    some = Fashion(settings(source.settings.root, images=150))
    assert_keeps_its_columns(some)
    nulls = [source.load(row).labels["usage"] is None for row in rows]
    assert sum(nulls) == 15


def test_the_real_nyuv2_set() -> None:
    source = NYUv2(settings(real("nyuv2"), size=(120, 160)))
    assert [[row.split for row in source.rows()].count(split) for split in ("train", "test")] == [159, 131]
    some = NYUv2(settings(source.settings.root, images=12, size=(120, 160)))
    assert_keeps_its_columns(some)
    labels = [some.load(row).labels for row in some.rows()]
    depth = np.stack([label["depth"] for label in labels])
    assert 0.7 <= depth[depth > 0].min() < depth.max() <= 10
    edges = np.stack([label["edges"] for label in labels])
    assert 0.04 < (edges == 1).mean() < 0.15
    normals = np.stack([label["normals"] for label in labels])
    assert 0.5 < normals.any(-1).mean() < 0.8
    floor = np.stack([label["segmentation40"] for label in labels]) == CLASSES_39.index("floor")
    up = normals[floor & normals.any(-1)] @ np.array([0, 1, 0])
    assert (up > 0.8).mean() > 0.7, "most of the floor is level, and the cameras were held nearly upright"


def test_the_real_celeba_set() -> None:
    source = CelebA(settings(real("celeba")))
    rows, columns = source.rows(), source.columns()
    assert (len(rows), len(columns), len({row.group for row in rows})) == (6500, 40, 4254)
    assert {row.split for row in rows} == {None}, "a piece of the training images alone"
    some = CelebA(settings(source.settings.root, images=100))
    assert_keeps_its_columns(some)
    smiling = [source.load(row).labels["Smiling"] for row in rows[:500]]
    assert 0.4 < smiling.count("yes") / 500 < 0.6


@pytest.mark.parametrize(
    ("name", "inner", "splits", "classes"),
    [
        ("cifar100", "cifar100", {"train": 6000, "test": 2000}, 100),
        ("eurosat", "eurosat/2750", {None: 2500}, 10),
        ("sign-language-digits", "Sign-Language-Digits-Dataset/Dataset", {None: 1000}, 10),
    ],
)
def test_the_real_image_folders(name: str, inner: str, splits: dict[str | None, int], classes: int) -> None:
    source = Folders(settings(real(name) / inner))
    assert Counter(row.split for row in source.rows()) == splits
    assert len(source.columns()["label"].classes) == classes
    assert_keeps_its_columns(Folders(settings(source.settings.root, images=100)))


def test_the_real_gtsrb_set() -> None:
    source = GTSRB(settings(real("gtsrb")))
    rows = source.rows()
    assert Counter(row.split for row in rows) == {"train": 3921, "test": 1579}
    labels = {row.group: source.load(row).labels["label"] for row in rows if row.split == "train"}
    assert set(labels.values()) == set(source.columns()["label"].classes)
    assert len(labels) == 1307, "physical signs: the 39,209 images of the whole set are 30 of each, and one lost"
    parts = assign_splits(rows, val=0.15, test=0.15, seed=0)
    assert len(parts["test"]) == 1579
    assert 0.1 < len(parts["val"]) / 3921 < 0.2
    assert not {row.group for row in parts["train"]} & {row.group for row in parts["val"]}
    assert_keeps_its_columns(GTSRB(settings(source.settings.root, images=100)))


@pytest.mark.parametrize(
    ("name", "alphabets", "characters"),
    [("images_evaluation", 20, 659), ("images_background_small1", 5, 136), ("images_background_small2", 5, 156)],
)
def test_the_real_omniglot_sets(name: str, alphabets: int, characters: int) -> None:
    source = Omniglot(settings(real("omniglot") / name))
    rows = source.rows()
    assert [len(column.classes) for column in source.columns().values()] == [characters, alphabets]
    assert Counter(row.split for row in rows) == {
        "train": 12 * characters,
        "val": 3 * characters,
        "test": 5 * characters,
    }
    some = Omniglot(settings(source.settings.root, images=100))
    assert_keeps_its_columns(some)
    images = np.stack([some.load(row).image for row in some.rows()])
    assert set(np.unique(images)) == {0, 255}
    assert 0.02 < (images == 0).mean() < 0.2, "dark ink on white paper"


def test_nyuv2_classes_are_the_official_ones() -> None:
    (meta,) = real("nyuv2").rglob("meta")
    coarse = scipy.io.loadmat(meta / "class13Mapping.mat", squeeze_me=True)
    mapping, names = coarse["classMapping13"].item()
    assert tuple(names) == CLASSES_13
    assert tuple(mapping[:39] - 1) == TO_13
    fine = scipy.io.loadmat(meta / "classMapping40.mat", squeeze_me=True)
    assert (*CLASSES_39, "otherprop") == tuple(fine["className"])


def test_a_manifest_of_the_real_nyuv2_set(tmp_path: Path) -> None:
    (images,) = real("nyuv2").rglob("nyu_images")
    names = sorted(path.stem for path in images.iterdir())[:5]
    (tmp_path / "nyu").symlink_to(images.parent)
    lines = ["image,depth:field:0.0392157,classes:mask:" + "|".join((*CLASSES_39, "otherprop"))]
    lines += [f"nyu/nyu_images/{name}.jpg,nyu/nyu_depths/{name}.png,nyu/nyu_labels40/{name}.png" for name in names]
    source = Manifest(settings(write_manifest(tmp_path, lines)))
    assert_keeps_its_columns(source)
    assert source.load(source.rows()[0]).image.shape == (480, 640, 3)
