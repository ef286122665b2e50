"""What the generated scenes are made of: outlines, textures, shapes, and the floor and wall they stand before.

All of it maps points to values: of the shape's own plane (u, v), of the image in pixels (x, y). NumPy alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

BULGE = 0.05  # how far a shape's middle stands out towards the viewer, as a part of its distance
BEVEL = 0.5  # the width of its rounded rim, as a part of its radius

Outline = Callable[[np.ndarray, np.ndarray], np.ndarray]
Texture = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.9 - np.hypot(u, v)


def _ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.27 - np.abs(np.hypot(u, v) - 0.68)


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.7 - np.maximum(np.abs(u), np.abs(v))


def _star(u: np.ndarray, v: np.ndarray, tips: int, inner: float) -> np.ndarray:
    """A star with `tips` outer corners at radius 1, the first upwards, and inner ones at radius `inner`."""
    sector = 2 * np.pi / tips
    radius, angle = np.hypot(u, v), np.arctan2(u, -v)
    angle = np.abs(angle - sector * np.rint(angle / sector))
    edge_x, edge_y = inner * np.cos(sector / 2) - 1, inner * np.sin(sector / 2)
    return (edge_x * radius * np.sin(angle) - edge_y * (radius * np.cos(angle) - 1)) / np.hypot(edge_x, edge_y)


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    u, v = np.abs(u), np.abs(v)
    return np.minimum(0.95 - np.maximum(u, v), 0.3 - np.minimum(u, v))


def _tips(number: int) -> np.ndarray:
    angles = 2 * np.pi * np.arange(number) / number
    return np.stack([np.sin(angles), -np.cos(angles)], axis=1)


# Each maps (u, v), in units of the shape's radius, to how deep the point lies inside the outline (negative: outside).
OUTLINES: dict[str, Outline] = {
    "disc": _disc,
    "square": _square,
    "triangle": partial(_star, tips=3, inner=0.5),
    "star": partial(_star, tips=5, inner=0.5),
    "ring": _ring,
    "cross": _cross,
}
SHAPES = tuple(OUTLINES)

# The outer corners (u, v) of the shapes that have some.
CORNERS: dict[str, np.ndarray] = {
    "square": 0.7 * np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)]),
    "triangle": _tips(3),
    "star": _tips(5),
    "cross": np.array([(a * s, b * t) for a, b in ((0.95, 0.3), (0.3, 0.95)) for s in (-1, 1) for t in (-1, 1)]),
}


def _wave(phase: np.ndarray) -> np.ndarray:
    """A square wave of period 1 between 0 and 1, with soft flanks."""
    return np.clip(0.5 + 2 * np.sin(2 * np.pi * phase), 0, 1)


def _plain(u: np.ndarray, _v: np.ndarray, _lattice: np.ndarray) -> np.ndarray:
    return np.zeros_like(u)


def _stripes(u: np.ndarray, _v: np.ndarray, _lattice: np.ndarray) -> np.ndarray:
    return _wave(u)


def _checker(u: np.ndarray, v: np.ndarray, _lattice: np.ndarray) -> np.ndarray:
    return np.clip(0.5 + 3 * np.sin(np.pi * u) * np.sin(np.pi * v), 0, 1)


def _dots(u: np.ndarray, v: np.ndarray, _lattice: np.ndarray) -> np.ndarray:
    return np.clip(2.5 - 8 * np.hypot(u - np.rint(u), v - np.rint(v)), 0, 1)


def _waves(u: np.ndarray, v: np.ndarray, _lattice: np.ndarray) -> np.ndarray:
    return _wave(v + 0.4 * np.sin(np.pi * u))


def _bricks(u: np.ndarray, v: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    row = np.floor(v)
    along = 0.5 * u + 0.5 * (row % 2)
    brick = np.floor(along)
    side = len(lattice)
    tone = lattice[row.astype(np.intp) % side, brick.astype(np.intp) % side]
    joint = (np.minimum(v - row, 2 * (along - brick)) < 0.2).astype(np.float32)
    return (1 - joint) * 0.4 * tone + joint


def _noise(u: np.ndarray, v: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Value noise: the lattice's numbers at the whole numbers, smooth in between, periodic."""
    side = len(lattice)
    floor_u, floor_v = np.floor(u), np.floor(v)
    s, t = u - floor_u, v - floor_v
    s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
    i, j = floor_v.astype(np.intp) % side, floor_u.astype(np.intp) % side
    here, flat = i * side + j, lattice.ravel()
    right, below = (j + 1) % side - j, ((i + 1) % side - i) * side
    top = flat[here] * (1 - s) + flat[here + right] * s
    bottom = flat[here + below] * (1 - s) + flat[here + below + right] * s
    return top * (1 - t) + bottom * t


