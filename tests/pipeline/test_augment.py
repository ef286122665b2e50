"""Whatever window is looked through, an image and all its labels stay one thing."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from models.spec import Column
from pipeline.augment import Windows, augment, draw_windows
from pipeline.config import Augment

SIZE = (40, 48)
COLUMNS = {
    "kind": Column(layout="class", classes=("a",)),
    "flags": Column(layout="flags", classes=("a",)),
    "mask": Column(layout="mask", classes=("none", "marker")),
    "field": Column(layout="field"),
    "normals": Column(layout="normals"),
    "ids": Column(layout="instances"),
    "points": Column(layout="points", classes=("centre",)),
    "boxes": Column(layout="boxes", classes=("marker",)),
}


def draw(settings: Augment, count: int = 64, seed: int = 0) -> Windows:
    return draw_windows(count, SIZE, settings, torch.Generator().manual_seed(seed))


def window(top: float, left: float, scale: float, flip: bool) -> Windows:
    return Windows(
        top_B=torch.tensor([top]),
        left_B=torch.tensor([left]),
        scale_B=torch.tensor([scale]),
        flip_B=torch.tensor([flip]),
    )


def scene(count: int = 64, side: int = 10, seed: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
    """Images black but for one white square, with labels of every layout that all describe that square."""
    generator = torch.Generator().manual_seed(seed)
    y, x = (torch.randint(0, extent - side, (count,), generator=generator) for extent in SIZE)
    mask = torch.zeros(count, *SIZE, dtype=torch.uint8)
    for image, (top, left) in enumerate(zip(y.tolist(), x.tolist(), strict=True)):
        mask[image, top : top + side, left : left + side] = 1
    zero = torch.zeros(count)
    points = torch.stack([x + side / 2, y + side / 2, zero], -1)[:, None]
    padding = torch.tensor([0.0, 0.0, -1.0]).expand(count, 1, 3)
    labels = {
        "kind": torch.arange(count),
        "flags": torch.ones(count, 1, dtype=torch.int8),
        "mask": mask,
        "field": mask * 2.5,
        "normals": mask[:, None] * torch.tensor([0.6, 0.0, 0.8]).view(3, 1, 1),
        "ids": mask * 7,
        "points": torch.cat([points, padding], 1),
        "boxes": torch.stack([x, y, x + side, y + side, zero], -1)[:, None],
    }
    return (mask * 255)[:, None].expand(-1, 3, -1, -1).contiguous(), labels


def test_nothing_to_do_leaves_all_as_it_is() -> None:
    images, labels = scene()
    moved, kept = augment(images, labels, COLUMNS, draw(Augment(flip=0.0, crop=1.0)))
    assert torch.equal(moved, images)
    for name, raw in labels.items():
        assert kept[name].dtype == raw.dtype
        assert torch.equal(kept[name], raw), name


def test_flipped_twice_is_as_before() -> None:
    images, labels = scene()
    windows = draw(Augment(flip=0.5, crop=1.0))
    assert 0.3 < windows.flip_B.float().mean() < 0.7
    once = augment(images, labels, COLUMNS, windows)
    assert torch.equal(once[0][windows.flip_B], images[windows.flip_B].flip(-1))
    assert torch.equal(once[0][~windows.flip_B], images[~windows.flip_B])
    twice, kept = augment(*once, COLUMNS, windows)
    assert torch.equal(twice, images)
    for name, raw in labels.items():
        assert torch.equal(kept[name], raw), name


@pytest.mark.parametrize("crop", [1.0, 0.7, 0.4])
def test_image_and_labels_move_together(crop: float) -> None:
    images, labels = scene()
    moved, kept = augment(images, labels, COLUMNS, draw(Augment(flip=0.5, crop=crop)))
    bright, mask = moved[:, 0] > 127, kept["mask"]
    assert (bright != mask).float().mean() < 0.02
    assert torch.equal(kept["field"], mask * 2.5)
    assert torch.equal(kept["normals"][:, 1:], mask[:, None] * torch.tensor([0.0, 0.8]).view(2, 1, 1))
    assert torch.equal(kept["normals"][:, 0].abs(), mask * 0.6)
    assert torch.equal(kept["ids"], mask * 7)
    assert torch.equal(kept["kind"], labels["kind"])
    assert torch.equal(kept["flags"], labels["flags"])
    seen = 0
    for image in range(len(images)):
        rows, columns = torch.nonzero(mask[image], as_tuple=True)
        alive = kept["boxes"][image, 0, 4] == 0
        if len(rows) < 20:
            continue
        assert alive
        seen += 1
        found = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (kept["boxes"][image, 0, :4] - found).abs().max() <= 1.0, "half a source pixel, stretched"
        x, y, kind = kept["points"][image, 0].tolist()
        inside = 0 <= x < SIZE[1] and 0 <= y < SIZE[0]
        assert (kind == 0) == inside
        if inside:
            assert mask[image, int(y), int(x)] == 1
    assert seen > 20
    assert (kept["points"][:, 1, 2] == -1).all(), "padding stays padding"


def test_a_marked_pixel_lands_where_the_window_says() -> None:
    """Half-size window at (10, 12): source pixel (13, 20) covers output rows 6-7 and columns 16-17."""
    images, mask = torch.zeros(1, 3, *SIZE, dtype=torch.uint8), torch.zeros(1, *SIZE, dtype=torch.uint8)
    mask[0, 13, 20] = 1
    images[0, :, 13, 20] = 255
    points = torch.tensor([[[20.5, 13.5, 0.0]]])
    labels = {"mask": mask, "points": points}
    for flip, columns, x in ((False, {16, 17}, 17.0), (True, {30, 31}, 31.0)):
        moved, kept = augment(images, labels, COLUMNS, window(10.0, 12.0, 0.5, flip))
        where = torch.nonzero(kept["mask"][0])
        assert set(where[:, 0].tolist()) == {6, 7}
        assert set(where[:, 1].tolist()) == columns
        assert kept["points"][0, 0].tolist() == [x, 7.0, 0.0]
        peak = torch.nonzero(moved[0, 0] == moved[0, 0].max())
        assert set(peak[:, 0].tolist()) <= {6, 7}
        assert set(peak[:, 1].tolist()) <= columns


def test_what_the_window_leaves_out_is_gone() -> None:
    points = torch.tensor([[[5.0, 5.0, 0.0], [30.0, 30.0, 0.0], [0.0, 0.0, -1.0]]])
    boxes = torch.tensor([[[0.0, 0.0, 9.0, 9.0, 0.0], [5.0, 5.0, 20.0, 20.0, 0.0], [0.0, 0.0, 0.0, 0.0, -1.0]]])
    images, mask = torch.zeros(1, 3, *SIZE, dtype=torch.uint8), torch.zeros(1, *SIZE, dtype=torch.uint8)
    labels = {"points": points, "boxes": boxes, "mask": mask}
    _, kept = augment(images, labels, COLUMNS, window(10.0, 10.0, 0.75, False))
    assert kept["points"][0, :, 2].tolist() == [-1.0, 0.0, -1.0]
    assert kept["boxes"][0, :, 4].tolist() == [-1.0, 0.0, -1.0]
    torch.testing.assert_close(kept["boxes"][0, 1, :4], torch.tensor([0.0, 0.0, 10 / 0.75, 10 / 0.75]))


def test_unlabelled_stays_unlabelled() -> None:
    images, _ = scene()
    labels = {
        "mask": torch.full((64, *SIZE), 255, dtype=torch.uint8),
        "field": torch.zeros(64, *SIZE),
        "normals": torch.zeros(64, 3, *SIZE),
        "points": torch.full((64, 2, 3), -2.0),
        "boxes": torch.full((64, 2, 5), -2.0),
    }
    _, kept = augment(images, labels, COLUMNS, draw(Augment(flip=0.5, crop=0.3)))
    assert (kept["mask"] == 255).all()
    assert (kept["field"] == 0).all()
    assert (kept["normals"] == 0).all()
    assert (kept["points"][..., 2] == -2).all()
    assert (kept["boxes"][..., 4] == -2).all()


@pytest.mark.parametrize("crop", [1.0, 0.5])
def test_windows_lie_inside_the_image(crop: float) -> None:
    windows = draw(Augment(flip=0.0, crop=crop), count=500)
    assert not windows.flip_B.any()
    assert (windows.scale_B >= crop).all()
    for start, extent in ((windows.top_B, SIZE[0]), (windows.left_B, SIZE[1])):
        assert (start >= 0).all()
        assert (start + windows.scale_B * extent <= extent + 1e-4).all()


def test_points_on_the_edge_survive_a_mirror() -> None:
    """x = 0, the image's left edge, is a place where annotators put points; its mirror image is x = W."""
    points = torch.tensor([[[0.0, 3.0, 0.0]]])
    images = torch.zeros(1, 3, *SIZE, dtype=torch.uint8)
    once = augment(images, {"points": points}, COLUMNS, window(0.0, 0.0, 1.0, True))[1]
    assert torch.equal(augment(images, once, COLUMNS, window(0.0, 0.0, 1.0, True))[1]["points"], points)


