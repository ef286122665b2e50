"""The contract of a task kind: head, loss, metric, target and picture of one sort of label.

Shapes: B batch, H W height and width, C channels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn
from torchmetrics import Metric

from models.spec import TaskSpec


class Task(ABC):
    """One task of one kind. Stateless: the head holds the weights, the metric the counts.

    A kind names the column layout it learns from (`models.spec.Column`), its one primary metric and that metric's
    direction, and its own options with their defaults; unknown options are refused with the nearest right name.
    """

    layout: ClassVar[str]
    metric_name: ClassVar[str]
    higher_is_better: ClassVar[bool]
    options: ClassVar[Mapping[str, float]] = {}

    def __init__(self, spec: TaskSpec) -> None: ...

    @abstractmethod
    def head(self, channels: Sequence[int], reductions: Sequence[int]) -> nn.Module:
        """Map the D location features' channels and strides to a module: (features, (H, W)) -> raw output."""

    @abstractmethod
    def target(self, raw: Tensor) -> Tensor:
        """Map a batch of the stored column, after augmentation, to what `loss` and the metric compare with."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Map raw output and target to (sum of the loss over labelled elements, their number), both scalars.

        The objective is sum / number over the *global* batch, so a sum and a count are what ranks can add up.
        """

    @abstractmethod
    def metric(self) -> Metric:
        """A fresh metric: `update(prediction, target)`, `compute()` -> scalar; unlabelled elements do not count."""

    @abstractmethod
    def predict(self, output: Tensor) -> Tensor:
        """Map raw output to the prediction that users and the metric see."""

    @abstractmethod
    def trivial(self, targets: Tensor) -> Tensor:
        """Map training targets [N, ...] to the best constant prediction for one image (what `predict` gives, no B)."""

    @abstractmethod
    def render(self, value: Tensor) -> Tensor | str:
        """Map one image's prediction or target to a picture uint8 [3, H, W], or to a line of text."""
