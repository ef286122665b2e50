"""The contract of a task kind: head, loss, metric, target and picture of one sort of label.

Shapes: B batch, N training images, H W height and width, C channels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from models.heads import DENSE_HEADS
from models.spec import TaskSpec

if TYPE_CHECKING:
    from torchmetrics import Metric

NAMED_LAYOUTS = ("class", "flags", "mask", "points", "boxes")  # their values are indices of class names
LISTED = 12  # words of a line


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number that predictions are judged by; `unit` is empty for shares and scores between 0 and 1."""

    name: str
    higher_is_better: bool
    unit: str = ""


class Task(ABC):
    """One task of one kind. Stateless: the head holds the weights, the metric the counts.

    A kind names the column layout it learns from (`models.spec.Column`), its one primary metric and that metric's
    direction, and its own options with their defaults; unknown options are refused with the nearest right name.
    """

    layout: ClassVar[str]
    metric_name: ClassVar[str]
    higher_is_better: ClassVar[bool]
    options: ClassVar[Mapping[str, float]] = {}
    heads: ClassVar[tuple[str, ...]] = ()  # names that `spec.head` may take
    laplace: ClassVar[bool] = False  # the loss is an absolute error, not the logarithm of a probability

    def __init__(self, spec: TaskSpec) -> None:
        column = f"task {spec.name!r}: column {spec.column_name!r} of {spec.dataset!r}"
        if spec.column.layout != self.layout:
            raise ValueError(f"{column} has layout {spec.column.layout!r}, {spec.kind} learns from {self.layout!r}")
        if self.layout in NAMED_LAYOUTS and not spec.column.classes:
            raise ValueError(f"{column} names no classes, {spec.kind} needs them")
        if spec.head not in ("", *self.heads):
            choice = f"use one of {', '.join(self.heads)}" if self.heads else f"{spec.kind} has one head only"
            raise ValueError(f"task {spec.name!r}: no head {spec.head!r}; {choice}")
        self.spec = spec
        self.classes = spec.column.classes
        self.settings: Mapping[str, float] = {**self.options, **_known(spec, self.options)}

    @property
    def unit(self) -> str:
        """That of the primary metric: none."""
        return ""

    @property
    def further(self) -> tuple[Measure, ...]:
        """What is measured beside the primary metric, once, when a network is finished: nothing."""
        return ()

    @property
    def measures(self) -> tuple[Measure, ...]:
        """All that predictions are judged by, the primary metric first."""
        primary = Measure(name=self.metric_name, higher_is_better=self.higher_is_better, unit=self.unit)
        return (primary, *self.further)

    @abstractmethod
    def head(self, channels: Sequence[int], reductions: Sequence[int]) -> nn.Module:
        """Map the D location features' channels and strides to a module: (features, (H, W)) -> raw output."""

    def target(self, raw: Tensor) -> Tensor:
        """Map a batch of the stored column, after augmentation, to what `loss` and the metric compare with: itself."""
        return raw

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Map raw output and target to (sum of the loss over labelled elements, their number), both float32 scalars.

        The objective is sum / number over the *global* batch, so a sum and a count are what ranks can add up.
        """

    @abstractmethod
    def metric(self) -> "Metric":
        """A fresh metric: `update(prediction, target)`, `compute()` -> scalar; unlabelled elements do not count.

        Over no labelled element it is undefined: 0 or NaN, whichever the metric gives.
        """

    def metrics(self) -> "list[Metric]":
        """Fresh metrics like `metric`, whose values laid end to end are those of `measures`; one may give several."""
        return [self.metric()]

    @abstractmethod
    def predict(self, output: Tensor) -> Tensor:
        """Map raw output to the prediction that users and the metric see."""

    def apart(self, one: Tensor, other: Tensor) -> float:
        """Map two predictions for the same images to how far they are apart at most; of other shapes, infinitely.

        Of numbers it is the largest difference, relative where they are above 1; of class indices
        the share that differs.
        """
        if one.shape != other.shape:
            return float("inf")
        if not one.is_floating_point():
            return float((one != other).float().mean())
        apart = (one - other).abs() / other.abs().clamp(min=1)
        # two infinities are equal, their difference is no number
        return float(torch.where(one == other, 0, apart).max())

    @abstractmethod
    def trivial(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """Map training targets [N, ...] and the image size (H, W) to the best constant prediction, without B."""

    @abstractmethod
    def describe(self, prediction: Tensor) -> str:
        """Map one image's prediction to one line of text."""

    @abstractmethod
    def render(self, prediction: Tensor) -> Tensor | str:
        """Map one image's prediction to a picture uint8 [3, H, W], or to a line of text."""

    @abstractmethod
    def render_target(self, target: Tensor, size: tuple[int, int]) -> Tensor | str:
        """Map one image's target and its size (H, W) to a picture uint8 [3, H, W], or to a line of text."""

    def on_image(self, shown: Tensor | str, image: Tensor) -> Tensor | str:
        """Map what `render` gave and its image uint8 [3, H, W] to what is best shown of both: the former alone."""
        return shown


class DenseTask(Task):
    """A kind with an output per pixel; its head is one of `DENSE_HEADS`, the first unless the spec names another."""

    heads: ClassVar = tuple(DENSE_HEADS)

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Numbers of raw output per pixel."""

    def head(self, channels: Sequence[int], reductions: Sequence[int]) -> nn.Module:
        make = DENSE_HEADS[self.spec.head or self.heads[0]]
        return make(channels, reductions, self.spec.head_width, self.outputs)


def listed(words: Sequence[str]) -> str:
    """Map words to one line with the first of them, and how many more there are."""
    more = f" and {len(words) - LISTED} more" if len(words) > LISTED else ""
    return ", ".join(words[:LISTED]) + more or "none"


def _known(spec: TaskSpec, options: Mapping[str, float]) -> Mapping[str, float]:
    for name, _ in spec.options:
        if name not in options:
            near = get_close_matches(name, options, n=1, cutoff=0.0)
            hint = f"did you mean {near[0]!r}?" if near else f"{spec.kind} has none"
            raise ValueError(f"task {spec.name!r}: unknown option {name!r}; {hint}")
    return dict(spec.options)
