"""Random mirrors and crops, the same for an image and all its labels, drawn per global batch.

B images, H W height and width, C channels, P points or boxes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.spec import Column
from pipeline.config import Augment
from pipeline.pixel_kernels import ONE, blend, mirror, pick

LEAST_BOX = 1.0  # pixels: a box thinner than this after cropping is gone


@dataclass(frozen=True, kw_only=True)
class Windows:
    """For every image the window that is cut out and resized to H x W, and whether it is mirrored."""

    top_B: Tensor
    left_B: Tensor
    scale_B: Tensor
    flip_B: Tensor

    def __getitem__(self, rows: slice) -> "Windows":
        return Windows(
            top_B=self.top_B[rows], left_B=self.left_B[rows], scale_B=self.scale_B[rows], flip_B=self.flip_B[rows]
        )


def draw_windows(count: int, size: tuple[int, int], settings: Augment, generator: torch.Generator) -> Windows:
    """Draw windows for a global batch; every rank draws the same and takes its rows."""
    scale_B, down_B, right_B, flip_B = torch.rand(4, count, generator=generator)
    scale_B = settings.crop + (1 - settings.crop) * scale_B
    return Windows(
        top_B=down_B * (1 - scale_B) * size[0],
        left_B=right_B * (1 - scale_B) * size[1],
        scale_B=scale_B,
        flip_B=flip_B < settings.flip,
    )


def augment(
    images: Tensor, labels: Mapping[str, Tensor], columns: Mapping[str, Column], windows: Windows
) -> tuple[Tensor, dict[str, Tensor]]:
    """Map uint8 images [B, 3, H, W] and stored labels to the same, seen through the windows."""
    height, width = images.shape[-2:]
    moved = {name: _MOVES[columns[name].layout](raw, windows, (height, width)) for name, raw in labels.items()}
    return _seen(images, windows, blend, int(ONE)), moved


def _positions(start_B: Tensor, windows: Windows, extent: int, unit: int) -> Tensor:
    """Where each output pixel's centre falls in the source, in whole 1 / unit pixels, the edges held: [B, extent]."""
    at = start_B[:, None] + (torch.arange(extent) + 0.5) * windows.scale_B[:, None] - 0.5
    return (at * unit).round_().clamp_(0, (extent - 1) * unit).to(torch.int32)


def _seen(maps: Tensor, windows: Windows, kernel: Callable[..., None], unit: int) -> Tensor:
    """Map [B, ..., H, W] to what the windows show of it; the kernel reads positions in 1 / unit pixels."""
    height, width = maps.shape[-2:]
    maps, seen, flip_B = maps.contiguous(), torch.empty(maps.shape, dtype=maps.dtype), windows.flip_B.contiguous()
    if bool((windows.scale_B < 1).any()):
        y_BH = _positions(windows.top_B, windows, height, unit)
        x_BW = _positions(windows.left_B, windows, width, unit)
        x_BW = torch.where(flip_B[:, None], x_BW.flip(1), x_BW)
        at, shape = (place.numpy().view(np.uint32) for place in (y_BH, x_BW)), (len(maps), -1, height, width)
        kernel(maps.view(shape).numpy(), *at, seen.view(shape).numpy())
    else:
        shape = (len(maps), -1, width)
        mirror(maps.view(shape).numpy(), flip_B.numpy(), seen.view(shape).numpy())
    return seen


def _nearest(maps: Tensor, windows: Windows, _size: tuple[int, int]) -> Tensor:
    return _seen(maps, windows, pick, 1)


def _normals(normals: Tensor, windows: Windows, size: tuple[int, int]) -> Tensor:
    """A mirror also turns round what points right; the vectors of a crop stay those of the whole image's camera."""
    seen = _nearest(normals, windows, size)
    seen[windows.flip_B, 0] *= -1
    return seen


def _coordinates(xy: Tensor, windows: Windows, width: int) -> Tensor:
    """Map source coordinates [B, P, 2] to those of the window's image."""
    start = torch.stack([windows.left_B, windows.top_B], dim=-1)[:, None]
    xy = (xy - start) / windows.scale_B[:, None, None]
    x = torch.where(windows.flip_B[:, None], width - xy[..., 0], xy[..., 0])
    return torch.stack([x, xy[..., 1]], dim=-1)


def _points(points: Tensor, windows: Windows, size: tuple[int, int]) -> Tensor:
    xy = _coordinates(points[..., :2], windows, size[1])
    inside = ((xy >= 0) & (xy <= torch.tensor([size[1], size[0]]))).all(-1)
    kind = torch.where(inside | (points[..., 2] < 0), points[..., 2], -1.0)
    return torch.cat([xy, kind[..., None]], dim=-1)


def _boxes(boxes: Tensor, windows: Windows, size: tuple[int, int]) -> Tensor:
    bound = torch.tensor([size[1], size[0]])
    corners = [_coordinates(boxes[..., at : at + 2], windows, size[1]).clamp(min=0).minimum(bound) for at in (0, 2)]
    low, high = torch.minimum(*corners), torch.maximum(*corners)
    alive = (high - low >= LEAST_BOX).all(-1) | (boxes[..., 4] < 0)
    return torch.cat([low, high, torch.where(alive, boxes[..., 4], -1.0)[..., None]], dim=-1)


def _unmoved(raw: Tensor, _windows: Windows, _size: tuple[int, int]) -> Tensor:
    return raw


_MOVES: dict[str, Callable[[Tensor, Windows, tuple[int, int]], Tensor]] = {
    "class": _unmoved,
    "flags": _unmoved,
    "mask": _nearest,
    "field": _nearest,
    "normals": _normals,
    "instances": _nearest,
    "points": _points,
    "boxes": _boxes,
}