def _clouds(u: np.ndarray, v: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    coarse, fine = _noise(0.7 * u, 0.7 * v, lattice), _noise(1.9 * u, 1.9 * v, lattice)
    return np.clip(2.4 * (0.65 * coarse + 0.35 * fine) - 0.7, 0, 1)


def _meadow(u: np.ndarray, v: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    blades, patches = _noise(5 * u, 1.3 * v, lattice), _noise(0.6 * u + 7, 0.6 * v, lattice)
    return np.clip(1.6 * (0.75 * blades + 0.25 * patches) - 0.3, 0, 1)


# Each maps (u, v), where 1 is about one period, and a square of random numbers to the share 0..1 of the second colour.
TEXTURES: dict[str, Texture] = {"plain": _plain, "stripes": _stripes, "checker": _checker, "dots": _dots}
BACKDROPS: dict[str, Texture] = {
    "meadow": _meadow,
    "bricks": _bricks,
    "waves": _waves,
    "checker": _checker,
    "clouds": _clouds,
    "stripes": _stripes,
}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A flat shape with a rounded rim that faces the viewer; lengths in pixels, `distance` in metres."""

    name: str
    x: float
    y: float
    radius: float
    distance: float
    axes: np.ndarray  # [2, 2]: where the shape's own axes, one radius long, lie in the image
    texture: str
    frequency: float
    colours: np.ndarray  # [2, 3]

    def local(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map points of the image to the shape's own axes, in units of its radius."""
        (a, b), (c, d) = self.axes.tolist()
        area = a * d - b * c
        x, y = x - self.x, y - self.y
        return d / area * x - b / area * y, a / area * y - c / area * x

    def inside(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Map points of the image to how deep they lie inside the outline, in units of the radius."""
        return OUTLINES[self.name](*self.local(x, y))

    def window(self, xs: np.ndarray, ys: np.ndarray) -> tuple[slice, slice]:
        """The rows and columns of a grid of samples that the shape can touch."""
        left, right = np.searchsorted(xs, (self.x - self.radius, self.x + self.radius))
        top, bottom = np.searchsorted(ys, (self.y - self.radius, self.y + self.radius))
        return slice(top, bottom), slice(left, right)

    def corners(self) -> np.ndarray:
        """The outer corners [P, 2] in the image; none for a round shape."""
        return CORNERS.get(self.name, np.zeros((0, 2))) @ self.axes.T + (self.x, self.y)


def height(inside: np.ndarray) -> np.ndarray:
    """Map the depth inside an outline to the height 0..1 of the rounded rim: a quarter circle of width BEVEL."""
    slope = 1 - np.clip(inside / BEVEL, 0, 1)
    return np.sqrt(1 - slope * slope)


@dataclass(frozen=True, kw_only=True)
class World:
    """What surrounds the shapes: the camera over a floor that ends at a wall, one texture on both, light and haze."""

    size: tuple[int, int]
    horizon: float  # the row of the image at infinite distance
    camera: float  # metres above the floor
    wall: float  # metres away
    slant: float  # of the wall: the relative change of its distance across the image
    backdrop: str
    axes: np.ndarray  # [2, 2]: metres on the floor -> periods of the texture
    lattice: np.ndarray
    colours: np.ndarray  # [2, 3]
    light: np.ndarray  # [3]: unit vector to the right, down, to the viewer
    haze: np.ndarray  # [3]: the colour
    haze_density: float  # per metre
    gain: np.ndarray  # [3]
    noise: float

    def floor_row(self, distance: float) -> float:
        """The image row in which the floor is `distance` metres away."""
        return self.horizon + self.size[0] * self.camera / distance

    def surface(self, xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Map a grid of samples to the distance, what of it is floor, and (u, v), in metres along the surface."""
        rows, width = self.size
        across = (xs - width / 2) / min(rows, width)
        below = (ys - self.horizon)[:, None] / rows
        wall = self.wall * (1 + self.slant * (xs / width - 0.5))[None]
        floor = below * wall > self.camera
        distance = np.where(floor, self.camera / np.maximum(below, 1e-3), wall)
        up = np.maximum(self.camera - below * wall, 0)
        return distance, floor, across * distance, distance + up
