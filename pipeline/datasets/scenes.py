"""The embedded data set: pictures of textured shapes on a floor before a wall, made from the seed, with every label."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.spec import Column
from pipeline.datasets._shapes import BACKDROPS, BULGE, SHAPES, TEXTURES, Shape, World, height
from pipeline.datasets.base import Example, Row, Source, SourceSettings

IMAGES = 3000  # where the settings give no number
SMALLEST = 16  # pixels a side
MOST = 5  # shapes in one image
VISIBLE = 0.004  # a shape that shows less, as a part of the image's shorter side squared, is left out
NEAR, FAR, GAP = 2.0, 5.4, 1.07  # metres; neighbours in depth differ by the factor GAP, more than a shape bulges
COLUMNS: dict[str, Column] = {
    "scene": Column(layout="class", classes=tuple(BACKDROPS)),
    "segmentation": Column(layout="mask", classes=("background", *SHAPES)),
    "depth": Column(layout="field", scale=0.001, unit="m"),
    "edges": Column(layout="mask", classes=("none", "edge")),
    "keypoints": Column(layout="points", classes=("centre", "corner")),
    "offsets": Column(layout="instances"),
    "shapes": Column(layout="flags", classes=SHAPES),
    "boxes": Column(layout="boxes", classes=SHAPES),
    "count": Column(layout="class", classes=tuple(str(number) for number in range(1, MOST + 1))),
}


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _two_colours(rng: np.random.Generator, saturation: float, contrast: float) -> np.ndarray:
    """Draw two colours [2, 3]: any brightness and hue, the second brighter or darker by `contrast` and tinted anew."""
    brightness = rng.uniform(0.3, 0.75) + contrast * rng.choice((-0.5, 0.5)) * np.array([1, -1])
    tint = rng.uniform(-0.5, 0.5, (2, 3))
    tint[1] = 0.7 * tint[0] + 0.3 * tint[1]
    return np.clip(brightness[:, None] + saturation * (tint - tint.mean(axis=1, keepdims=True)), 0.02, 1)


def draw_world(rng: np.random.Generator, size: tuple[int, int]) -> World:
    """Draw everything but the shapes."""
    return World(
        size=size,
        horizon=size[0] * rng.uniform(0.08, 0.4),
        camera=rng.uniform(1.2, 1.6),
        wall=rng.uniform(6.6, 9.4),
        slant=rng.uniform(-0.12, 0.12),
        backdrop=tuple(BACKDROPS)[rng.integers(len(BACKDROPS))],
        axes=rng.uniform(0.8, 1.6) * _rotation(rng.uniform(0, 2 * np.pi)),
        lattice=rng.random((64, 64), dtype=np.float32),
        colours=_two_colours(rng, 0.4, rng.uniform(0.15, 0.35)),
        light=_unit(np.array([rng.uniform(-1, 1), rng.uniform(-1, -0.2), rng.uniform(0.3, 1)])),
        haze=rng.uniform(0.5, 0.95) + rng.uniform(-0.1, 0.1, 3),
        haze_density=rng.uniform(0.02, 0.09),
        gain=rng.uniform(0.75, 1.15) * rng.uniform(0.88, 1.12, 3),
        noise=rng.uniform(0.005, 0.025),
    )


def draw_shape(rng: np.random.Generator, world: World, distance: float) -> Shape:
    """Draw one shape that stands on the floor `distance` metres away, or hovers above that place."""
    rows, width = world.size
    radius = min(rows, width) * rng.uniform(0.62, 0.9) / distance
    lowest = min(world.floor_row(distance) - radius, 0.92 * rows)
    return Shape(
        name=SHAPES[rng.integers(len(SHAPES))],
        x=width * rng.uniform(0.08, 0.92),
        y=rng.uniform(max(0.3 * radius, lowest - 0.35 * rows), lowest),
        radius=radius,
        distance=distance,
        axes=radius * _rotation(rng.uniform(-0.5, 0.5)) @ np.diag(rng.uniform(0.8, 1, 2)),
        texture=tuple(TEXTURES)[rng.integers(len(TEXTURES))],
        frequency=rng.uniform(1.2, 2.4),
        colours=_two_colours(rng, 1.2, rng.uniform(0.1, 0.35)),
    )


def draw_shapes(rng: np.random.Generator, world: World) -> list[Shape]:
    """Draw the shapes, farthest first, and leave out those that others or the image's frame hide."""
    number = int(rng.integers(1, MOST + 1))
    room, gap = np.log(FAR / NEAR), np.log(GAP)
    steps = np.sort(rng.uniform(0, room - (number - 1) * gap, number)) + gap * np.arange(number)
    shapes = [draw_shape(rng, world, distance) for distance in (FAR * np.exp(-steps)).tolist()]
    instances, _ = label_pixels(world, shapes)
    pixels = np.bincount(instances.ravel(), minlength=number + 1)[1:]
    return [shape for shape, shown in zip(shapes, pixels, strict=True) if shown >= VISIBLE * min(world.size) ** 2]


