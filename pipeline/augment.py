"""Random mirrors and crops, the same for an image and all its labels, drawn per global batch.

B images, H W height and width, C channels, P points or boxes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.spec import Column
from pipeline.config import Augment

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
    return _image(images, windows), moved


def _mirror(maps: Tensor, flip_B: Tensor) -> Tensor:
    return torch.where(flip_B.view(-1, *(1 for _ in maps.shape[1:])), maps.flip(-1), maps)


def _positions(start_B: Tensor, scale_B: Tensor, extent: int) -> Tensor:
    """Where each output pixel's centre falls in the source, as an index with fraction: [B, extent]."""
    return start_B[:, None] + (torch.arange(extent) + 0.5) * scale_B[:, None] - 0.5


def _image(images: Tensor, windows: Windows) -> Tensor:
    """Bilinear, the edges held. One image at a time: its floats stay in the processor's cache, a batch's don't."""
    if not bool((windows.scale_B < 1).any()):
        return _mirror(images, windows.flip_B)
    height, width = images.shape[-2:]
    # grid_sample counts from -1 to 1, the image's outer edges
    y_BH = (2 * _positions(windows.top_B, windows.scale_B, height) + 1) / height - 1
    x_BW = _mirror((2 * _positions(windows.left_B, windows.scale_B, width) + 1) / width - 1, windows.flip_B)
    seen = torch.empty_like(images)
    for image, y_H, x_W, out in zip(images, y_BH, x_BW, seen, strict=True):
        grid = torch.stack([x_W.expand(height, width), y_H[:, None].expand(height, width)], -1)
        cut = F.grid_sample(image[None].float(), grid[None], padding_mode="border", align_corners=False)
        out.copy_(cut[0].round_())
    return seen


def _nearest(maps: Tensor, windows: Windows, size: tuple[int, int]) -> Tensor:
    if bool((windows.scale_B < 1).any()):
        rows, columns = (
            _positions(start, windows.scale_B, extent).round().clamp(0, extent - 1).long()
            for start, extent in zip((windows.top_B, windows.left_B), size, strict=True)
        )
        maps = maps[torch.arange(len(maps))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return _mirror(maps, windows.flip_B)


def _normals(normals: Tensor, windows: Windows, size: tuple[int, int]) -> Tensor:
    """A mirror also turns round what points right; the vectors of a crop stay those of the whole image's camera."""
    right, up, out = (_nearest(part, windows, size) for part in normals.unbind(1))
    return torch.stack([torch.where(windows.flip_B.view(-1, 1, 1), -right, right), up, out], 1)


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
