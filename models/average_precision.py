"""COCO's mean average precision, gathered over ranks that saw any number of images.

Shapes: B batch, P predicted boxes, Q labelled boxes, R rows.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision
from torchmetrics.utilities import dim_zero_cat

from models.spec import UNLABELLED

LABEL = -1.0  # in place of a score


class AveragePrecision(Metric):
    """Map batches of boxes to mAP@[.5:.95] (Lin et al. 2014, COCO), NaN where no box is labelled.

    Predictions [B, P, 6] hold (x0, y0, x1, y1, class, score), targets [B, Q, 5] the same without score; a class below 0
    is no box. Of an image the `most` best boxes count. `parts` names other summaries of the same evaluation, as
    torchmetrics does (`map_50`); several make a vector. torchmetrics' own metric gathers image by image, so ranks with
    different numbers of images would wait for ever; here one flat list holds everything.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, most: int, parts: Sequence[str] = ("map",)) -> None:
        super().__init__()
        self.most, self.parts = most, parts
        # Flat, as torchmetrics makes it for a rank without images. Each image's rows of six follow one of class -1.
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    @property
    def update_called(self) -> bool:
        """Always true: a rank that sees no batch of a task adds nothing, which is no mistake worth a warning."""
        return True

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add one batch; unlabelled images do not count."""
        first_B16 = prediction.new_full((len(prediction), 1, 6), -1.0)
        label_BQ1 = target.new_full((*target.shape[:2], 1), LABEL)
        rows_BR6 = torch.cat([first_B16, prediction, torch.cat([target, label_BQ1], 2)], 1)
        labelled_B1 = (target[..., 4] != UNLABELLED).all(1, keepdim=True)
        kept_BR = rows_BR6[..., 4] >= 0
        kept_BR[:, 0] = True
        self.rows.append(rows_BR6[kept_BR & labelled_B1].flatten())

    def compute(self) -> Tensor:
        """The mean over the classes that occur in the labels and over ten thresholds of overlap."""
        rows_R6 = dim_zero_cat(self.rows).cpu().view(-1, 6) if len(self.rows) else torch.empty(0, 6)
        is_first_R = rows_R6[:, 4] < 0
        if not bool(((rows_R6[:, 5] == LABEL) & ~is_first_R).any()):
            return torch.full((len(self.parts),), torch.nan).squeeze()
        limits = [1, min(10, self.most), self.most]
        # every rank holds all rows by now: the inner metric must not gather them again
        precision = MeanAveragePrecision(
            backend="faster_coco_eval", max_detection_thresholds=limits, sync_on_compute=False
        )
        for image_R6 in rows_R6.tensor_split(is_first_R.nonzero()[:, 0])[1:]:
            is_label_R = image_R6[1:, 5] == LABEL
            found_P6, wanted_Q6 = image_R6[1:][~is_label_R], image_R6[1:][is_label_R]
            precision.update([{**_named(found_P6), "scores": found_P6[:, 5]}], [_named(wanted_Q6)])
        found = precision.compute()
        return torch.stack([found[part] for part in self.parts]).squeeze()


def _named(boxes_R6: Tensor) -> dict[str, Tensor]:
    return {"boxes": boxes_R6[:, :4], "labels": boxes_R6[:, 4].long()}
