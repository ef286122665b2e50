"""Loops over the pixels of a batch, compiled: images and label maps cut out, resized, mirrored, and split into planes.

Every machine rounds alike: source positions come as whole numbers, and images are blended in 32-bit integers.
B images, C channels, H W height and width, R rows of whatever has no more structure, P pixels.
"""

import numpy as np
from numba import njit

BITS = 11  # of a position's fraction; a level times two fractions still fits in 32 bits
ONE = np.uint32(1 << BITS)
HALF = np.uint32(1 << (2 * BITS - 1))


@njit(cache=True)
def blend(images_BCHW: np.ndarray, y_BH: np.ndarray, x_BW: np.ndarray, out_BCHW: np.ndarray) -> None:
    """Bilinear: write what uint8 images show at positions y, x, uint32 in units of 1 / ONE pixel."""
    batch, channels, height, width = images_BCHW.shape
    assert width > 1, "between which pixels?"
    left, rest = np.empty(width, np.uint32), np.empty(width, np.uint32)
    # A source row is resampled across once: odd and even ones have a place each, as a pair that is blended needs both.
    across, held = np.empty((2, width), np.uint32), np.empty(2, np.int64)
    for b in range(batch):
        for j in range(width):
            left[j] = min(x_BW[b, j] >> BITS, width - 2)  # the last pixel is all of a pair's right one
            rest[j] = x_BW[b, j] - (left[j] << BITS)
        for c in range(channels):
            held[:] = -1
            for i in range(height):
                top = np.int64(y_BH[b, i] >> BITS)
                bottom = min(top + 1, height - 1)
                for row in (top, bottom):
                    if held[row & 1] != row:
                        held[row & 1] = row
                        _across(images_BCHW[b, c, row], left, rest, across[row & 1])
                weight = np.uint32(y_BH[b, i] & (ONE - np.uint32(1)))
                _between(across[top & 1], across[bottom & 1], weight, out_BCHW[b, c, i])


@njit(cache=True, inline="always")
def _across(row: np.ndarray, left: np.ndarray, rest: np.ndarray, out: np.ndarray) -> None:
    for j in range(len(out)):
        level = np.uint32(row[left[j]])
        out[j] = level * ONE + (np.uint32(row[left[j] + np.uint32(1)]) - level) * rest[j]  # modulo 2^32, so far as < 0


@njit(cache=True, inline="always")
def _between(top: np.ndarray, bottom: np.ndarray, weight: np.uint32, out: np.ndarray) -> None:
    for j in range(len(out)):
        out[j] = (top[j] * (ONE - weight) + bottom[j] * weight + HALF) >> np.uint32(2 * BITS)


@njit(cache=True)
def pick(maps_BCHW: np.ndarray, rows_BH: np.ndarray, columns_BW: np.ndarray, out_BCHW: np.ndarray) -> None:
    """Nearest: write the pixels of maps of any type that stand at these rows and columns, uint32."""
    batch, channels, height, width = maps_BCHW.shape
    for b in range(batch):
        columns = columns_BW[b]
        for c in range(channels):
            for i in range(height):
                row, out = maps_BCHW[b, c, rows_BH[b, i]], out_BCHW[b, c, i]
                for j in range(width):
                    out[j] = row[columns[j]]


@njit(cache=True)
def mirror(maps_BRW: np.ndarray, flip_B: np.ndarray, out_BRW: np.ndarray) -> None:
    """Write maps of any type, mirrored where `flip` says so."""
    batch, rows, width = maps_BRW.shape
    last = np.uint32(width - 1)
    for b in range(batch):
        for r in range(rows):
            row, out = maps_BRW[b, r], out_BRW[b, r]
            if flip_B[b]:
                for j in range(np.uint32(width)):  # unsigned: no check for a negative index stands in the way of SIMD
                    out[j] = row[last - j]
            else:
                for j in range(width):
                    out[j] = row[j]


@njit(cache=True)
def planes(picture_P3: np.ndarray, out_3P: np.ndarray) -> None:
    """Write a picture's red, green and blue, which alternate, as one plane each."""
    picture, red, green, blue = picture_P3.reshape(-1), out_3P[0], out_3P[1], out_3P[2]
    for p in range(len(red)):
        red[p], green[p], blue[p] = picture[3 * p], picture[3 * p + 1], picture[3 * p + 2]
