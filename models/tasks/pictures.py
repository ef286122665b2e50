"""What values of each sort look like: fixed colours, so that two pictures of one task can be compared.

Shapes: H W height and width, C classes, K colours of a table.
"""

import math

import torch
from torch import Tensor

# Okabe and Ito's eight colours, told apart by every common kind of colour vision; black is kept for "unlabelled".
PALETTE = (
    (153, 153, 153),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
TONES = (1.0, 0.6, 1.4)  # full, darker, lighter: 24 colours before they repeat
# Viridis at nine even steps: lightness grows evenly, so order can be read without hue.
RAMP = (
    (68, 1, 84),
    (71, 44, 122),
    (59, 81, 139),
    (44, 113, 142),
    (33, 144, 141),
    (39, 173, 129),
    (92, 200, 99),
    (170, 220, 50),
    (253, 231, 37),
)


def class_colours(count: int) -> Tensor:
    """Map a number of classes to their colours, floats in 0..255, [C, 3]."""
    base_K3 = torch.tensor(PALETTE, dtype=torch.float32)
    tones = [base_K3 * tone if tone <= 1 else 255 - (255 - base_K3) * (2 - tone) for tone in TONES]
    return torch.cat(tones)[torch.arange(count) % (len(TONES) * len(PALETTE))]


def mask_picture(mask_HW: Tensor, unlabelled: int) -> Tensor:
    """Map class indices to their colours, unlabelled pixels to black: uint8 [3, H, W]."""
    colours = class_colours(unlabelled + 1)
    colours[unlabelled] = 0
    return colours.to(mask_HW.device)[mask_HW.long()].permute(2, 0, 1).to(torch.uint8)


def grey_picture(share_HW: Tensor) -> Tensor:
    """Map 0..1 to black..white: uint8 [3, H, W]."""
    return (share_HW.clamp(0, 1) * 255).round().to(torch.uint8).expand(3, -1, -1)


def normal_picture(normal_3HW: Tensor) -> Tensor:
    """Map unit normals to red growing to the right, green upwards, blue towards the camera; zero to black: uint8."""
    picture = (127.5 * (1 + normal_3HW.float())).round().clamp(0, 255).to(torch.uint8)
    return picture * normal_3HW.any(0)


def ramp_picture(share_HW: Tensor) -> Tensor:
    """Map 0..1 to dark violet..yellow, by linear interpolation in the ramp: uint8 [3, H, W]."""
    ramp_K3 = torch.tensor(RAMP, dtype=torch.float32, device=share_HW.device)
    place_HW = share_HW.clamp(0, 1) * (len(RAMP) - 1)
    low_HW = place_HW.long().clamp(max=len(RAMP) - 2)
    picture_HW3 = torch.lerp(ramp_K3[low_HW], ramp_K3[low_HW + 1], (place_HW - low_HW).unsqueeze(-1))
    return picture_HW3.permute(2, 0, 1).round().to(torch.uint8)


def heat_picture(heat_CHW: Tensor) -> Tensor:
    """Map one heat map per class to the classes' colours on black, the strongest class in front: uint8 [3, H, W].

    As for boxes, the first colour is left out: grey would look like a weak peak.
    """
    strongest_HW, class_HW = heat_CHW.clamp(0, 1).max(0)
    colours = class_colours(len(heat_CHW) + 1)[1:].to(heat_CHW.device)
    return (colours[class_HW] * strongest_HW.unsqueeze(-1)).permute(2, 0, 1).round().to(torch.uint8)


def wheel_picture(vectors_2HW: Tensor) -> Tensor:
    """Map vectors of length 0..1 to white..full colour, hue by direction: uint8 [3, H, W]."""
    length_HW = vectors_2HW.norm(dim=0).clamp(max=1)
    angle_HW = torch.atan2(vectors_2HW[1], vectors_2HW[0])
    turns_3 = torch.arange(3, device=vectors_2HW.device) * (2 * math.pi / 3)
    hue_3HW = 0.5 + 0.5 * torch.cos(angle_HW - turns_3.view(3, 1, 1))
    return (255 * (1 - length_HW * (1 - hue_3HW))).round().to(torch.uint8)