@pytest.mark.parametrize("crop", [1.0, 0.5])
def test_a_surface_that_looks_right_looks_left_in_the_mirror(crop: float) -> None:
    images, labels = scene()
    windows = draw(Augment(flip=0.5, crop=crop))
    kept = augment(images, labels, COLUMNS, windows)[1]
    for image, flip in enumerate(windows.flip_B.tolist()):
        seen = kept["normals"][image][:, kept["mask"][image] == 1]
        assert torch.equal(seen, torch.tensor([[-0.6 if flip else 0.6], [0.0], [0.8]]).expand_as(seen))


def noise(count: int = 8, seed: int = 5) -> tuple[Tensor, dict[str, Tensor]]:
    """Images and maps of every layout in which each pixel is drawn on its own."""
    draw = np.random.default_rng(seed)
    images = torch.from_numpy(draw.integers(0, 256, (count, 3, *SIZE), dtype=np.uint8))
    return images, {
        "mask": torch.from_numpy(draw.integers(0, 256, (count, *SIZE), dtype=np.uint8)),
        "field": torch.from_numpy(draw.uniform(0, 9, (count, *SIZE)).astype(np.float32)),
        "normals": torch.from_numpy(draw.uniform(-1, 1, (count, 3, *SIZE)).astype(np.float32)),
        "ids": torch.from_numpy(draw.integers(0, 256, (count, *SIZE), dtype=np.uint8)),
    }


