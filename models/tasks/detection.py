"""Boxes around objects of named classes.

Shapes: B batch, A anchors, C classes, P predicted boxes, Q labelled boxes, N training images, K candidates,
H W height and width.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, sigmoid_focal_loss
from torchvision.transforms.functional import resize

from models.detection_head import RetinaHead
from models.spec import UNLABELLED
from models.tasks.base import Measure, Task, listed
from models.tasks.pictures import class_colours

if TYPE_CHECKING:
    from torchmetrics import Metric

CODER = BoxCoder((1.0, 1.0, 1.0, 1.0))
MATCHER = Matcher(0.5, 0.4, allow_low_quality_matches=True)
SHOWN = 0.4  # the least score of a box in pictures and words


class Detection(Task):
    """Map an image to boxes [P + 1, 6], learned as RetinaNet (Lin et al. 2017, "Focal Loss", Sec. 4).

    Rows are (x0, y0, x1, y1, class, score) in pixels, the best first; class -1 is padding. The last row is the image
    itself, (0, 0, W, H) of class -1, which a picture of the boxes needs. P is `detections`: of the `candidates` best
    pairs of anchor and class that reach `score`, those that no better box of their class covers by more than `overlap`.

    Raw output is that of `RetinaHead`. The loss of an image is focal loss plus L1 distance of the box offsets, each
    divided by the number of anchors that hold an object; `head_width` is the width of the pyramid, 256 in the paper.
    The metric is COCO's mAP@[.5:.95]; further, its parts of an overlap of 0.5 and of 0.75. A box without area is none.
    """

    layout = "boxes"
    metric_name = "map"
    higher_is_better = True
    options: ClassVar = {"detections": 100, "candidates": 1000, "score": 0.05, "overlap": 0.5}

    @property
    def further(self) -> tuple[Measure, ...]:
        return (Measure(name="ap50", higher_is_better=True), Measure(name="ap75", higher_is_better=True))

    def head(self, channels: Sequence[int], reductions: Sequence[int]) -> nn.Module:
        return RetinaHead(channels, reductions, self.spec.head_width, len(self.classes))

    def target(self, raw: Tensor) -> Tensor:
        is_flat = (raw[..., :2] >= raw[..., 2:4]).any(-1) & (raw[..., 4] >= 0)
        return torch.cat([raw[..., :4], raw[..., 4:].masked_fill(is_flat.unsqueeze(-1), -1)], -1)

    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        logits_BAC, offsets_BA4, anchors_BA4 = self._parts(output[:, :-1])
        match_BA = torch.stack([_match(*pair) for pair in zip(anchors_BA4, target, strict=True)])
        matched_BA5 = target.gather(1, match_BA.clamp(min=0).unsqueeze(-1).expand(-1, -1, 5))
        has_object_BA = match_BA >= 0
        class_BA1 = matched_BA5[..., 4:].long().clamp(min=0)
        wanted_BAC = torch.zeros_like(logits_BAC).scatter_(2, class_BA1, has_object_BA.unsqueeze(-1).float())
        focal_BA = sigmoid_focal_loss(logits_BAC, wanted_BAC).sum(2) * (match_BA != MATCHER.BETWEEN_THRESHOLDS)
        boxes_BA4 = torch.where(has_object_BA.unsqueeze(-1), matched_BA5[..., :4], anchors_BA4)
        wanted_BA4 = CODER.encode_single(boxes_BA4.flatten(0, 1), anchors_BA4.flatten(0, 1)).view_as(offsets_BA4)
        distance_BA = (offsets_BA4 - wanted_BA4).abs().sum(2) * has_object_BA
        loss_B = (focal_BA + distance_BA).sum(1) / has_object_BA.sum(1).clamp(min=1)
        labelled_B = (target[..., 4] != UNLABELLED).all(1).float()
        return (loss_B * labelled_B).sum(), labelled_B.sum()

    def metric(self) -> "Metric":
        from models.average_precision import AveragePrecision

        return AveragePrecision(int(self.settings["detections"]))

    def metrics(self) -> "list[Metric]":
        from models.average_precision import AveragePrecision

        return [AveragePrecision(int(self.settings["detections"]), ("map", "map_50", "map_75"))]

    def predict(self, output: Tensor) -> Tensor:
        return torch.stack([self._boxes(*parts) for parts in zip(*self._parts(output), strict=True)])

    def apart(self, one: Tensor, other: Tensor) -> float:
        """How far the box that has the least similar counterpart is from it: boxes of nearly equal scores may swap.

        Coordinates count as shares of the image, since that is what their rounding grows with.
        """
        if one.shape != other.shape:
            return float("inf")
        scale_B16 = F.pad(other[:, -1:, 2:4].repeat(1, 1, 2), (0, 2), value=1.0)
        one, other = one / scale_B16, other / scale_B16
        apart_BPP = (one[:, :, None] - other[:, None]).abs().amax(-1)
        return float(torch.maximum(apart_BPP.amin(1), apart_BPP.amin(2)).max())

    def trivial(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """Training boxes, each scored by the share of images with such a box: of its class, and half overlapping."""
        labelled_NQ5 = targets[(targets[..., 4] != UNLABELLED).all(1)]
        boxes = labelled_NQ5[labelled_NQ5[..., 4] >= 0]
        candidates = int(self.settings["candidates"])
        boxes_K5 = boxes[:: max(1, -(-len(boxes) // candidates))]
        hits_K = boxes_K5.new_zeros(len(boxes_K5))
        for image_Q5 in labelled_NQ5:
            is_same_KQ = boxes_K5[:, None, 4] == image_Q5[:, 4]
            hits_K += (is_same_KQ & (box_iou(boxes_K5[:, :4], image_Q5[:, :4]) >= 0.5)).any(1)
        image_4 = boxes_K5.new_tensor([0, 0, size[1], size[0]])
        return self._best(boxes_K5[:, :4], boxes_K5[:, 4].long(), hits_K / len(labelled_NQ5), image_4)

    def describe(self, prediction: Tensor) -> str:
        """The number of boxes of each class, the most frequent first."""
        numbers = Counter(self.classes[int(kind)] for kind in _shown(prediction)[:, 4])
        return listed([f"{number} {name}" for name, number in numbers.most_common()])

    def render(self, prediction: Tensor) -> Tensor:
        """Outlines in the classes' colours on black, the best boxes in front."""
        width, height = prediction[-1, 2:4].int().tolist()
        picture = torch.zeros(3, height, width, dtype=torch.uint8, device=prediction.device)
        colours = class_colours(len(self.classes) + 1)[1:].to(prediction.device, torch.uint8)
        line = max(1, round(max(height, width) / 128))
        for box in _shown(prediction).flip(0):
            x0, y0, x1, y1 = box[:4].round().int().tolist()
            ring = torch.zeros_like(picture[0, y0:y1, x0:x1], dtype=torch.bool)
            ring[:line] = ring[-line:] = ring[:, :line] = ring[:, -line:] = True
            picture[:, y0:y1, x0:x1] = torch.where(ring, colours[int(box[4]), :, None, None], picture[:, y0:y1, x0:x1])
        return picture

    def render_target(self, target: Tensor, size: tuple[int, int]) -> Tensor | str:
        if bool((target[:, 4] == UNLABELLED).any()):
            return "unlabelled"
        image_16 = target.new_tensor([[0, 0, size[1], size[0], -1, 0]])
        return self.render(torch.cat([F.pad(target, (0, 1), value=1.0), image_16]))

    def on_image(self, shown: Tensor | str, image: Tensor) -> Tensor | str:
        """The outlines over the image."""
        if isinstance(shown, str):
            return shown
        return torch.where(shown.bool().any(0), shown, resize(image, list(shown.shape[1:])))

    def _parts(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Raw output as logits, offsets and anchors, in float32; nothing is learned of the anchors."""
        logits, offsets, anchors = output.float().split([len(self.classes), 4, 4], -1)
        return logits, offsets, anchors.detach()

    def _boxes(self, logits_AC: Tensor, offsets_A4: Tensor, anchors_A4: Tensor) -> Tensor:
        """One image's boxes; the last row of each part is the image."""
        scores = logits_AC[:-1].sigmoid().flatten()
        best_K = scores.topk(min(int(self.settings["candidates"]), len(scores))).indices
        best_K = best_K[scores[best_K] > self.settings["score"]]
        row_K, image_4 = best_K // len(self.classes), anchors_A4[-1]
        boxes_K4 = CODER.decode_single(offsets_A4[row_K], anchors_A4[row_K])
        return self._best(boxes_K4, best_K % len(self.classes), scores[best_K], image_4)

    def _best(self, boxes_K4: Tensor, classes_K: Tensor, scores_K: Tensor, image_4: Tensor) -> Tensor:
        """What stays of candidates after suppression, clipped, padded, and the row of the image."""
        boxes_K4 = clip_boxes_to_image(boxes_K4, (int(image_4[3]), int(image_4[2])))
        kept_P = batched_nms(boxes_K4, scores_K, classes_K, self.settings["overlap"])[
            : int(self.settings["detections"])
        ]
        rows = boxes_K4.new_zeros(int(self.settings["detections"]) + 1, 6)
        rows[:, 4] = -1
        rows[: len(kept_P)] = torch.cat([boxes_K4, classes_K.unsqueeze(1), scores_K.unsqueeze(1)], 1)[kept_P]
        rows[-1, :4] = image_4
        return rows


def _match(anchors_A4: Tensor, boxes_Q5: Tensor) -> Tensor:
    """The place of the box that each anchor is to find; -1 where it is none, -2 where it does not count."""
    place_Q = (boxes_Q5[:, 4] >= 0).nonzero()[:, 0]
    if not len(place_Q):
        return place_Q.new_full((len(anchors_A4),), MATCHER.BELOW_LOW_THRESHOLD)
    match_A = MATCHER(box_iou(boxes_Q5[place_Q, :4], anchors_A4))
    return torch.where(match_A >= 0, place_Q[match_A.clamp(min=0)], match_A)


def _shown(prediction_P6: Tensor) -> Tensor:
    return prediction_P6[(prediction_P6[:, 4] >= 0) & (prediction_P6[:, 5] >= SHOWN)]
