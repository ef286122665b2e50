from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from models.accounting import additional_params, count_flops, count_params, delta_mtl, s_score


def test_parameters_count_once_frozen_or_not_and_buffers_never() -> None:
    shared = nn.Linear(3, 4)
    module = nn.Sequential(shared, nn.BatchNorm1d(4), nn.Linear(4, 3), shared)
    module[2].requires_grad_(False)
    assert count_params(module) == (3 * 4 + 4) + 2 * 4 + (4 * 3 + 3)


class _Attention(nn.Module):
    def forward(self, query: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(query, query, query)


class _Experts(nn.Module):
    """Eight tokens for each of four experts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 16, 24, dtype=torch.bfloat16))

    def forward(self, tokens: Tensor) -> Tensor:
        ends = torch.arange(8, 33, 8, dtype=torch.int32)
        return nn.functional.grouped_mm(tokens, self.weight, offs=ends)


@pytest.mark.parametrize(
    ("module", "inputs", "multiply_adds"),
    [
        (nn.Linear(3, 4), torch.zeros(5, 3), 5 * 3 * 4),
        (nn.Conv2d(3, 8, 3, padding=1, stride=2), torch.zeros(2, 3, 10, 10), 2 * 8 * 5 * 5 * 3 * 9),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), torch.zeros(2, 8, 10, 10), 2 * 8 * 100 * 9),
        (_Attention(), torch.zeros(2, 3, 16, 8), 2 * (2 * 3 * 16 * 16 * 8)),
        (_Experts(), torch.zeros(32, 16, dtype=torch.bfloat16), 32 * 16 * 24),
        (nn.ReLU(), torch.zeros(5, 3), 0),
    ],
)
def test_flops_are_two_per_multiply_add(module: nn.Module, inputs: Tensor, multiply_adds: int) -> None:
    assert count_flops(module, inputs) == 2 * multiply_adds


class _Fails(nn.Module):
    def forward(self, _: Tensor) -> Tensor:
        raise RuntimeError("no forward pass")


def test_counting_flops_leaves_every_training_flag_and_statistic() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout())
    module.train()
    module[1].eval()
    count_flops(module, torch.ones(5, 3))
    assert [child.training for child in module.modules()] == [True, True, False, True]
    module[1].train()
    count_flops(module, torch.ones(5, 3))
    assert module.state_dict()["1.num_batches_tracked"] == 0
    broken = nn.Sequential(nn.Linear(3, 3), _Fails())
    with pytest.raises(RuntimeError, match="no forward pass"):
        count_flops(broken, torch.ones(5, 3))
    assert all(child.training for child in broken.modules())


def _resnet50_counts() -> tuple[int, int]:
    network: Any = timm.create_model("resnet50", pretrained=False, num_classes=0)
    norm = sum(count_params(m) for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 53
    return sum(count_params(m) for m in convs), norm


def test_normalisation_alone_for_five_tasks_on_resnet50_as_taps_prints_it() -> None:
    backbone, norm = _resnet50_counts()
    assert backbone + norm == 23_508_032
    heads = [2048 * classes + classes for classes in (200, 196, 102, 195, 250)]
    total = 1 + sum(additional_params(active=0, norm=norm, backbone=backbone, head=head) for head in heads)
    assert round(total, 3) == 1.011


def test_normalisation_share_of_the_decathlon_resnet26() -> None:
    norm, whole = 7_744, 5_814_688
    assert additional_params(active=0, norm=norm, backbone=whole - norm, head=0) == pytest.approx(0.00133, abs=5e-6)


def test_a_task_with_every_layer_of_its_own_adds_the_whole_backbone() -> None:
    assert additional_params(active=90, norm=10, backbone=90, head=0) == 1
    assert additional_params(active=90, norm=10, backbone=90, head=100) == 0.5


# Visual Decathlon: twice the fine-tuning's error, in percent (TAPS, Wallingford et al. 2022, Tab. 4).
DOUBLED = {
    "imagenet": 80.26,
    "aircraft": 79.32,
    "cifar100": 35.76,
    "dped": 14.36,
    "dtd": 88.94,
    "gtsr": 4.94,
    "flowers": 37.18,
    "omniglot": 24.62,
    "svhn": 6.90,
    "ucf": 97.60,
}
TUNED = {task: error / 2 for task, error in DOUBLED.items()}
TAPS_ACCURACIES = {  # λ: nine data sets, the mean with ImageNet, the S-score of these digits, the S-score as printed
    0.25: ([66.58, 81.76, 97.07, 58.83, 99.07, 86.99, 88.79, 95.72, 51.92], 78.70, 3531.7, 3533),
    0.5: ([62.05, 81.74, 97.13, 57.02, 98.40, 85.80, 88.96, 95.62, 49.06], 77.61, 3179.7, 3180),
    0.75: ([62.62, 81.07, 95.77, 57.34, 98.61, 85.67, 89.00, 95.65, 49.56], 77.56, 3095.2, 3096),
    1.0: ([63.43, 81.04, 96.99, 58.19, 98.38, 84.08, 89.16, 94.99, 51.10], 77.77, 3088.5, 3088),
}


@pytest.mark.parametrize("lam", TAPS_ACCURACIES)
@pytest.mark.parametrize("unit", [1, 0.01])
def test_s_scores_of_taps_as_its_table_4_prints_them(lam: float, unit: float) -> None:
    """ImageNet's accuracy is not printed, the mean gives it; printed scores come of more digits than the table has."""
    columns, mean, expected, printed = TAPS_ACCURACIES[lam]
    accuracies = [10 * mean - sum(columns), *columns]
    errors = {task: unit * (100 - value) for task, value in zip(DOUBLED, accuracies, strict=True)}
    found = s_score(errors, {task: unit * error for task, error in TUNED.items()})
    assert found == pytest.approx(expected, abs=0.06)
    assert found == pytest.approx(printed, abs=1.5)


def test_s_scores_of_the_reference_of_nothing_wrong_and_of_twice_the_error() -> None:
    assert s_score(TUNED, TUNED) == pytest.approx(2500)
    assert s_score(dict.fromkeys(TUNED, 0.0), TUNED) == 10_000
    assert s_score(DOUBLED, TUNED) == 0
    assert s_score(dict.fromkeys(TUNED, 100.0), TUNED) == 0
    assert s_score({"ucf": TUNED["ucf"]}, TUNED) == pytest.approx(250), "tasks that were not asked for do not count"


@pytest.mark.parametrize(
    ("errors", "reference", "match"),
    [
        ({}, TUNED, "no task"),
        ({"ucf": 1.0}, {}, "'ucf'.*needs a reference error above 0"),
        ({"ucf": 1.0}, {"ucf": 0.0}, "'ucf'.*needs a reference error above 0"),
    ],
)
def test_s_score_names_the_task_without_a_reference(
    errors: dict[str, float], reference: dict[str, float], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        s_score(errors, reference)


HIGHER = {"semseg": True, "depth": False}


def test_delta_mtl_is_the_mean_signed_relative_gain() -> None:
    baselines = {"semseg": 0.5, "depth": 4.0}
    assert delta_mtl(baselines, baselines, HIGHER) == 0
    assert delta_mtl({"semseg": 0.6, "depth": 4.0}, baselines, HIGHER) == pytest.approx(10)
    assert delta_mtl({"semseg": 0.5, "depth": 5.0}, baselines, HIGHER) == pytest.approx(-12.5)
    assert delta_mtl({"depth": 3.0}, baselines, HIGHER) == pytest.approx(25)


def test_delta_mtl_gains_where_a_negative_metric_rises() -> None:
    assert delta_mtl({"semseg": -1.0}, {"semseg": -2.0}, HIGHER) == pytest.approx(50)


@pytest.mark.parametrize(
    ("values", "baselines", "higher_is_better", "match"),
    [
        ({"semseg": 1.0, "depth": 1.0}, {"semseg": 1.0, "depth": 0.0}, HIGHER, "'depth'.* is 0"),
        ({"semseg": 1.0, "depth": 1.0}, {"semseg": 1.0}, HIGHER, "'depth'.* missing"),
        ({"semseg": 1.0}, {"semseg": 1.0}, {}, "'semseg'.* missing"),
        ({}, {}, {}, "no task"),
    ],
)
def test_delta_mtl_names_the_task_without_a_baseline(
    values: dict[str, float], baselines: dict[str, float], higher_is_better: dict[str, bool], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        delta_mtl(values, baselines, higher_is_better)
