"""Cells of a shard -> the batch tensors that `models.spec.Column` names; the inverse of `pipeline.encoding`.

B images, H W height and width, P points or boxes.
"""

from collections.abc import Callable

import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.io import ImageReadMode, decode_image

from models.spec import IGNORE, Column


def _bytes(cell: pa.Scalar) -> Tensor:
    return torch.frombuffer(bytearray(cell.as_buffer()), dtype=torch.uint8)


def decode_rgb(cell: pa.Scalar) -> Tensor:
    """Map an image's cell to uint8 [3, H, W]."""
    return decode_image(_bytes(cell), ImageReadMode.RGB)


def _classes(cells: pa.ChunkedArray, _column: Column, _size: tuple[int, int], _width: int) -> Tensor:
    return torch.tensor(cells.fill_null(-1).to_numpy(), dtype=torch.long)


def _flags(cells: pa.ChunkedArray, column: Column, _size: tuple[int, int], _width: int) -> Tensor:
    unlabelled = [-1] * len(column.classes)
    return torch.tensor([unlabelled if row is None else row for row in cells.to_pylist()], dtype=torch.int8)


def _maps(cells: pa.ChunkedArray, _column: Column, size: tuple[int, int], _width: int) -> Tensor:
    unlabelled = torch.full(size, IGNORE, dtype=torch.uint8)
    return torch.stack(
        [decode_image(_bytes(cell), ImageReadMode.GRAY)[0] if cell.is_valid else unlabelled for cell in cells]
    )


def _fields(cells: pa.ChunkedArray, column: Column, size: tuple[int, int], _width: int) -> Tensor:
    unlabelled = torch.zeros(size, dtype=torch.float32)
    return torch.stack(
        [
            decode_image(_bytes(cell), ImageReadMode.UNCHANGED)[0].float() * column.scale
            if cell.is_valid
            else unlabelled
            for cell in cells
        ]
    )


def _normals(cells: pa.ChunkedArray, _column: Column, size: tuple[int, int], _width: int) -> Tensor:
    unlabelled = torch.zeros(3, *size, dtype=torch.uint8)
    stored = torch.stack([decode_rgb(cell) if cell.is_valid else unlabelled for cell in cells])
    return F.normalize((stored.float() - 128) * stored.any(1, keepdim=True), dim=1)


def _lists(entry: int) -> Callable[[pa.ChunkedArray, Column, tuple[int, int], int], Tensor]:
    def decode(cells: pa.ChunkedArray, _column: Column, _size: tuple[int, int], width: int) -> Tensor:
        out = torch.zeros(len(cells), width, entry)
        out[..., -1] = -1
        for row, values in enumerate(cells.to_pylist()):
            if values is None:
                out[row, :, -1] = -2
            elif values:
                found = torch.tensor(values).view(-1, entry)
                out[row, : len(found)] = found
        return out

    return decode


MAP_BYTES = {"mask": 1, "instances": 1, "field": 4, "normals": 12}  # a pixel, decoded

DECODERS: dict[str, Callable[[pa.ChunkedArray, Column, tuple[int, int], int], Tensor]] = {
    "class": _classes,
    "flags": _flags,
    "mask": _maps,
    "instances": _maps,
    "field": _fields,
    "normals": _normals,
    "points": _lists(3),
    "boxes": _lists(5),
}
