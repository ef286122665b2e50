"""Surface normals from a depth map: a plane fitted in a window around every pixel.

The inverse depth of a plane is linear in pixel coordinates, and a structured-light camera's noise is about the same at
any inverse depth. So a plane is an ordinary least-squares fit of 1 / depth over a window; the sums that it needs, over
every window of an image, are differences of running sums.
"""

from itertools import product

import numpy as np

# The colour camera of NYU Depth v2 (its toolbox), as shares of 640 x 480; the first pixel's centre lies at 0.5, not 1.
FOCAL = (518.86 / 640, 519.47 / 480)
CENTRE = (325.08 / 640, 253.24 / 480)
# Of the windows, as shares of the height: wide ones even out the steps of the stored depth, small ones fit furniture.
RADII = (36 / 480, 12 / 480)
SHIFTS = 3  # windows tried to each side of a pixel's own
LEAST_SHARE = 0.9  # of a window's pixels that must have a depth
NOISE = 0.002  # 1 / m: rms that a fit may leave over, besides twice that of rounding the stored depth
OUTLIER = 3  # times what a fit may leave over: a pixel farther off the plane lies on another surface

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]  # a, b, c of 1 / depth = a x + b y + c


def normals_from_depth(depth: np.ndarray, size: tuple[int, int], step: float, *, mirrored: bool) -> np.ndarray:
    """Depth [H, W] in metres, 0 = none, stored in steps of `step` -> unit normals float32 [*size, 3], zero = none.

    x points right, y up, z out of the scene; every normal faces the camera. A pixel takes the plane of the first window
    that covers it and holds one plane with it, wide ones before small ones, near ones before far ones: beside an edge
    that is a window on its side of it.
    """
    height, width = depth.shape
    middle = (1 - CENTRE[0] if mirrored else CENTRE[0], CENTRE[1])
    x, y = (
        ((np.arange(extent) + 0.5) / extent - centre) / focal
        for extent, centre, focal in zip((width, height), middle, FOCAL, strict=True)
    )
    inverse = np.divide(1, depth, out=np.zeros(depth.shape), where=depth > 0, dtype=float)
    rows, columns = ((2 * np.arange(n) + 1) * extent // (2 * n) for n, extent in zip(size, depth.shape, strict=True))
    normals = np.zeros((*size, 3))
    missing = np.argwhere(inverse[np.ix_(rows, columns)] > 0)
    for radius in (max(1, round(share * height)) for share in RADII):
        planes, left_over = fit_planes(inverse, x, y, radius)
        for down, right in _shifts(radius):
            row, column = rows[missing[:, 0]], columns[missing[:, 1]]
            window = (row + down).clip(0, height - 1), (column + right).clip(0, width - 1)
            a, b, c = (plane[window] for plane in planes)
            wanted = inverse[row, column]
            allowed = np.hypot(NOISE, step * wanted**2 / np.sqrt(3))
            off = np.abs(a * x[column] + b * y[row] + c - wanted)
            fits = (left_over[window] < allowed) & (off < OUTLIER * allowed)
            normals[tuple(missing[fits].T)] = np.stack([-a, b, c], -1)[fits]
            missing = missing[~fits]
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.divide(normals, length, out=normals, where=length > 0).astype(np.float32)


def fit_planes(inverse: np.ndarray, x: np.ndarray, y: np.ndarray, radius: int) -> tuple[Planes, np.ndarray]:
    """1 / depth [H, W], 0 = none, and the rays x [W], y [H] -> the plane of the window around each pixel, and its rms.

    The rms is that of what the fit leaves over in 1 / depth; infinite where too few pixels have a depth.
    """
    there = (inverse > 0).astype(float)
    number = _window_sums(there, radius)
    least = LEAST_SHARE * (2 * radius + 1) ** 2
    share = 1 / np.maximum(number, 1)

    def mean(values: np.ndarray) -> np.ndarray:
        return _window_sums(values, radius) * share

    y = y[:, None]
    there_x, there_y = there * x, there * y
    mean_x, mean_y, mean_q = mean(there_x), mean(there_y), mean(inverse)
    xx, xy, yy = mean(there_x * x) - mean_x**2, mean(there_x * y) - mean_x * mean_y, mean(there_y * y) - mean_y**2
    xq, yq = mean(x * inverse) - mean_x * mean_q, mean(y * inverse) - mean_y * mean_q
    determinant = np.where(number < least, 1, xx * yy - xy**2)
    a, b = (xq * yy - yq * xy) / determinant, (yq * xx - xq * xy) / determinant
    squared = mean(inverse**2) - mean_q**2 - a * xq - b * yq
    rms = np.where(number < least, np.inf, np.sqrt(squared.clip(min=0)))
    return (a, b, mean_q - a * mean_x - b * mean_y), rms


def _window_sums(values: np.ndarray, radius: int) -> np.ndarray:
    """The sum over the window around each pixel, cut off at the image's edges."""
    for _axis in ("down", "across"):
        extent = len(values)
        running = values.cumsum(0)
        values = running[(np.arange(extent) + radius).clip(max=extent - 1)]
        values[radius + 1 :] -= running[: extent - radius - 1]
        values = values.T
    return values


def _shifts(radius: int) -> list[tuple[int, int]]:
    """From a pixel to the centres of windows that cover it, the nearest first."""
    stride = max(1, radius // SHIFTS)
    steps = range(-(radius // stride) * stride, radius + 1, stride)
    return sorted(product(steps, steps), key=lambda shift: shift[0] ** 2 + shift[1] ** 2)
