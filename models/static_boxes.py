"""Detection's prediction without a shape that depends on values; `models.tasks.detection` is what it must equal.

Shapes: B batch, K candidates, P predicted boxes, A anchors, C classes.
"""

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from models.tasks.detection import CODER, Detection


def static_boxes(task: Detection, output: Tensor, size: tuple[int, int]) -> Tensor:
    """Map raw output [B, A + 1, C + 8] for images of a size (H, W) to boxes [B, P + 1, 6], as `Detection.predict`."""
    classes = len(task.classes)
    logits_BAC, offsets_BA4, anchors_BA4 = output[:, :-1].float().split([classes, 4, 4], -1)
    scores = logits_BAC.sigmoid().flatten(1)
    score_BK, best_BK = scores.topk(min(int(task.settings["candidates"]), scores.shape[1]))
    row_BK4 = (best_BK // classes)[..., None].expand(-1, -1, 4)
    parts = (part.gather(1, row_BK4).flatten(0, 1) for part in (offsets_BA4, anchors_BA4))
    boxes_BK4 = clip_boxes_to_image(CODER.decode_single(*parts), size).unflatten(0, best_BK.shape)
    found_BK6 = torch.cat([boxes_BK4, (best_BK % classes)[..., None], score_BK[..., None]], -1)
    kept_BK = unsuppressed(found_BK6, task.settings["overlap"], score_BK > task.settings["score"])
    return _in_rows(found_BK6, kept_BK, int(task.settings["detections"]), size)


def unsuppressed(found_BK6: Tensor, overlap: float, candidate_BK: Tensor) -> Tensor:
    """Map boxes, the best first, to whether no better box that stays, of the same class, covers each by `overlap`.

    That is greedy suppression: what it decides for the first k boxes is right after k turns, and when a turn changes
    nothing it is right for all. As torchvision does, classes are moved apart, by more than any coordinate.
    """
    boxes_BK4 = found_BK6[..., :4]
    apart_B11 = torch.where(candidate_BK[..., None], boxes_BK4, 0).amax((1, 2), keepdim=True) + 1
    moved_BK4 = boxes_BK4 + found_BK6[..., 4:5] * apart_B11
    area_BK = (moved_BK4[..., 2] - moved_BK4[..., 0]) * (moved_BK4[..., 3] - moved_BK4[..., 1])
    low_BKK2 = torch.maximum(moved_BK4[:, :, None, :2], moved_BK4[:, None, :, :2])
    high_BKK2 = torch.minimum(moved_BK4[:, :, None, 2:], moved_BK4[:, None, :, 2:])
    common_BKK = (high_BKK2 - low_BKK2).clamp(min=0).prod(-1)
    covers_BKK = common_BKK / (area_BK[:, :, None] + area_BK[:, None] - common_BKK) > overlap
    covers_BKK = covers_BKK & covers_BKK.new_ones(covers_BKK.shape[1:]).triu(1)

    def changing(changed: Tensor, _kept_BK: Tensor) -> Tensor:
        return changed.clone()

    def turn(_changed: Tensor, kept_BK: Tensor) -> tuple[Tensor, Tensor]:
        after_BK = candidate_BK & ~(covers_BKK & kept_BK[..., None]).any(1)
        return (after_BK != kept_BK).any(), after_BK

    _, kept_BK = torch.while_loop(changing, turn, (candidate_BK.new_ones(()), candidate_BK.clone()))
    return kept_BK


def _in_rows(found_BK6: Tensor, kept_BK: Tensor, rows: int, size: tuple[int, int]) -> Tensor:
    """The first boxes that stay, in their order, then padding, then the row of the image."""
    place_BK = torch.where(kept_BK, kept_BK.cumsum(1) - 1, rows).clamp(max=rows)  # what has no row goes to the last
    blank_6, image_6 = (found_BK6.new_tensor([0, 0, *end, -1, 0]) for end in ((0, 0), (size[1], size[0])))
    rows_BP6 = blank_6.expand(found_BK6.shape[0], rows + 1, 6).scatter(
        1, place_BK[..., None].expand_as(found_BK6), found_BK6
    )
    return torch.cat([rows_BP6[:, :-1], image_6.expand(found_BK6.shape[0], 1, 6)], 1)
