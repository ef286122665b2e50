"""Weights against class imbalance, against their definition and against torch's own weighted loss."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.spec import Column
from models.tasks import TASKS, Task
from models.tasks.attributes import Attributes
from models.tasks.classification import Classification
from models.tasks.segmentation import Segmentation
from tests.models.task_cases import BATCH, COLUMNS, SIZE, make, spec

SHARES = {"classification": (0.5, 0.25, 0.15, 0.1), "segmentation": (0.8, 0.15, 0.05), "attributes": (0.5, 0.9, 0.02)}
kinds = pytest.mark.parametrize("kind", list(SHARES))
powers = pytest.mark.parametrize("power", [0.5, 1.0])


def balanced(kind: str, power: float, **options: float) -> Task:
    column = replace(COLUMNS[kind], shares=SHARES[kind])
    return TASKS[kind](spec(kind, column=column, options=(("balance", power), *options.items())))


def output(kind: str) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(
        {"classification": (BATCH, 4), "segmentation": (BATCH, 3, *SIZE), "attributes": (BATCH, 3)}[kind]
    )


@powers
@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_weights_are_powers_of_shares_with_a_mean_of_one(kind: str, power: float) -> None:
    task = balanced(kind, power)
    assert isinstance(task, Classification | Segmentation)
    shares, weights = torch.tensor(SHARES[kind]), torch.tensor(task.weights)
    torch.testing.assert_close((shares * weights).sum(), torch.tensor(1.0))
    torch.testing.assert_close(weights / weights[0], (shares[0] / shares) ** power)


@powers
def test_weights_of_flags_are_powers_of_shares_with_a_mean_of_one(power: float) -> None:
    task = balanced("attributes", power)
    assert isinstance(task, Attributes)
    for yes, (of_no, of_yes) in zip(SHARES["attributes"], task.weights, strict=True):
        assert yes * of_yes + (1 - yes) * of_no == pytest.approx(1)
        assert of_yes / of_no == pytest.approx(((1 - yes) / yes) ** power)


@powers
@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_the_objective_is_torchs_weighted_cross_entropy(kind: str, power: float) -> None:
    task, target = balanced(kind, power), make(kind).target
    assert isinstance(task, Classification | Segmentation)
    total, number = task.loss(output(kind), target)
    ignored = -1 if kind == "classification" else 255
    wanted = F.cross_entropy(output(kind), target.long(), torch.tensor(task.weights), ignore_index=ignored)
    torch.testing.assert_close(total / number, wanted)


@powers
def test_the_objective_of_flags_by_loops(power: float) -> None:
    task, target, logits = balanced("attributes", power), make("attributes").target, output("attributes")
    assert isinstance(task, Attributes)
    total = number = 0.0
    for b, c in (target >= 0).nonzero().tolist():
        weight = task.weights[c][int(target[b, c])]
        number += weight
        total -= weight * float(F.logsigmoid(logits[b, c] if target[b, c] == 1 else -logits[b, c]))
    torch.testing.assert_close(task.loss(logits, target), (torch.tensor(total), torch.tensor(number)))


def test_with_a_power_of_one_every_class_counts_as_much_as_any_other() -> None:
    target = torch.cat([torch.zeros(10), torch.ones(5), torch.full((3,), 2), torch.full((2,), 3)]).long()
    task = balanced("classification", 1)
    per_class = [float(task.loss(torch.zeros(20, 4), torch.where(target == c, target, -1))[1]) for c in range(4)]
    assert per_class == pytest.approx([5.0] * 4)
    assert float(task.loss(torch.zeros(20, 4), target)[1]) == pytest.approx(20)


def test_a_smoothed_label_weighs_as_its_class() -> None:
    task, target, logits = (
        balanced("classification", 1, label_smoothing=0.2),
        make("classification").target,
        output("classification"),
    )
    assert isinstance(task, Classification)
    labelled = target >= 0
    weight = torch.tensor(task.weights)[target[labelled]]
    wanted = 0.8 * F.one_hot(target[labelled], 4) + 0.2 / 4
    loss = -(wanted * logits[labelled].log_softmax(1)).sum(1)
    torch.testing.assert_close(task.loss(logits, target), ((weight * loss).sum(), weight.sum()))


@kinds
def test_halves_add_up_and_unlabelled_elements_cost_nothing(kind: str) -> None:
    task, case, logits = balanced(kind, 1), make(kind), output(kind)
    whole = torch.stack(task.loss(logits, case.target))
    halves = [torch.stack(task.loss(logits[part], case.target[part])) for part in (slice(3), slice(3, None))]
    torch.testing.assert_close(halves[0] + halves[1], whole)
    assert [float(part) for part in task.loss(logits, case.blank)] == [0, 0]


@kinds
def test_without_balance_shares_do_not_matter(kind: str) -> None:
    torch.testing.assert_close(
        balanced(kind, 0).loss(output(kind), make(kind).target), make(kind).task.loss(output(kind), make(kind).target)
    )


@kinds
def test_unknown_shares_are_refused_when_they_are_needed(kind: str) -> None:
    """`prepare` looks at the whole study before it has counted."""
    task = TASKS[kind](spec(kind, options=(("balance", 1.0),)))
    message = "task 'mine': option balance: column 'label' of 'photos' does not know the shares of its classes"
    with pytest.raises(ValueError, match=message):
        task.loss(output(kind), make(kind).target)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_a_class_without_a_training_label_leaves_the_others_weights_as_they_are(power: float) -> None:
    def weights(shares: tuple[float, ...]) -> tuple[float, ...]:
        column = Column(layout="class", classes=tuple("abcdef"[: len(shares)]), shares=shares)
        task = TASKS["classification"](spec("classification", column=column, options=(("balance", power),)))
        assert isinstance(task, Classification)
        return task.weights

    first, absent, last = weights((0.75, 0.0, 0.25))
    assert (first, last) == pytest.approx(weights((0.75, 0.25)))
    assert absent == 1


def test_a_flag_that_is_always_yes_weighs_as_without_balance() -> None:
    column = Column(layout="flags", classes=("a", "b"), shares=(1.0, 0.0))
    task = TASKS["attributes"](spec("attributes", column=column, options=(("balance", 0.5),)))
    assert isinstance(task, Attributes)
    assert task.weights == ((1.0, 1.0), (1.0, 1.0))


def test_classes_of_one_name_are_two_classes() -> None:
    """ImageNet has two cranes."""
    column = Column(layout="class", classes=("crane", "shoe", "crane"), shares=(0.25, 0.5, 0.25))
    task = TASKS["classification"](spec("classification", column=column, options=(("balance", 1.0),)))
    assert isinstance(task, Classification)
    assert task.weights == pytest.approx((4 / 3, 2 / 3, 4 / 3))
