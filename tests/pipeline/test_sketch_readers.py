"""The sets of ImageNet-to-Sketch: birds and cars cut to boxes, flowers, and the folders of the papers' authors."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from pipeline.datasets import BadExample
from pipeline.datasets._boxed import crop
from pipeline.datasets.files import read_rgb
from tests.pipeline.layouts import cars, cub, flowers, folders
from tests.pipeline.layouts._pictures import noise
from tests.pipeline.test_public_readers import open_at


def test_birds_and_cars_are_cut_to_their_boxes(tmp_path: Path) -> None:
    birds = open_at("cub", cub.plant(tmp_path / "birds"))
    second = birds.rows()[1]
    whole = read_rgb(tmp_path / "birds/CUB_200_2011" / second.id)
    assert np.array_equal(birds.load(second).image, whole[3:15, 3:19])
    x0, y0, x1, y1 = cars.BOX
    source = open_at("cars", cars.plant(tmp_path / "cars"))
    assert source.load(source.rows()[0]).image.shape == (y1 - y0 + 1, x1 - x0 + 1, 3)


@pytest.mark.parametrize(
    ("box", "shape"),
    [((0.0, 0.0, 32.0, 24.0), (24, 32)), ((-5.5, 2.2, 3.1, 99.0), (22, 4)), ((31.5, 0.0, 31.6, 0.1), (1, 1))],
)
def test_a_box_is_cut_at_the_images_edges(box: tuple[float, float, float, float], shape: tuple[int, int]) -> None:
    assert crop(noise(0), box, "x").shape[:2] == shape


@pytest.mark.parametrize("box", [(5.0, 5.0, 5.0, 9.0), (40.0, 0.0, 50.0, 9.0), (9.0, 9.0, 3.0, 12.0)])
def test_a_box_without_a_pixel_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(BadExample, match=r"x: the box .* holds no pixel of 32x24"):
        crop(noise(0), box, "x")


def test_cars_need_the_test_sets_labels(tmp_path: Path) -> None:
    root = cars.plant(tmp_path)
    outer = root / "cars_test_annos_withlabels.mat"
    expected = open_at("cars", root).rows()
    outer.rename(root / "devkit" / outer.name)
    assert open_at("cars", root).rows() == expected
    (root / "devkit" / outer.name).unlink()
    with pytest.raises(ValueError, match=r"cars_test_annos_withlabels.mat: not found"):
        open_at("cars", root).rows()
    outer.write_text("an error page")
    with pytest.raises(ValueError, match=r"withlabels.mat: not a MATLAB file"):
        open_at("cars", root).rows()
    scipy.io.savemat(outer, {"other": 1})
    with pytest.raises(ValueError, match=r"withlabels.mat: it holds no 'annotations'"):
        open_at("cars", root).rows()
    table = np.empty((1, 1), dtype=[(name, object) for name in cars.FIELDS if name != "class"])
    table[0, 0] = (*cars.BOX, "00001.jpg")
    scipy.io.savemat(outer, {"annotations": table})
    with pytest.raises(ValueError, match="no class of the cars; the test set's file must be the one withlabels"):
        open_at("cars", root).rows()


def test_flowers_are_labelled_and_split_by_number(tmp_path: Path) -> None:
    source = open_at("flowers", flowers.plant(tmp_path))
    classes = source.columns()["label"].classes
    assert len(classes) == 102
    parts = scipy.io.loadmat(tmp_path / "setid.mat", squeeze_me=True)
    for row in source.rows():
        number = int(Path(row.id).stem.removeprefix("image_"))
        assert int(classes[row.label or 0]) == flowers.LABELS[(number - 1) % len(flowers.LABELS)]
        assert number in parts[{"train": "trnid", "val": "valid", "test": "tstid"}[row.split or ""]]
    scipy.io.savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[1, 2]])})
    with pytest.raises(ValueError, match=r"setid.mat: trnid holds \d+, but imagelabels.mat has 2 labels"):
        open_at("flowers", tmp_path).rows()


@pytest.mark.parametrize("name", folders.CLASSES)
def test_the_five_sets_of_imagenet_to_sketch_are_folders(name: str, tmp_path: Path) -> None:
    source = open_at("folders", folders.plant(tmp_path).parent / name)
    assert source.columns()["label"].classes == folders.CLASSES[name]
    for row in source.rows():
        assert source.load(row).labels["label"] == row.id.split("/")[1]
