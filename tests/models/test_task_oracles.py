"""The numbers of each task kind against slow, obvious ones."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.spec import Column
from models.tasks import TASKS
from models.tasks.keypoints import Keypoints
from models.tasks.offsets import Offsets
from models.tasks.summed import Summed, ratio
from tests.models.task_cases import BATCH, SIZE, Case, make, spec


def score(case: Case, prediction: torch.Tensor, target: torch.Tensor | None = None) -> float:
    metric = case.task.metric()
    metric.update(prediction, case.target if target is None else target)
    return float(metric.compute())


def test_sums_count_every_pixel_of_a_large_split() -> None:
    metric = Summed((2,), lambda right, labelled: torch.stack([right, labelled]), ratio)
    metric.update(torch.tensor(2**24), torch.tensor(2**24))
    for _ in range(8):
        metric.update(torch.tensor(0), torch.tensor(1))
    assert float(metric.compute()) == pytest.approx(2**24 / (2**24 + 8), abs=1e-12)
    assert metric.sums[1] == 2**24 + 8


def test_accuracy_by_loops() -> None:
    case = make("classification")
    prediction = torch.rand(BATCH, 4).softmax(1)
    t, p = case.target.numpy(), prediction.numpy()
    right = [p[i].argmax() == t[i] for i in range(BATCH) if t[i] != -1]
    assert score(case, prediction) == pytest.approx(np.mean(right))


def test_label_smoothing_mixes_in_the_uniform_distribution() -> None:
    case = make("classification")
    task = TASKS["classification"](spec("classification", options=(("label_smoothing", 0.2),)))
    output, labelled = torch.randn(BATCH, 4), case.target >= 0
    wanted = 0.8 * F.one_hot(case.target[labelled], 4) + 0.2 / 4
    total, number = task.loss(output, case.target)
    torch.testing.assert_close(total, -(wanted * output[labelled].log_softmax(1)).sum())
    assert number == labelled.sum()
    assert float(task.loss(output, torch.full_like(case.target, -1))[0]) == 0


def test_attribute_accuracy_by_loops() -> None:
    case = make("attributes")
    prediction = torch.rand(BATCH, 3)
    t, p = case.target.numpy(), prediction.numpy()
    accuracies = [np.mean([(p[i, c] > 0.5) == t[i, c] for i in range(BATCH) if t[i, c] != -1]) for c in range(3)]
    assert score(case, prediction) == pytest.approx(np.mean(accuracies))


def test_attribute_without_labels_counts_as_zero() -> None:
    case = make("attributes")
    target = torch.tensor([[1, -1, 0], [0, -1, 0]], dtype=torch.int8)
    prediction = torch.tensor([[0.9, 0.1, 0.2], [0.9, 0.9, 0.1]])
    assert score(case, prediction, target) == pytest.approx((0.5 + 0 + 1) / 3)


@pytest.mark.parametrize(("classes", "present"), [(3, 1), (3, 2), (3, 3), (40, 40)])  # 40 * 40 does not fit in a byte
def test_miou_by_loops(classes: int, present: int) -> None:
    column = Column(layout="mask", classes=tuple(f"class {k}" for k in range(classes)))
    metric = TASKS["segmentation"](spec("segmentation", column=column)).metric()
    target = torch.randint(0, present, (BATCH, *SIZE), dtype=torch.uint8)
    target[torch.rand(target.shape) < 0.1] = 255
    prediction = torch.randint(0, present, target.shape, dtype=torch.uint8)
    metric.update(prediction, target)
    t, p = target.numpy(), prediction.numpy()
    ious = []
    for k in range(classes):
        union = ((t == k) | (p == k)) & (t != 255)
        if union.any():
            ious.append(((t == k) & (p == k) & (t != 255)).sum() / union.sum())
    assert float(metric.compute()) == pytest.approx(np.mean(ious))


def test_rmse_by_numpy() -> None:
    case = make("depth")
    prediction = 5 * torch.rand(BATCH, *SIZE)
    t, p = case.target.numpy(), prediction.numpy()
    assert score(case, prediction) == pytest.approx(math.sqrt(np.mean((p - t)[t > 0] ** 2)))


def test_depth_loss_and_prediction_do_not_depend_on_the_unit() -> None:
    metres = make("depth")
    millimetres = TASKS["depth"](spec("depth", options=(("scale", 1000.0),)))
    output = torch.randn(BATCH, 1, *SIZE)
    loss = millimetres.loss(output, 1000 * metres.target)
    torch.testing.assert_close(loss, metres.task.loss(output, metres.target))
    torch.testing.assert_close(millimetres.predict(output), 1000 * metres.task.predict(output))


def test_angles_by_loops() -> None:
    case = make("normals")
    prediction = case.task.predict(torch.randn(BATCH, 3, *SIZE))
    torch.testing.assert_close(prediction.norm(dim=1), torch.ones(BATCH, *SIZE))
    angles, losses = [], []
    for b, y, x in case.target.any(1).nonzero().tolist():
        cosine = np.dot(prediction[b, :, y, x].double().numpy(), case.target[b, :, y, x].double().numpy())
        angles.append(math.degrees(math.acos(np.clip(cosine, -1, 1))))
        losses.append(1 - cosine)
    assert score(case, prediction) == pytest.approx(np.mean(angles), rel=1e-5)
    total, number = case.task.loss(3 * prediction, case.target)
    assert number == len(losses)
    assert float(total) == pytest.approx(np.sum(losses), rel=1e-5)


@pytest.mark.parametrize("degrees", [0.0, 1e-3, 1.0, 90.0, 179.999, 180.0])
def test_small_and_large_angles_keep_their_digits(degrees: float) -> None:
    turn = math.radians(degrees)
    target = torch.tensor([0.0, 0.6, 0.8]).view(1, 3, 1, 1)
    turned = math.cos(turn) * target + math.sin(turn) * torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    assert score(make("normals"), turned, target) == pytest.approx(degrees, abs=1e-4)


def test_best_f1_by_loops() -> None:
    case = make("edges")
    prediction = (0.3 * (case.target == 1) + 0.7 * torch.rand(BATCH, *SIZE)).clamp(max=1)
    labelled = case.target.numpy() != 255
    t, p = case.target.numpy()[labelled] == 1, prediction.numpy()[labelled]
    best = 0.0
    for threshold in np.linspace(0, 1, 51, dtype=np.float32):
        called = p >= threshold
        hits = (called & t).sum()
        best = max(best, 2 * hits / (called.sum() + t.sum()))
    assert score(case, prediction) == pytest.approx(best)


def test_f1_without_any_edge_is_zero() -> None:
    case = make("edges")
    assert score(case, torch.rand(BATCH, *SIZE), torch.zeros_like(case.raw)) == 0


def test_edge_loss_is_the_weighted_mean() -> None:
    task = TASKS["edges"](spec("edges", options=(("positive_weight", 0.75),)))
    target = torch.tensor([[[1, 0, 0, 255]]], dtype=torch.uint8)
    output = torch.tensor([[[[2.0, -1.0, 0.5, 9.0]]]])
    cost = [-math.log(1 / (1 + math.exp(-o))) for o in (2.0, 1.0, -0.5)]
    total, number = task.loss(output, target)
    assert float(total) == pytest.approx(0.75 * cost[0] + 0.25 * (cost[1] + cost[2]))
    assert float(number) == pytest.approx(1.25)


def test_offsets_point_to_the_mean_of_the_pixels() -> None:
    case = make("offsets")
    raw, target = case.raw.numpy(), case.target.numpy()
    for image, wanted in zip(raw, target, strict=True):
        for y, x in np.ndindex(*SIZE):
            if image[y, x] in (0, 255):
                assert not wanted[:, y, x].any()
            else:
                rows, columns = np.nonzero(image == image[y, x])
                assert wanted[:, y, x] == pytest.approx((columns.mean() - x, rows.mean() - y, 1), abs=1e-5)


def test_end_point_error_by_loops() -> None:
    case = make("offsets")
    prediction, target = case.task.predict(torch.randn(BATCH, 2, *SIZE)), case.target
    errors = [
        math.dist(prediction[b, :, y, x].tolist(), target[b, :2, y, x].tolist())
        for b, y, x in target[:, 2].nonzero().tolist()
    ]
    assert score(case, prediction) == pytest.approx(np.mean(errors))


def test_offset_output_is_in_units_of_reach() -> None:
    task = make("offsets").task
    assert isinstance(task, Offsets)
    output = torch.ones(1, 2, *SIZE)
    torch.testing.assert_close(task.predict(output), torch.full_like(output, 3.2))
    target = torch.cat([torch.full((1, 2, *SIZE), 6.4), torch.ones(1, 1, *SIZE)], 1)
    total, number = task.loss(output, target)
    assert float(total / number) == pytest.approx(2)


def keypoints(**options: float) -> Keypoints:
    return Keypoints(spec("keypoints", options=tuple(options.items())))


def test_heat_by_loops() -> None:
    points = make("keypoints").raw
    heat = keypoints().heat_maps(points, SIZE)
    sigma = 1.5 * 32 / 64
    for b, c, y, x in [(1, 0, 3, 3), (1, 0, 5, 8), (1, 1, 4, 12), (2, 0, 10, 10), (5, 1, 20, 28)]:
        distances = [math.dist((x + 0.5, y + 0.5), p[:2]) for p in points[b].tolist() if p[2] == c]
        wanted = max((math.exp(-(d**2) / (2 * sigma**2)) for d in distances), default=0)
        assert float(heat[b, c, y, x]) == pytest.approx(wanted, abs=1e-6)
    assert not heat[0].any()


def test_heat_is_highest_at_the_points() -> None:
    for image in make("keypoints").raw[1:]:
        heat = keypoints().heat_maps(image.unsqueeze(0), SIZE)[0]
        for x, y, c in image.tolist():
            if c >= 0:
                near = heat[int(c), math.ceil(y) - 1 : int(y) + 1, math.ceil(x) - 1 : int(x) + 1]
                around = heat[int(c), max(0, int(y) - 3) : int(y) + 4, max(0, int(x) - 3) : int(x) + 4]
                assert near.max() == around.max()


def test_learning_keypoints_does_not_end_in_the_empty_map() -> None:
    case = make("keypoints")
    output = torch.zeros(BATCH, 2, *SIZE, requires_grad=True)
    optimiser = torch.optim.Adam([output], lr=0.5)
    for _ in range(200):
        total, number = case.task.loss(output, case.target)
        optimiser.zero_grad()
        (total / number).backward()
        optimiser.step()
    heat = case.task.predict(output.detach())
    assert score(case, heat) == 1
    torch.testing.assert_close(heat[1:], case.perfect(case.target)[1:], atol=0.1, rtol=0)


def test_one_output_for_all_pixels_settles_where_empty_and_full_are_balanced() -> None:
    task = keypoints()
    points = torch.tensor([[[12.5, 12.5, 0.0], [20.5, 12.5, 1.0]]])
    output = torch.zeros(1, 2, 1, 1, requires_grad=True)
    total, _ = task.loss(output.expand(1, 2, *SIZE), points)
    total.backward()
    assert output.grad is not None
    assert output.grad.abs().max() < 0.01  # one point a class: as much pull up as down, at zero output


def pck(heat: torch.Tensor, points: list[tuple[float, float, float]], **options: float) -> float:
    metric = keypoints(**options).metric()
    metric.update(heat, torch.tensor([points]))
    return float(metric.compute())


def test_pck_takes_as_many_peaks_as_points_and_each_point_once() -> None:
    heat = torch.zeros(1, 2, 64, 64)
    heat[0, 0, 10, 10], heat[0, 0, 10, 14], heat[0, 0, 40, 40] = 0.9, 0.8, 0.7
    near, far = (10.5, 10.5, 0.0), (40.5, 40.5, 0.0)
    assert pck(heat, [near]) == 1
    assert pck(heat, [near, far]) == 0.5  # the second strongest peak is another one of the same point
    heat[0, 0, 10, 14] = 0
    assert pck(heat, [near, far]) == 1
    assert pck(heat, [near, near]) == 0.5
    assert pck(heat, [near, (40.5, 40.5, 1.0)]) == 0.5
    assert pck(heat, [near, far, (0.0, 0.0, -1.0)]) == 1


def test_pck_tolerance_is_a_share_of_the_longer_side() -> None:
    heat = torch.zeros(1, 2, 40, 100)
    heat[0, 0, 20, 50] = 1
    assert pck(heat, [(54.5, 20.5, 0.0)], tolerance=0.05) == 1
    assert pck(heat, [(56.5, 20.5, 0.0)], tolerance=0.05) == 0
    assert pck(heat, [(56.5, 20.5, 0.0)], tolerance=0.06) == 1


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_a_plateau_is_one_peak(form: torch.memory_format) -> None:
    heat = torch.zeros(1, 2, 64, 64)
    heat[0, 0, 10:12, 10:12], heat[0, 0, 40, 40] = 0.9, 0.5
    heat = heat.contiguous(memory_format=form)
    assert pck(heat, [(11.0, 11.0, 0.0), (40.5, 40.5, 0.0)]) == 1


def test_no_points_at_all() -> None:
    metric = keypoints().metric()
    metric.update(torch.rand(2, 2, *SIZE), torch.zeros(2, 0, 3))
    assert math.isnan(float(metric.compute()))
    total, number = keypoints().loss(torch.zeros(2, 2, *SIZE), torch.zeros(2, 0, 3))
    assert float(total / number) == pytest.approx(math.log(2))