def places(start: float, scale: float, extent: int) -> np.ndarray:
    return np.clip(start + (np.arange(extent) + 0.5) * scale - 0.5, 0, extent - 1)


def shown(image: np.ndarray, top: float, left: float, scale: float) -> np.ndarray:
    """What a window shows of an image [C, H, W], bilinear with the edges held, in 64-bit floats."""
    y, x = places(top, scale, SIZE[0]), places(left, scale, SIZE[1])
    low_y, low_x = np.floor(y).astype(int), np.floor(x).astype(int)
    high_y, high_x = np.minimum(low_y + 1, SIZE[0] - 1), np.minimum(low_x + 1, SIZE[1] - 1)
    rest_y, rest_x, floats = (y - low_y)[:, None], x - low_x, image.astype(np.float64)
    upper = floats[:, low_y][:, :, low_x] * (1 - rest_x) + floats[:, low_y][:, :, high_x] * rest_x
    lower = floats[:, high_y][:, :, low_x] * (1 - rest_x) + floats[:, high_y][:, :, high_x] * rest_x
    return upper * (1 - rest_y) + lower * rest_y


@pytest.mark.parametrize("crop", [0.9, 0.5, 0.1])
def test_images_are_blended_as_in_64_bit_floats(crop: float) -> None:
    images, _ = noise(16)
    windows = draw(Augment(flip=0.5, crop=crop), count=16)
    moved, _ = augment(images, {}, {}, windows)
    for number, image in enumerate(images.numpy()):
        at = (float(start[number]) for start in (windows.top_B, windows.left_B, windows.scale_B))
        expected = shown(image, *at)
        expected = expected[..., ::-1] if windows.flip_B[number] else expected
        assert abs(moved[number].numpy() - expected).max() < 1, "half a level for rounding, the rest for the fractions"


@pytest.mark.parametrize("crop", [0.9, 0.5])
def test_maps_show_the_nearest_pixel(crop: float) -> None:
    images, labels = noise(16)
    windows = draw(Augment(flip=0.5, crop=crop), count=16)
    kept = augment(images, labels, COLUMNS, windows)[1]
    for number in range(16):
        top, left, scale = (float(start[number]) for start in (windows.top_B, windows.left_B, windows.scale_B))
        rows, columns = (np.rint(p).astype(int) for p in (places(top, scale, SIZE[0]), places(left, scale, SIZE[1])))
        flip = bool(windows.flip_B[number])
        for name, raw in labels.items():
            expected = raw[number].numpy()[..., rows, :][..., columns[::-1] if flip else columns]
            expected = expected * np.array([-1, 1, 1])[:, None, None] if flip and name == "normals" else expected
            np.testing.assert_array_equal(kept[name][number].numpy(), expected.astype(raw.numpy().dtype), name)


