"""RetinaNet's head (Lin et al. 2017, "Focal Loss", Sec. 4): class scores and box offsets at the anchors of a pyramid.

Shapes: B batch, A anchors, C channels, H W height and width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

LEVELS = 3  # the last locations that the pyramid takes; it adds two coarser levels
SIDE = 4  # of a level's smallest anchor, in strides
SCALES = tuple(2 ** (step / 3) for step in range(3))
RATIOS = (0.5, 1.0, 2.0)  # height to width


class RetinaHead(nn.Module):
    """Map location features to [B, A + 1, classes + 8]: class logits, box offsets, and the anchor (x0, y0, x1, y1).

    The last row is no anchor but the image, (0, 0, W, H), with zeros for the rest: so boxes can be clipped and drawn
    knowing nothing else. The anchors are float32 under autocast too. Locations are normalised before they meet, since
    untrained their scales differ by orders; image by image, so nothing depends on the rest of a batch.
    """

    def __init__(self, channels: Sequence[int], reductions: Sequence[int], width: int, classes: int) -> None:
        super().__init__()
        used = channels[-LEVELS:]
        self.strides = [*reductions[-LEVELS:], 2 * reductions[-1], 4 * reductions[-1]]
        self.norms = nn.ModuleList([nn.GroupNorm(1, c) for c in used])
        self.pyramid = FeaturePyramidNetwork(list(used), width, LastLevelP6P7(used[-1], width))
        sides = tuple(tuple(SIDE * stride * scale for scale in SCALES) for stride in self.strides)
        self.anchors = AnchorGenerator(sides, (RATIOS,) * len(sides))
        self.boxes = RetinaNetHead(width, len(SCALES) * len(RATIOS), classes)

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Map features, finest first, to raw output."""
        used = [norm(feature) for norm, feature in zip(self.norms, features[-LEVELS:], strict=True)]
        levels = list(self.pyramid({str(place): feature for place, feature in enumerate(used)}).values())
        found = self.boxes(levels)
        raw_BA = torch.cat([found["cls_logits"], found["bbox_regression"]], 2)
        image_14 = torch.tensor([[0.0, 0.0, size[1], size[0]]], device=raw_BA.device)
        boxes_A4 = torch.cat([*self._anchors(levels), image_14])
        return torch.cat([F.pad(raw_BA, (0, 0, 0, 1)), boxes_A4.expand(len(raw_BA), -1, -1)], 2)

    def _anchors(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """By the backbone's strides: the image's size over the grid's is no stride where the backbone has padded."""
        self.anchors.set_cell_anchors(torch.float32, levels[0].device)
        grids = [list(level.shape[-2:]) for level in levels]
        strides = [[torch.tensor(stride, device=levels[0].device)] * 2 for stride in self.strides]
        return self.anchors.grid_anchors(grids, strides)
