"""Cells of a shard -> the batch tensors that `models.spec.Column` names; the inverse of `pipeline.encoding`.

Cells are read one by one where they lie: Arrow's own take joins chunks, which is slow and cannot pass 2 GiB.
B images, H W height and width, P points or boxes.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.io import ImageReadMode, decode_image

from models.spec import IGNORE, Column
from pipeline.pixel_kernels import planes

Decode = Callable[[pa.ChunkedArray, Sequence[int], Column, tuple[int, int], int], Tensor]


def is_raw(cells: pa.ChunkedArray) -> bool:
    """Whether a column holds images as their bytes, not compressed."""
    return pa.types.is_fixed_size_binary(cells.type)


def decode_images(cells: pa.ChunkedArray, rows: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Map the cells of these rows to uint8 [B, 3, H, W]."""
    images = np.empty((len(rows), 3, *size), dtype=np.uint8)
    for image, row in zip(images.reshape(len(rows), 3, -1), rows, strict=True):
        if is_raw(cells):
            image.reshape(-1)[:] = np.frombuffer(cells[row].as_buffer(), dtype=np.uint8)
        else:
            planes(_picture(cells[row], ImageReadMode.RGB).permute(1, 2, 0).reshape(-1, 3).numpy(), image)
    return torch.from_numpy(images)


def _picture(cell: pa.Scalar, mode: ImageReadMode) -> Tensor:
    return decode_image(torch.frombuffer(bytearray(cell.as_buffer()), dtype=torch.uint8), mode)


def _classes(
    cells: pa.ChunkedArray, rows: Sequence[int], _column: Column, _size: tuple[int, int], _width: int
) -> Tensor:
    found = (cells[row].as_py() for row in rows)
    return torch.tensor([-1 if index is None else index for index in found], dtype=torch.long)


def _flags(cells: pa.ChunkedArray, rows: Sequence[int], column: Column, _size: tuple[int, int], _width: int) -> Tensor:
    out = np.full((len(rows), len(column.classes)), -1, dtype=np.int8)
    for flags, row in zip(out, rows, strict=True):
        if (cell := cells[row]).is_valid:
            flags[:] = cell.values.to_numpy()
    return torch.from_numpy(out)


def _maps(cells: pa.ChunkedArray, rows: Sequence[int], _column: Column, size: tuple[int, int], _width: int) -> Tensor:
    out = torch.full((len(rows), *size), IGNORE, dtype=torch.uint8)
    for values, row in zip(out, rows, strict=True):
        if (cell := cells[row]).is_valid:
            values.copy_(_picture(cell, ImageReadMode.GRAY)[0])
    return out


def _fields(cells: pa.ChunkedArray, rows: Sequence[int], column: Column, size: tuple[int, int], _width: int) -> Tensor:
    out = torch.zeros(len(rows), *size)
    for values, row in zip(out, rows, strict=True):
        if (cell := cells[row]).is_valid:
            values.copy_(_picture(cell, ImageReadMode.UNCHANGED)[0]).mul_(column.scale)
    return out


def _normals(
    cells: pa.ChunkedArray, rows: Sequence[int], _column: Column, size: tuple[int, int], _width: int
) -> Tensor:
    stored = torch.zeros(len(rows), 3, *size, dtype=torch.uint8)
    for values, row in zip(stored, rows, strict=True):
        if (cell := cells[row]).is_valid:
            values.copy_(_picture(cell, ImageReadMode.RGB))
    return F.normalize((stored.float() - 128) * stored.any(1, keepdim=True), dim=1)


def _lists(entry: int) -> Decode:
    def decode(
        cells: pa.ChunkedArray, rows: Sequence[int], _column: Column, _size: tuple[int, int], width: int
    ) -> Tensor:
        out = np.zeros((len(rows), width, entry), dtype=np.float32)
        out[..., -1] = -1
        for entries, row in zip(out, rows, strict=True):
            if (cell := cells[row]).is_valid:
                found = cell.values.to_numpy().reshape(-1, entry)
                entries[: len(found)] = found
            else:
                entries[:, -1] = -2
        return torch.from_numpy(out)

    return decode


MAP_BYTES = {"mask": 1, "instances": 1, "field": 4, "normals": 12}  # a pixel, decoded

DECODERS: dict[str, Decode] = {
    "class": _classes,
    "flags": _flags,
    "mask": _maps,
    "instances": _maps,
    "field": _fields,
    "normals": _normals,
    "points": _lists(3),
    "boxes": _lists(5),
}
