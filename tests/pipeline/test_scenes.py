"""The generated scenes: the same from the same seed, every label in agreement with every other."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import chi2
from scipy.stats.contingency import expected_freq

from pipeline.datasets._shapes import BACKDROPS, OUTLINES, SHAPES, TEXTURES, Shape
from pipeline.datasets.base import Example, SourceSettings
from pipeline.datasets.scenes import GAP, VISIBLE, Scenes, draw_shapes, draw_world, label_keypoints, label_pixels

SIZE = (64, 64)


def source(size: tuple[int, int] = SIZE, seed: int = 0, images: int | None = 300) -> Scenes:
    return Scenes(SourceSettings(root=None, images=images, seed=seed, size=size))


def load(index: int, size: tuple[int, int] = SIZE, seed: int = 0) -> Example:
    scenes = source(size, seed)
    return scenes.load(scenes.rows()[index])


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    scenes = source()
    return [scenes.load(row) for row in scenes.rows()]


def assert_same(left: Example, right: Example) -> None:
    np.testing.assert_array_equal(left.image, right.image)
    assert left.labels.keys() == right.labels.keys()
    for name in left.labels:
        np.testing.assert_array_equal(left.labels[name], right.labels[name], err_msg=name)


def test_rows_are_numbered_and_undivided() -> None:
    rows = source(images=None).rows()
    assert len(rows) == 3000
    assert rows[17].id == rows[17].group == "scene-00017"
    assert rows[17].origin == "scene 17"
    assert rows[17].split is None
    assert len({row.id for row in rows}) == len(rows)


def test_a_root_is_refused() -> None:
    with pytest.raises(ValueError, match="root"):
        Scenes(SourceSettings(root=Path("somewhere"), images=3, seed=0, size=SIZE))


def test_a_size_that_shows_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="size of 16"):
        source((8, 64))


@pytest.mark.parametrize("size", [(16, 16), (16, 128), (128, 16)])
def test_every_scene_shows_a_shape(size: tuple[int, int]) -> None:
    scenes = source(size)
    assert all(0 <= scenes.load(row).labels["count"] < 5 for row in scenes.rows()[:150])


def test_a_scene_depends_on_seed_and_index_alone() -> None:
    scenes = source()
    forward = [scenes.load(row) for row in scenes.rows()[:5]]
    copied = pickle.loads(pickle.dumps(scenes))
    backward = [copied.load(row) for row in reversed(copied.rows()[:5])][::-1]
    for left, right in zip(forward, backward, strict=True):
        assert_same(left, right)
    assert_same(forward[3], load(3))
    assert not np.array_equal(forward[3].image, load(3, seed=1).image)
    assert not np.array_equal(forward[3].image, forward[4].image)


def test_another_process_makes_the_same_scene() -> None:
    code = (
        "import sys; from pipeline.datasets.scenes import Scenes, SourceSettings;"
        f"scenes = Scenes(SourceSettings(root=None, images=300, seed=0, size={SIZE}));"
        "sys.stdout.buffer.write(scenes.load(scenes.rows()[5]).image.tobytes())"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert made.stdout == load(5).image.tobytes()


@pytest.mark.parametrize("size", [(64, 64), (48, 96), (96, 40), (33, 65)])
def test_labels_fit_the_image_at_any_size(size: tuple[int, int]) -> None:
    for index in range(8):
        example = load(index, size)
        assert example.image.shape == (*size, 3)
        assert example.image.dtype == np.uint8
        for name, dtype in (("segmentation", "uint8"), ("edges", "uint8"), ("offsets", "uint8"), ("depth", "float32")):
            assert example.labels[name].shape == size
            assert example.labels[name].dtype == dtype
        depth = example.labels["depth"]
        assert depth.min() > 1
        assert depth.max() < 10


def test_every_class_of_every_column_occurs(examples: list[Example]) -> None:
    columns = source().columns()
    assert set(columns) == set(examples[0].labels)
    values: dict[str, Callable[[Example], object]] = {
        "scene": lambda e: [e.labels["scene"]],
        "count": lambda e: [e.labels["count"]],
        "segmentation": lambda e: np.unique(e.labels["segmentation"]),
        "edges": lambda e: np.unique(e.labels["edges"]),
        "keypoints": lambda e: e.labels["keypoints"][:, 2],
        "boxes": lambda e: e.labels["boxes"][:, 4],
        "shapes": lambda e: np.flatnonzero(e.labels["shapes"]),
    }
    for name, values_of in values.items():
        seen = np.unique(np.concatenate([np.asarray(values_of(example), float) for example in examples]))
        np.testing.assert_array_equal(seen, np.arange(len(columns[name].classes)), err_msg=name)
    assert all(columns[name].classes for name in values)
    assert (columns["depth"].scale, columns["depth"].unit) == (0.001, "m")


def test_mask_boxes_flags_and_count_agree_with_the_instances(examples: list[Example]) -> None:
    for example in examples:
        labels = example.labels
        instances, mask = labels["offsets"], labels["segmentation"]
        numbers = np.unique(instances[instances > 0])
        np.testing.assert_array_equal(numbers, np.arange(1, len(labels["boxes"]) + 1))
        assert labels["count"] == len(numbers) - 1
        np.testing.assert_array_equal(mask > 0, instances > 0)
        for found, box in zip(ndimage.find_objects(instances), labels["boxes"], strict=True):
            rows, columns = found
            np.testing.assert_array_equal(box[:4], (columns.start, rows.start, columns.stop, rows.stop))
        for number, box in zip(numbers, labels["boxes"], strict=True):
            assert (instances == number).sum() >= VISIBLE * min(SIZE) ** 2
            np.testing.assert_array_equal(np.unique(mask[instances == number]), [box[4] + 1])
        np.testing.assert_array_equal(labels["shapes"], [int((mask == kind + 1).any()) for kind in range(len(SHAPES))])


def test_edges_are_the_nearer_side_of_the_instances_borders(examples: list[Example]) -> None:
    cross = ndimage.generate_binary_structure(2, 1)
    for example in examples:
        instances, edges = example.labels["offsets"], example.labels["edges"]
        lowest = ndimage.minimum_filter(instances, footprint=cross, mode="nearest")
        highest = ndimage.maximum_filter(instances, footprint=cross, mode="nearest")
        changes = lowest != highest
        assert not edges[~changes].any()
        assert not edges[instances == 0].any()
        for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
            unlike = instances[here] != instances[there]
            nearer = np.where(instances[here] > instances[there], edges[here], edges[there])
            assert nearer[unlike].all()


def test_a_shape_is_nearer_than_the_surface_beside_it(examples: list[Example]) -> None:
    for example in examples:
        instances, depth = example.labels["offsets"], example.labels["depth"]
        for ours, theirs in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
            beside = (instances[ours] > 0) & (instances[theirs] == 0)
            assert (depth[ours][beside] < depth[theirs][beside]).all()


def drawn(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Shape]]:
    rng = np.random.default_rng([0, index])
    world = draw_world(rng, SIZE)
    shapes = draw_shapes(rng, world)
    return *label_pixels(world, shapes), label_pixels(world, [])[1], shapes


@pytest.mark.parametrize("index", range(40))
def test_the_nearest_shape_wins_every_pixel(index: int) -> None:
    instances, depth, surface, shapes = drawn(index)
    centres_y, centres_x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32) + 0.5
    covered = np.stack([shape.inside(centres_x, centres_y) > 0 for shape in shapes])
    distances = np.array([shape.distance for shape in shapes])
    nearest = np.where(covered, distances[:, None, None], np.inf).argmin(axis=0) + 1
    np.testing.assert_array_equal(instances, np.where(covered.any(axis=0), nearest, 0))
    assert (distances[:-1] >= GAP * (1 - 1e-9) * distances[1:]).all()
    assert (depth <= surface).all()
    for number, shape in enumerate(shapes, start=1):
        own = depth[instances == number]
        assert own.max() <= shape.distance * (1 + 1e-6)
        assert own.min() > shape.distance / GAP


@pytest.mark.parametrize("index", range(40))
def test_keypoints_lie_in_the_image_on_what_is_visible(index: int) -> None:
    instances, _, _, shapes = drawn(index)
    points = label_keypoints(shapes, instances)
    np.testing.assert_array_equal(points, load(index).labels["keypoints"])
    padded = np.pad(instances, 1)
    for x, y, kind in points:
        assert 0 <= x < SIZE[1]
        assert 0 <= y < SIZE[0]
        near = {
            shapes[number - 1].name for number in np.unique(padded[int(y) : int(y) + 3, int(x) : int(x) + 3]) if number
        }
        if kind == 1:
            assert near & {"square", "triangle", "star", "cross"}
        else:
            ring = [shape for shape in shapes if shape.name == "ring" and np.hypot(shape.x - x, shape.y - y) < 1e-3]
            assert near or ring
    centres = {(np.float32(x), np.float32(y)) for x, y, kind in points if kind == 0}
    assert (np.float32(shapes[-1].x), np.float32(shapes[-1].y)) in centres, "nothing hides the nearest shape"


def test_corners_turn_the_outline() -> None:
    for name in SHAPES:
        shape = Shape(
            name=name,
            x=30.0,
            y=20.0,
            radius=10.0,
            distance=2.0,
            axes=np.array([[8.0, -3.0], [4.0, 7.0]]),
            texture="plain",
            frequency=1.0,
            colours=np.zeros((2, 3)),
        )
        corners = shape.corners()
        np.testing.assert_allclose(shape.inside(*corners.T), 0, atol=1e-6)
        assert len(corners) == {"square": 4, "triangle": 3, "star": 5, "cross": 8}.get(name, 0)
        u, v = shape.local(*corners.T)
        assert (OUTLINES[name](1.02 * u, 1.02 * v) < 0).all()


def p_value(left: list[int], right: list[int]) -> float:
    """Map two lists of classes to the chance of so uneven a table if the two were independent."""
    table = np.zeros((max(left) + 1, max(right) + 1))
    np.add.at(table, (left, right), 1)
    statistic = ((table - expected_freq(table)) ** 2 / expected_freq(table)).sum()
    return float(chi2.sf(statistic, (table.shape[0] - 1) * (table.shape[1] - 1)))


def test_scene_colour_and_texture_say_nothing_about_the_shapes() -> None:
    pairs = []
    for index in range(900):
        rng = np.random.default_rng([0, index])
        world = draw_world(rng, (16, 16))
        pairs += [(world, shape) for shape in draw_shapes(rng, world)]
    names = [SHAPES.index(shape.name) for _, shape in pairs]
    assert p_value(names, [tuple(BACKDROPS).index(world.backdrop) for world, _ in pairs]) > 0.01
    assert p_value(names, [tuple(TEXTURES).index(shape.texture) for _, shape in pairs]) > 0.01
    assert p_value(names, [int(shape.colours[0].argmax()) for _, shape in pairs]) > 0.01
    assert p_value(names, [int(shape.axes[0, 0] > shape.axes[1, 1]) for _, shape in pairs]) > 0.01
    assert p_value(names, [name % 2 for name in names]) < 1e-6, "the test sees a dependence where there is one"