def _samples(size: tuple[int, int], per_pixel: int) -> tuple[np.ndarray, np.ndarray]:
    rows, width = size
    xs = (np.arange(width * per_pixel, dtype=np.float32) + 0.5) / per_pixel
    ys = (np.arange(rows * per_pixel, dtype=np.float32) + 0.5) / per_pixel
    return xs, ys


def label_pixels(world: World, shapes: Sequence[Shape]) -> tuple[np.ndarray, np.ndarray]:
    """Map a scene to the index + 1 of the shape in every pixel's centre (0: none) and the distance there."""
    xs, ys = _samples(world.size, 1)
    distance = world.surface(xs, ys)[0]
    instances = np.zeros(world.size, np.uint8)
    for number, shape in enumerate(shapes, start=1):
        window = shape.window(xs, ys)
        inside = shape.inside(xs[window[1]], ys[window[0], None])
        there = inside > 0
        instances[window][there] = number
        distance[window][there] = shape.distance * (1 - BULGE * height(inside[there]))
    return instances, distance


def _paint_surface(world: World, shapes: Sequence[Shape], xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, ...]:
    """Map a grid of samples to floor and wall, with the shapes' contact shadows, and their distance."""
    distance, floor, u, v = world.surface(xs, ys)
    (a, b), (c, d) = world.axes.astype(np.float32)
    share = BACKDROPS[world.backdrop](a * u + b * v, c * u + d * v, world.lattice)
    right, down, front = world.light.tolist()
    shade = np.where(floor, np.float32(0.65 - 0.4 * down), np.float32(0.55 + 0.4 * front))
    shade += 0.25 * right * (xs / world.size[1] - 0.5)
    for shape in shapes:
        metres = shape.radius * shape.distance / min(world.size)
        middle = (shape.x - world.size[1] / 2) / min(world.size) * shape.distance - 0.5 * metres * right
        far = ((u - middle) / metres) ** 2 + ((v - shape.distance) / (0.6 * metres)) ** 2
        shade *= 1 - 0.6 / (1 + far * far)
    first, second = world.colours.astype(np.float32)
    return (first + share[..., None] * (second - first)) * shade[..., None], distance


def _paint_shape(world: World, shape: Shape, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
    """Map a window of samples to the shape's colour under Lambert's law, where it is, and its distance."""
    inside = shape.inside(x, y)
    relief = height(inside)
    u, v = shape.local(x, y)
    share = TEXTURES[shape.texture](shape.frequency * u, shape.frequency * v, world.lattice)
    slope = shape.radius * 0.5
    down, right = (slope * part for part in np.gradient(relief, y[:, 0], x))
    light_right, light_down, light_front = world.light.tolist()
    lambert = (light_front - light_right * right - light_down * down) / np.sqrt(1 + right * right + down * down)
    shade = 0.4 + 0.65 * np.clip(lambert, 0, 1)
    first, second = shape.colours.astype(np.float32)
    colour = (first + share[..., None] * (second - first)) * shade[..., None]
    return colour, inside > 0, shape.distance * (1 - BULGE * relief)


def paint(rng: np.random.Generator, world: World, shapes: Sequence[Shape]) -> np.ndarray:
    """Map a scene to its image uint8 [H, W, 3]: four samples a pixel, haze, white balance, sensor noise."""
    xs, ys = _samples(world.size, 2)
    image, distance = _paint_surface(world, shapes, xs, ys)
    for shape in shapes:
        window = shape.window(xs, ys)
        colour, there, depth = _paint_shape(world, shape, xs[window[1]], ys[window[0], None])
        np.copyto(image[window], colour, where=there[..., None])
        np.copyto(distance[window], depth, where=there)
    clear = np.exp(-world.haze_density * distance)[..., None]
    haze = world.haze.astype(np.float32)
    image -= haze
    image *= clear
    image += haze
    image = image[0::2] + image[1::2]
    image = (image[:, 0::2] + image[:, 1::2]) * (world.gain / 4).astype(np.float32)
    image += np.float32(world.noise) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)


