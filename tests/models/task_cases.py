"""One small case of each task kind: a task, a raw batch of its column, what is unlabelled, what is perfect."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.spec import Column, TaskSpec
from models.tasks import TASKS, Task
from models.tasks.keypoints import Keypoints

SIZE = (24, 32)
BATCH = 8
COLUMNS = {
    "classification": Column(layout="class", classes=("shirt", "dress", "shoe", "hat")),
    "attributes": Column(layout="flags", classes=("smiling", "young", "bald")),
    "segmentation": Column(layout="mask", classes=("road", "tree", "sky")),
    "depth": Column(layout="field", unit="m"),
    "edges": Column(layout="mask", classes=("none", "edge")),
    "normals": Column(layout="normals"),
    "keypoints": Column(layout="points", classes=("eye", "beak")),
    "offsets": Column(layout="instances"),
    "detection": Column(layout="boxes", classes=("cat", "dog", "bird")),
}


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


STRIDES = ((6, 10), (4, 8))


def features(batch: int = BATCH) -> list[Tensor]:
    """Random features of two locations, as `STRIDES` says."""
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(batch, c, SIZE[0] // r, SIZE[1] // r, generator=draw) for c, r in zip(*STRIDES, strict=True)]


def spec(kind: str, **changes: object) -> TaskSpec:
    """A task spec of one kind."""
    fields = {"name": "mine", "kind": kind, "dataset": "photos", "column_name": "label", "column": COLUMNS[kind]}
    return TaskSpec(**{**fields, **changes})  # pyright: ignore[reportArgumentType]


def make(kind: str) -> Case:
    """The case of one kind."""
    task = TASKS[kind](spec(kind))
    raw, unlabelled = _raw(kind, torch.Generator().manual_seed(0))
    perfect = {
        "classification": lambda target: F.one_hot(target.clamp(min=0), 4).float(),
        "attributes": lambda target: (target == 1).float(),
        "segmentation": lambda target: torch.where(target == 255, 0, target),
        "depth": lambda target: target,
        "edges": lambda target: (target == 1).float(),
        "normals": lambda target: target,
        "keypoints": lambda target: task.heat_maps(target, SIZE) if isinstance(task, Keypoints) else target,
        "offsets": lambda target: target[:, :2],
        "detection": found_exactly,
    }[kind]
    return Case(task, raw, torch.full_like(raw, unlabelled), perfect)


def _raw(kind: str, draw: torch.Generator) -> tuple[Tensor, float]:
    pixels = (BATCH, *SIZE)
    if kind == "classification":
        return torch.tensor([1, 1, 3, -1, 0, 1, 2, 0]), -1
    if kind == "attributes":
        return torch.randint(-1, 2, (BATCH, 3), generator=draw, dtype=torch.int8), -1
    if kind == "depth":
        depth = 1 + 4 * torch.rand(pixels, generator=draw)
        return depth * (torch.rand(pixels, generator=draw) > 0.1), 0
    if kind == "normals":
        facing = torch.tensor([0.3, 0.5, 1.0]).view(3, 1, 1) + 0.5 * torch.randn(BATCH, 3, *SIZE, generator=draw)
        return F.normalize(facing, dim=1) * (torch.rand(BATCH, 1, *SIZE, generator=draw) > 0.1), 0
    if kind == "keypoints":
        return _points(draw), -2
    if kind == "detection":
        return _boxes(draw), -2
    if kind == "offsets":
        raw = _instances(draw)
    else:
        raw = torch.randint(0, 3 if kind == "segmentation" else 2, pixels, generator=draw, dtype=torch.uint8)
        raw = torch.where((torch.rand(pixels, generator=draw) < 0.5), 0, raw)
    return torch.where(torch.rand(pixels, generator=draw) < 0.1, 255, raw).to(torch.uint8), 255


def _instances(draw: torch.Generator) -> Tensor:
    """Instances of one or two blocks of 8 x 8 pixels, some of the blocks empty."""
    rows, columns = SIZE[0] // 8, SIZE[1] // 8
    ids = 1 + torch.arange(rows * columns).view(rows, columns) // 2
    blocks = torch.where(torch.rand(BATCH, rows, columns, generator=draw) < 0.3, 0, ids).to(torch.uint8)
    return blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)


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
