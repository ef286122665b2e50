"""One small case of each task kind: a task, a raw batch of its column, what is unlabelled, what is perfect."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from models.spec import Column, TaskSpec
from models.tasks import TASKS, Task
from models.tasks.keypoints import Keypoints

SIZE = (24, 32)
BATCH = 8
STRIDES = ((6, 10), (4, 8))


@dataclass(frozen=True)
class Case:
    """`raw` has some unlabelled elements, `blank` has no others; `perfect` maps a target to the right prediction."""

    task: Task
    raw: Tensor
    blank: Tensor
    perfect: Callable[[Tensor], Tensor]

    @property
    def target(self) -> Tensor:
        return self.task.target(self.raw)

    @property
    def output(self) -> Tensor:
        """Raw output of a fresh head on random features."""
        return self.task.head(*STRIDES)(features(), SIZE).detach()


@dataclass(frozen=True)
class Kind:
    """What a case is made of: the column, raw labels, the value of those that are none, and what `Case.perfect` is."""

    column: Column
    raw: Callable[[torch.Generator], Tensor]
    unlabelled: float
    perfect: Callable[[Tensor], Tensor]


def features(batch: int = BATCH) -> list[Tensor]:
    """Random features of two locations, as `STRIDES` says."""
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(batch, c, SIZE[0] // r, SIZE[1] // r, generator=draw) for c, r in zip(*STRIDES, strict=True)]


def spec(kind: str, **changes: object) -> TaskSpec:
    """A task spec of one kind."""
    fields = {"name": "mine", "kind": kind, "dataset": "photos", "column_name": "label", "column": KINDS[kind].column}
    return TaskSpec(**{**fields, **changes})  # pyright: ignore[reportArgumentType]


def make(kind: str) -> Case:
    """The case of one kind."""
    about = KINDS[kind]
    raw = about.raw(torch.Generator().manual_seed(0))
    return Case(TASKS[kind](spec(kind)), raw, torch.full_like(raw, about.unlabelled), about.perfect)


def _mask(classes: int, draw: torch.Generator) -> Tensor:
    """Class indices, half of them 0, a tenth unlabelled."""
    raw = torch.randint(0, classes, (BATCH, *SIZE), generator=draw, dtype=torch.uint8)
    return _gaps(torch.where(torch.rand(raw.shape, generator=draw) < 0.5, 0, raw), draw)


def _gaps(raw: Tensor, draw: torch.Generator) -> Tensor:
    return torch.where(torch.rand(raw.shape, generator=draw) < 0.1, 255, raw).to(torch.uint8)


def _field(low: float, high: float, draw: torch.Generator) -> Tensor:
    """Values between two, a tenth unlabelled."""
    values = low + (high - low) * torch.rand(BATCH, *SIZE, generator=draw)
    return values * (torch.rand(BATCH, *SIZE, generator=draw) > 0.1)


def _normals(draw: torch.Generator) -> Tensor:
    facing = torch.tensor([0.3, 0.5, 1.0]).view(3, 1, 1) + 0.5 * torch.randn(BATCH, 3, *SIZE, generator=draw)
    return F.normalize(facing, dim=1) * (torch.rand(BATCH, 1, *SIZE, generator=draw) > 0.1)


def _instances(draw: torch.Generator) -> Tensor:
    """Instances of one or two blocks of 8 x 8 pixels, some of the blocks empty."""
    rows, columns = SIZE[0] // 8, SIZE[1] // 8
    ids = 1 + torch.arange(rows * columns).view(rows, columns) // 2
    blocks = torch.where(torch.rand(BATCH, rows, columns, generator=draw) < 0.3, 0, ids).to(torch.uint8)
    return _gaps(blocks.repeat_interleave(8, 1).repeat_interleave(8, 2), draw)


def _points(draw: torch.Generator) -> Tensor:
    """Up to four points an image, more than five pixels apart; one point between pixels; one unlabelled image."""
    cells = torch.tensor([(4.0, 4.0), (12.0, 4.5), (20.5, 12.0), (28.5, 20.5)])
    xy = cells + torch.randint(0, 3, (BATCH, 4, 2), generator=draw) - 1.0
    points = torch.cat([xy, torch.randint(-1, 2, (BATCH, 4, 1), generator=draw).float()], -1)
    points[0] = -2
    points[1, :, 2] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    return points


def _boxes(draw: torch.Generator) -> Tensor:
    """Up to four boxes an image, no two of one class alike; one image without any and one unlabelled."""
    corner = torch.tensor([(1.0, 1.0), (15.0, 2.0), (3.0, 12.0), (17.0, 11.0)])
    x0y0 = corner + torch.randint(0, 3, (BATCH, 4, 2), generator=draw)
    sides = torch.randint(6, 12, (BATCH, 4, 2), generator=draw)
    boxes = torch.cat([x0y0, x0y0 + sides, torch.randint(-1, 3, (BATCH, 4, 1), generator=draw).float()], -1)
    boxes[1, :, 4] = -1
    boxes[-1] = -2
    return boxes


def found_exactly(target_BQ5: Tensor) -> Tensor:
    """Map labelled boxes to a prediction [B, Q + 1, 6] that has them all with score 1."""
    image_6 = target_BQ5.new_tensor([0, 0, SIZE[1], SIZE[0], -1, 0])
    return torch.cat([F.pad(target_BQ5, (0, 1), value=1.0), image_6.expand(len(target_BQ5), 1, 6)], 1)


KINDS = {
    "classification": Kind(
        Column(layout="class", classes=("shirt", "dress", "shoe", "hat")),
        lambda draw: torch.tensor([1, 1, 3, -1, 0, 1, 2, 0]),  # noqa: ARG005
        unlabelled=-1,
        perfect=lambda target: F.one_hot(target.clamp(min=0), 4).float(),
    ),
    "attributes": Kind(
        Column(layout="flags", classes=("smiling", "young", "bald")),
        lambda draw: torch.randint(-1, 2, (BATCH, 3), generator=draw, dtype=torch.int8),
        unlabelled=-1,
        perfect=lambda target: (target == 1).float(),
    ),
    "segmentation": Kind(
        Column(layout="mask", classes=("road", "tree", "sky")),
        partial(_mask, 3),
        unlabelled=255,
        perfect=lambda target: torch.where(target == 255, 0, target),
    ),
    "depth": Kind(Column(layout="field", unit="m"), partial(_field, 1, 5), unlabelled=0, perfect=lambda target: target),
    "regression": Kind(
        Column(layout="field", unit="px"), partial(_field, 0.2, 1), unlabelled=0, perfect=lambda target: target
    ),
    "edges": Kind(
        Column(layout="mask", classes=("none", "edge")),
        partial(_mask, 2),
        unlabelled=255,
        perfect=lambda target: (target == 1).float(),
    ),
    "normals": Kind(Column(layout="normals"), _normals, unlabelled=0, perfect=lambda target: target),
    "keypoints": Kind(
        Column(layout="points", classes=("eye", "beak")),
        _points,
        unlabelled=-2,
        perfect=lambda target: Keypoints(spec("keypoints")).heat_maps(target, SIZE),
    ),
    "offsets": Kind(Column(layout="instances"), _instances, unlabelled=255, perfect=lambda target: target[:, :2]),
    "detection": Kind(
        Column(layout="boxes", classes=("cat", "dog", "bird")), _boxes, unlabelled=-2, perfect=found_exactly
    ),
}
COLUMNS = {kind: about.column for kind, about in KINDS.items()}