def label_edges(instances: np.ndarray) -> np.ndarray:
    """Map instances, farthest first, to the pixels of the nearer side of every visible boundary."""
    padded = np.pad(instances, 1, mode="edge")
    vertical = np.minimum(padded[:-2, 1:-1], padded[2:, 1:-1])
    horizontal = np.minimum(padded[1:-1, :-2], padded[1:-1, 2:])
    return (instances > np.minimum(vertical, horizontal)).astype(np.uint8)


def label_keypoints(shapes: Sequence[Shape], instances: np.ndarray) -> np.ndarray:
    """Map the shapes, farthest first, to the centres and corners (x, y, class) that nothing nearer hides.

    A ring's centre is the middle of its hole. A corner counts where a pixel beside it shows its shape.
    """
    rows, width = instances.shape
    padded = np.pad(instances, 1)
    found = [np.zeros((0, 3))]
    for index, shape in enumerate(shapes):
        points = np.array([(shape.x, shape.y), *shape.corners()])
        x, y = points.T
        shown = (x >= 0) & (x < width) & (y >= 0) & (y < rows)
        for nearer in shapes[index + 1 :]:
            shown &= nearer.inside(x, y) <= 0
        for corner in np.flatnonzero(shown[1:]) + 1:
            column, row = int(x[corner]), int(y[corner])
            shown[corner] = (padded[row : row + 3, column : column + 3] == index + 1).any()
        kinds = np.minimum(np.arange(len(points)), 1)
        found.append(np.column_stack([points, kinds])[shown])
    return np.concatenate(found).astype(np.float32)


def label_boxes(kinds: Sequence[int], instances: np.ndarray) -> np.ndarray:
    """Map instances to the tight boxes (x0, y0, x1, y1, class) of their visible pixels."""
    boxes = np.empty((len(kinds), 5), np.float32)
    for index, kind in enumerate(kinds):
        ys, xs = np.nonzero(instances == index + 1)
        boxes[index] = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1, kind
    return boxes


def label(world: World, shapes: Sequence[Shape]) -> dict[str, Any]:
    """Map a scene to its labels, one for every column."""
    instances, distance = label_pixels(world, shapes)
    kinds = [SHAPES.index(shape.name) for shape in shapes]
    return {
        "scene": tuple(BACKDROPS).index(world.backdrop),
        "segmentation": np.array([0, *(kind + 1 for kind in kinds)], np.uint8)[instances],
        "depth": distance,
        "edges": label_edges(instances),
        "keypoints": label_keypoints(shapes, instances),
        "offsets": instances,
        "shapes": [int(kind in kinds) for kind in range(len(SHAPES))],
        "boxes": label_boxes(kinds, instances),
        "count": len(shapes) - 1,
    }


class Scenes(Source):
    """Generated scenes: row `index` is a pure function of (seed, index, size), whoever loads it and in what order."""

    licence = "Generated by this program; public domain (CC0 1.0)."

    def __init__(self, settings: SourceSettings) -> None:
        if settings.root is not None:
            raise ValueError(f"scenes is generated, it reads no files: leave out its root ({settings.root})")
        if min(settings.size) < SMALLEST:
            raise ValueError(f"scenes of {settings.size} pixels show no shapes: give a size of {SMALLEST} or more")
        super().__init__(settings)

    def columns(self) -> Mapping[str, Column]:
        return COLUMNS

    def rows(self) -> Sequence[Row]:
        number = IMAGES if self.settings.images is None else self.settings.images
        names = ((index, f"scene-{index:05d}") for index in range(number))
        return [Row(id=name, origin=f"scene {index}", group=name) for index, name in names]

    def load(self, row: Row) -> Example:
        rng = np.random.default_rng([self.settings.seed, int(row.id.removeprefix("scene-"))])
        world = draw_world(rng, self.settings.size)
        shapes = draw_shapes(rng, world)
        return Example(image=paint(rng, world, shapes), labels=label(world, shapes))