@pytest.mark.parametrize("flip", [False, True])
def test_the_whole_image_is_seen_bit_for_bit(flip: bool) -> None:
    """Also in a batch of which other images are cropped."""
    images, labels = noise(2)
    both = [window(0.0, 0.0, 1.0, flip), window(3.2, 1.7, 0.6, False)]
    windows = Windows(
        **{name: torch.cat([getattr(part, name) for part in both]) for name in ("top_B", "left_B", "scale_B", "flip_B")}
    )
    moved, kept = augment(images, labels, COLUMNS, windows)
    assert torch.equal(moved[0], images[0].flip(-1) if flip else images[0])
    for name in ("mask", "field", "ids"):
        assert torch.equal(kept[name][0], labels[name][0].flip(-1) if flip else labels[name][0])


def test_a_ranks_rows_are_seen_as_in_the_whole_batch() -> None:
    images, labels = noise(8)
    windows = draw(Augment(flip=0.5, crop=0.4), count=8)
    moved, kept = augment(images, labels, COLUMNS, windows)
    mine = slice(1, None, 3)
    part, own = augment(images[mine], {name: raw[mine] for name, raw in labels.items()}, COLUMNS, windows[mine])
    assert torch.equal(part, moved[mine])
    assert all(torch.equal(raw, kept[name][mine]) for name, raw in own.items())


def listed() -> dict[str, Tensor]:
    """Points and boxes that the window of the comparisons below shows: torchvision marks none as gone."""
    return {
        "points": torch.tensor([[[14.5, 11.0, 0.0], [30.0, 25.5, 0.0]]]),
        "boxes": torch.tensor([[[13.0, 11.0, 20.0, 18.0, 0.0], [5.0, 2.0, 30.5, 22.0, 0.0]]]),
    }


def as_boxes(boxes: Tensor) -> Tensor:
    return tv_tensors.BoundingBoxes(boxes[0, :, :4], format="XYXY", canvas_size=SIZE)  # pyright: ignore[reportCallIssue]


def as_points(xy: Tensor) -> Tensor:
    return tv_tensors.KeyPoints(xy, canvas_size=SIZE)  # pyright: ignore[reportCallIssue]


def test_a_mirror_is_torchvisions() -> None:
    images, maps = noise(1)
    labels = maps | listed()
    moved, kept = augment(images, labels, COLUMNS, window(0.0, 0.0, 1.0, True))
    assert torch.equal(moved, v2.horizontal_flip(tv_tensors.Image(images)))
    for name in ("mask", "field", "ids"):
        assert torch.equal(kept[name], v2.horizontal_flip(tv_tensors.Mask(labels[name])))
    assert torch.equal(kept["boxes"][0, :, :4], v2.horizontal_flip(as_boxes(labels["boxes"])))
    # To torchvision's mirror a point counts pixels' centres from 0; to ours, as to its own boxes, edges.
    xy = labels["points"][0, :, :2]
    assert torch.equal(kept["points"][0, :, :2] - 0.5, v2.horizontal_flip(as_points(xy - 0.5)))


def test_a_crop_at_whole_pixels_is_torchvisions() -> None:
    """But for the outermost pixels: there torchvision holds the window's edge, and we look beyond it."""
    images, maps = noise(1)
    labels = maps | listed()
    moved, kept = augment(images, labels, COLUMNS, window(10.0, 12.0, 0.5, False))
    cut = (10, 12, SIZE[0] // 2, SIZE[1] // 2, [*SIZE])
    expected = v2.resized_crop(tv_tensors.Image(images), *cut, antialias=False)
    assert (moved.int() - expected.int())[..., 1:-1, 1:-1].abs().max() <= 1
    for name in ("mask", "field", "ids"):
        nearest = v2.resized_crop(tv_tensors.Mask(labels[name]), *cut, interpolation=InterpolationMode.NEAREST_EXACT)
        assert torch.equal(kept[name], nearest)
    assert torch.equal(kept["boxes"][0, :, :4], v2.resized_crop(as_boxes(labels["boxes"]), *cut))
    xy = labels["points"][0, :, :2]
    assert torch.equal(kept["points"][0, :, :2], v2.resized_crop(as_points(xy), *cut))
