"""The numbers of each task kind against slow, obvious ones."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.spec import Column
from models.tasks import TASKS
from models.tasks._metrics import Summed
from models.tasks.keypoints import Keypoints
from models.tasks.offsets import Offsets
from models.tasks.summed import ratio
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


def further(case: Case, prediction: torch.Tensor, target: torch.Tensor | None = None) -> dict[str, float]:
    metrics = case.task.metrics()
    for metric in metrics:
        metric.update(prediction, case.target if target is None else target)
    values = torch.cat([metric.compute().flatten() for metric in metrics]).tolist()
    return {measure.name: value for measure, value in zip(case.task.measures, values, strict=True)}


def many(kind: str, number: int) -> Case:
    """The case of a kind of named classes, with as many as that."""
    column = Column(layout=TASKS[kind].layout, classes=tuple(f"class {k}" for k in range(number)))
    return replace(make(kind), task=TASKS[kind](spec(kind, column=column)))


@pytest.mark.parametrize("classes", [6, 1000])
def test_class_accuracy_and_top_five_by_loops(classes: int) -> None:
    case = many("classification", classes)
    target = torch.randint(-1, classes - 1, (300,))  # the last class has no label, but is predicted
    prediction = (torch.rand(300, classes) + 2 * F.one_hot(target.clamp(min=0), classes)).softmax(1)
    prediction[::3] = torch.rand(100, classes).softmax(1)
    prediction[1::30, classes - 1] = 2
    t, p, found = target.numpy(), prediction.numpy(), further(case, prediction, target)
    right = [(t == c) & (p.argmax(1) == c) for c in range(classes)]
    shares = [right[c].sum() / (t == c).sum() for c in range(classes) if (t == c).any()]
    assert found["class_accuracy"] == pytest.approx(np.mean(shares))
    top = [t[i] in np.argsort(p[i])[-5:] for i in range(300) if t[i] != -1]
    assert found["top5"] == pytest.approx(np.mean(top))
    assert 0 < found["class_accuracy"] < found["top5"] < 1


def test_up_to_five_classes_have_no_top_five() -> None:
    assert [measure.name for measure in many("classification", 5).task.measures] == ["accuracy", "class_accuracy"]


def test_mean_average_precision_and_f1_of_attributes_by_loops() -> None:
    case = many("attributes", 6)
    target = torch.randint(-1, 2, (60, 6), dtype=torch.int8)
    target[:, 4], target[:, 5] = -1, target[:, 5].clamp(max=0)  # no label; no yes
    prediction = ((torch.rand(60, 6) + 0.6 * (target == 1)) / 1.6).round(decimals=2)  # some scores are equal
    t, p, found = target.numpy(), prediction.numpy(), further(case, prediction, target)
    precisions, f1s = [], []
    for c in range(4):
        known = t[:, c] >= 0
        yes, scores = t[known, c] == 1, p[known, c]
        before, area = 0.0, 0.0
        for threshold in sorted(set(scores.tolist()), reverse=True):
            called = scores >= np.float32(threshold)
            recall = (called & yes).sum() / yes.sum()
            area += (recall - before) * (called & yes).sum() / called.sum()
            before = recall
        precisions.append(area)
        f1s.append(2 * ((scores > 0.5) & yes).sum() / ((scores > 0.5).sum() + yes.sum()))
    assert found["map"] == pytest.approx(np.mean(precisions))
    assert found["f1"] == pytest.approx(np.mean(f1s))


@pytest.mark.parametrize("classes", [3, 150])
def test_pixel_and_class_accuracy_by_loops(classes: int) -> None:
    case = many("segmentation", classes)
    target = torch.randint(0, classes - 1, (BATCH, *SIZE), dtype=torch.uint8)
    prediction = torch.where(torch.rand(target.shape) < 0.5, target, classes - 1).to(torch.uint8)
    target[torch.rand(target.shape) < 0.1] = 255
    t, p, found = target.numpy(), prediction.numpy(), further(case, prediction, target)
    assert found["pixel_accuracy"] == pytest.approx(np.mean((t == p)[t != 255]))
    assert found["class_accuracy"] == pytest.approx(np.mean([(p == c)[t == c].mean() for c in range(classes - 1)]))


def test_relative_depth_by_numpy() -> None:
    case = make("depth")
    prediction = case.target * (0.6 + torch.rand(BATCH, *SIZE)) + (case.target == 0) * 9
    labelled, found = case.target.numpy() > 0, further(case, prediction)
    t, p = case.target.double().numpy()[labelled], prediction.double().numpy()[labelled]
    assert found["abs_rel"] == pytest.approx(np.mean(abs(p - t) / t))
    assert found["within_1.25"] == pytest.approx(np.mean(np.maximum(p / t, t / p) < 1.25))


def test_absolute_and_squared_errors_by_numpy() -> None:
    case = make("regression")
    prediction = torch.randn(BATCH, *SIZE)
    t, p, found = case.target.numpy(), prediction.numpy(), further(case, prediction)
    assert found["l1"] == pytest.approx(np.mean(abs(p - t)[t > 0]))
    assert found["rmse"] == pytest.approx(math.sqrt(np.mean((p - t)[t > 0] ** 2)))


@pytest.mark.parametrize("huber", [0.0, 0.5])
def test_the_loss_of_a_field_is_smooth_l1_in_units_of_scale(huber: float) -> None:
    case = make("regression")
    task = TASKS["regression"](spec("regression", options=(("scale", 10.0), ("huber", huber))))
    output = torch.randn(BATCH, 1, *SIZE)
    x = abs(output[:, 0].numpy() - case.target.numpy())[case.target.numpy() > 0]
    wanted = np.where(x < huber, x**2 / (2 * huber or 1), x - huber / 2)
    total, number = task.loss(output, 10 * case.target)
    assert number == len(x)
    assert float(total) == pytest.approx(wanted.sum(), rel=1e-5)
    torch.testing.assert_close(task.predict(output), 10 * output[:, 0])


def test_median_angle_and_shares_by_numpy() -> None:
    case = make("normals")
    prediction = F.normalize(case.target + 0.5 * torch.randn(BATCH, 3, *SIZE), dim=1)
    cosine = (prediction.double() * case.target.double()).sum(1)[case.target.any(1)]
    angles, found = np.degrees(np.arccos(cosine.clamp(-1, 1).numpy())), further(case, prediction)
    assert found["median"] == pytest.approx(np.median(angles), abs=0.05)
    for limit in (11.25, 22.5, 30):
        assert found[f"within_{limit:g}"] == pytest.approx(np.mean(angles < limit), abs=1e-4)
    assert 0.05 < found["within_11.25"] < found["within_30"] < 0.95


@pytest.mark.parametrize(("degrees", "within"), [(11.2, 1), (11.3, 0), (180.0, 0)])
def test_one_angle_is_median_and_share(degrees: float, within: float) -> None:
    turn = math.radians(degrees)
    target = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 4, 5)
    turned = torch.tensor([math.sin(turn), 0.0, math.cos(turn)]).view(1, 3, 1, 1).expand_as(target)
    found = further(make("normals"), turned, target)
    assert found["median"] == pytest.approx(degrees, abs=0.05)
    assert found["within_11.25"] == within


def test_distance_of_edges_by_numpy() -> None:
    case = make("edges")
    prediction = torch.rand(BATCH, *SIZE)
    t, p = case.target.numpy(), prediction.numpy()
    assert further(case, prediction)["l1"] == pytest.approx(np.mean(abs(p - t)[t != 255]))


def test_ends_of_offsets_by_numpy() -> None:
    case = make("offsets")
    prediction, target = case.target[:, :2] + 4 * torch.randn(BATCH, 2, *SIZE), case.target
    errors = (prediction - target[:, :2]).norm(dim=1).numpy()[target[:, 2].numpy() > 0]
    share = further(case, prediction)["within_5px"]
    assert share == pytest.approx(np.mean(errors <= 5))
    assert 0.1 < share < 0.9


def test_half_of_the_tolerance() -> None:
    heat = torch.zeros(1, 2, 40, 100)
    heat[0, 0, 20, 50] = heat[0, 1, 20, 50] = 1
    near, far = (52.5, 20.5, 0.0), (54.5, 20.5, 1.0)
    found = further(make("keypoints"), heat, torch.tensor([[near, far]]))
    assert found == {"pck": 1, "pck_half": 0.5}
