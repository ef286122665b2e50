"""Detection against torchvision's RetinaNet, and its metric against COCO's own answers and over ranks."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection import RetinaNet
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import box_iou

from models import average_precision
from models.average_precision import AveragePrecision
from models.detection_head import RATIOS, SCALES, RetinaHead
from models.spec import Column
from models.tasks.detection import Detection
from tests.models.task_cases import BATCH, SIZE, STRIDES, features, found_exactly, make, spec

CLASSES = 3


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def detection(**options: float) -> Detection:
    return Detection(spec("detection", options=tuple(options.items())))


def output_at(size: tuple[int, int] = (64, 96), batch: int = 4, spread: float = 1.0) -> Tensor:
    """Raw output of a head on an image of some size, its logits and offsets drawn at random."""
    head = RetinaHead([4, 5, 6], [8, 16, 32], 8, CLASSES)
    maps = [torch.randn(batch, 4 + d, size[0] // r, size[1] // r) for d, r in enumerate((8, 16, 32))]
    output = head(maps, size).detach()
    output[:, :-1, :CLASSES] = -2 + spread * torch.randn(batch, output.shape[1] - 1, CLASSES)
    output[:, :-1, CLASSES : CLASSES + 4] = 0.2 * torch.randn(batch, output.shape[1] - 1, 4)
    return output


def boxes(batch: int = 4, most: int = 6) -> Tensor:
    """Labelled boxes in an image of 64 x 96, padding between them."""
    x0y0 = torch.rand(batch, most, 2) * torch.tensor([60.0, 40.0])
    kind = torch.randint(-1, CLASSES, (batch, most, 1)).float()
    return torch.cat([x0y0, x0y0 + 4 + 30 * torch.rand(batch, most, 2), kind], -1)


def named(rows: Tensor) -> dict[str, Tensor]:
    rows = rows[rows[:, 4] >= 0]
    return {"boxes": rows[:, :4], "labels": rows[:, 4].long()}


def oracle_loss(output: Tensor, target: Tensor) -> float:
    """torchvision's loss of all images, which is a mean, times their number."""
    head, targets = RetinaNetHead(8, 9, CLASSES), [named(rows) for rows in target]
    logits, offsets, anchors = output[:, :-1].split([CLASSES, 4, 4], -1)
    matches = []
    for each, wanted in zip(anchors, targets, strict=True):
        if len(wanted["boxes"]):
            matches.append(Matcher(0.5, 0.4, allow_low_quality_matches=True)(box_iou(wanted["boxes"], each)))
        else:
            matches.append(torch.full((len(each),), -1))
    parts = head.compute_loss(targets, {"cls_logits": logits, "bbox_regression": offsets}, list(anchors), matches)
    return len(target) * float(parts["classification"] + parts["bbox_regression"])


@pytest.mark.parametrize("empty", [(), (1,), (0, 1, 2, 3)])
def test_the_loss_is_that_of_torchvisions_retinanet(empty: tuple[int, ...]) -> None:
    output, target = output_at(), boxes()
    target[list(empty), :, 4] = -1
    total, number = detection().loss(output, target)
    assert float(number) == 4
    assert float(total) == pytest.approx(oracle_loss(output, target), rel=1e-5)
    unlabelled = torch.cat([target, torch.full_like(target[:2], -2)])
    more = detection().loss(torch.cat([output, output[:2]]), unlabelled)
    torch.testing.assert_close(more, (total, number))


def test_the_gradient_is_that_of_torchvisions_retinanet() -> None:
    output, target = output_at(), boxes()
    ours = output.clone().requires_grad_()
    detection().loss(ours, target)[0].backward()
    assert ours.grad is not None
    assert not ours.grad[..., -4:].any()
    assert not ours.grad[:, -1].any()
    step = 1e-2
    for place in [(0, 3, 1), (1, 40, 5), (2, 100, 0), (3, 7, 6)]:
        up, down = output.double().clone(), output.double().clone()
        up[place] += step
        down[place] -= step
        slope = (oracle_loss(up, target.double()) - oracle_loss(down, target.double())) / (2 * step)
        assert float(ours.grad[place]) == pytest.approx(slope, rel=1e-2, abs=1e-5)


@pytest.mark.parametrize(
    ("flat", "kept"), [((5.0, 5.0, 5.0, 9.0), -1), ((5.0, 5.0, 9.0, 5.0), -1), ((5.0, 5.0, 9.0, 9.0), 1)]
)
def test_a_box_without_area_is_none(flat: tuple[float, ...], kept: int) -> None:
    target = detection().target(torch.tensor([[[*flat, 1.0], [1.0, 2.0, 30.0, 40.0, 2.0]]]))
    assert target[0, :, 4].tolist() == [kept, 2]
    total, _ = detection().loss(output_at(batch=1), target)
    assert total.isfinite()


def retinanet(task: Detection) -> RetinaNet:
    backbone = torch.nn.Identity()
    backbone.out_channels = 8  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    return RetinaNet(
        backbone,
        CLASSES,
        score_thresh=task.settings["score"],
        nms_thresh=task.settings["overlap"],
        detections_per_img=int(task.settings["detections"]),
        topk_candidates=10**6,
    )


@pytest.mark.parametrize("options", [{}, {"score": 0.3}, {"overlap": 0.2}, {"detections": 7}])
def test_predictions_are_those_of_torchvisions_retinanet(options: dict[str, float]) -> None:
    task, output = detection(candidates=10**6, **options), output_at()
    found = task.predict(output)
    assert found.shape == (4, task.settings["detections"] + 1, 6)
    for rows, raw in zip(found, output, strict=True):
        logits, offsets, anchors = raw[None, :-1].split([CLASSES, 4, 4], -1)
        head_outputs = {"cls_logits": [logits], "bbox_regression": [offsets]}
        (wanted,) = retinanet(task).postprocess_detections(head_outputs, [[anchors[0]]], [(64, 96)])
        rows, image = rows[:-1][rows[:-1, 4] >= 0], rows[-1]
        assert image.tolist() == [0, 0, 96, 64, -1, 0]
        torch.testing.assert_close(rows[:, :4], wanted["boxes"])
        assert torch.equal(rows[:, 4].long(), wanted["labels"])
        torch.testing.assert_close(rows[:, 5], wanted["scores"])


def test_no_more_candidates_than_asked_for() -> None:
    output = output_at()
    few = detection(candidates=5).predict(output)
    all_of_them = detection().predict(output)
    assert ((few[..., 4] >= 0).sum(1) <= 5).all()
    torch.testing.assert_close(few[:, 0], all_of_them[:, 0])


def test_a_sure_head_finds_what_is_labelled() -> None:
    task, target, output = detection(), boxes(), output_at()
    anchors = output[:, :-1, -4:]
    output[:, :-1, :CLASSES], output[:, :-1, CLASSES:-4] = -9.0, 0.0
    for b, rows in enumerate(target):
        for row in rows[rows[:, 4] >= 0]:
            place = int(box_iou(row[None, :4], anchors[b])[0].argmax())
            width_height = anchors[b, place, 2:] - anchors[b, place, :2]
            centre = (anchors[b, place, 2:] + anchors[b, place, :2]) / 2
            wanted = torch.cat(
                [((row[:2] + row[2:4]) / 2 - centre) / width_height, ((row[2:4] - row[:2]) / width_height).log()]
            )
            output[b, place, CLASSES : CLASSES + 4] = wanted
            output[b, place, int(row[4])] = 9.0
    metric = task.metric()
    metric.update(task.predict(output), target)
    assert float(metric.compute()) > 0.95  # all but boxes that share an anchor


@pytest.mark.parametrize(("channels", "strides"), [((6,), (16,)), ((6, 10), (4, 8)), ((3, 4, 5, 6), (4, 8, 16, 32))])
def test_anchors_are_torchvisions_where_strides_divide_the_image(
    channels: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    size = (128, 256)
    head = RetinaHead(channels, strides, 8, CLASSES)
    maps = [torch.randn(2, c, size[0] // r, size[1] // r) for c, r in zip(channels, strides, strict=True)]
    levels = [*strides[-3:], 2 * strides[-1], 4 * strides[-1]]
    sizes = tuple(tuple(4 * stride * scale for scale in SCALES) for stride in levels)
    grids = [torch.zeros(2, 1, size[0] // stride, size[1] // stride) for stride in levels]
    images = ImageList(torch.zeros(2, 3, *size), [size] * 2)
    wanted = AnchorGenerator(sizes, (RATIOS,) * len(sizes))(images, grids)
    output = head(maps, size)
    assert output.shape == (2, len(wanted[0]) + 1, CLASSES + 8)
    torch.testing.assert_close(output[:, :-1, -4:], torch.stack(wanted))
    assert output[:, -1].tolist() == [[0] * (CLASSES + 4) + [0, 0, 256, 128]] * 2


def test_anchors_stand_over_the_features_they_come_from_at_odd_sizes() -> None:
    """37 x 51 pixels at stride 8 are 5 x 7 cells of 8 pixels, not of 37 // 5 = 7."""
    head = RetinaHead([3], [8], 8, CLASSES)
    anchors = head([torch.randn(1, 3, 5, 7)], (37, 51))[0, : 5 * 7 * 9, -4:].view(5, 7, 9, 4)
    centres = (anchors[..., :2] + anchors[..., 2:]) / 2
    assert centres[4, 6].tolist() == [[48.0, 32.0]] * 9


def test_every_location_and_weight_takes_part() -> None:
    head = detection().head(*STRIDES)
    inputs = [feature.requires_grad_() for feature in features()]
    head(inputs, SIZE)[..., :-4].square().sum().backward()
    for tensor in (*inputs, *head.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


def test_an_image_does_not_depend_on_the_rest_of_its_batch() -> None:
    head = detection().head(*STRIDES).train()
    together = head(features(), SIZE)
    alone = torch.cat([head([feature[b : b + 1] for feature in features()], SIZE) for b in range(BATCH)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_anchors_keep_their_digits_under_autocast() -> None:
    head = RetinaHead([3], [8], 8, CLASSES)
    maps = [torch.randn(1, 3, 40, 40)]
    with torch.autocast("cpu", torch.bfloat16):
        low = head(maps, (317, 317))
    assert low.dtype == torch.float32
    assert torch.equal(low[..., -4:], head(maps, (317, 317))[..., -4:])


def coco_map(predictions: list[dict[str, Tensor]], targets: list[dict[str, Tensor]]) -> float:
    metric = MeanAveragePrecision(backend="faster_coco_eval")
    metric.update(predictions, targets)
    return float(metric.compute()["map"])


def guesses(target: Tensor) -> Tensor:
    """Labelled boxes, moved a little, some of another class, and false ones: a prediction of some worth."""
    moved = target[..., :4] + 2 * torch.randn(*target.shape[:2], 4)
    kind = torch.where(torch.rand(target.shape[:2]) < 0.2, 0.0, target[..., 4])
    mixed = torch.cat([moved, kind.unsqueeze(-1), torch.rand(*target.shape[:2], 1)], -1)
    image = mixed.new_tensor([0, 0, 96, 64, -1, 0]).expand(len(mixed), 1, 6)
    return torch.cat([mixed, image], 1)


def test_the_metric_is_cocos() -> None:
    target = boxes(20)
    prediction = guesses(target)
    metric = AveragePrecision(100)
    metric.update(prediction[:7], target[:7])
    metric.update(prediction[7:], torch.cat([target, -torch.ones(20, 3, 5)], 1)[7:])  # another width of padding
    found = [named(rows) | {"scores": rows[rows[:, 4] >= 0, 5]} for rows in prediction]
    value = float(metric.compute())
    assert value == pytest.approx(coco_map(found, [named(rows) for rows in target]), abs=1e-6)
    assert 0.1 < value < 0.9


def test_its_parts_are_cocos_by_one_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counted(**settings: Any) -> MeanAveragePrecision:
        made.append(MeanAveragePrecision(**settings))
        return made[-1]

    monkeypatch.setattr(average_precision, "MeanAveragePrecision", counted)
    target, task = boxes(20), detection()
    prediction = guesses(target)
    (metric,) = task.metrics()
    metric.update(prediction, target)
    values = metric.compute()
    assert len(made) == 1
    oracle = MeanAveragePrecision(backend="faster_coco_eval")
    found = [named(rows) | {"scores": rows[rows[:, 4] >= 0, 5]} for rows in prediction]
    oracle.update(found, [named(rows) for rows in target])
    wanted = oracle.compute()
    torch.testing.assert_close(values, torch.stack([wanted[part] for part in ("map", "map_50", "map_75")]))
    assert values[1] > values[0] > 0.1
    assert [measure.name for measure in task.measures] == ["map", "ap50", "ap75"]


def test_half_of_the_boxes_give_half_of_the_precision() -> None:
    target = torch.tensor([[[10.0, 10, 30, 30, 0], [50, 10, 70, 30, 0]]])
    found = found_exactly(target)
    found[0, 1, 4] = -1
    metric = AveragePrecision(100)
    metric.update(found, target)
    assert float(metric.compute()) == pytest.approx(51 / 101)  # 51 of the 101 steps of recall are reached


def test_the_metric_over_images_without_objects() -> None:
    target = torch.full((2, 3, 5), -1.0)
    metric = AveragePrecision(100)
    assert math.isnan(float(metric.compute()))
    metric.update(torch.full((2, 4, 6), -1.0), target)
    assert math.isnan(float(metric.compute()))


def test_the_metric_over_ranks_with_unequal_numbers_of_images() -> None:
    """Every rank gathers one flat list, also one without images: so none waits for a call that another never makes."""
    target = boxes(4)
    prediction = guesses(target)
    offered: list[Tensor] = []

    def offer(state: Tensor, group: object) -> list[Tensor]:  # noqa: ARG001
        offered.append(state)
        return [state]

    def rank(part: slice, gather: Callable[[Tensor, object], list[Tensor]]) -> float:
        metric = AveragePrecision(100)
        metric.distributed_available_fn = lambda: True  # a rank in this process: what it gathers is given
        metric.dist_sync_fn = gather
        if len(target[part]):
            metric.update(prediction[part], target[part])
        return float(metric.compute())

    parts = (slice(3), slice(3, 4), slice(4, None))
    alone = [rank(part, offer) for part in parts]
    assert [len(state.shape) for state in offered] == [1, 1, 1]
    assert math.isnan(alone[2])
    whole = AveragePrecision(100)
    whole.update(prediction, target)
    together = [rank(part, lambda state, group: offered) for part in parts]  # noqa: ARG005
    assert together == pytest.approx([float(whole.compute())] * 3)
    assert alone[0] != pytest.approx(together[0])


def test_the_trivial_prediction_is_the_most_common_place() -> None:
    usual = [10.0, 10.0, 40.0, 40.0, 1.0]
    rare = [60.0, 30.0, 90.0, 60.0, 2.0]
    other = [10.0, 10.0, 40.0, 40.0, 0.0]
    none = [0.0, 0.0, 0.0, 0.0, -1.0]
    targets = torch.tensor([[usual, none], [usual, rare], [usual, other], [none, none], [[-2.0] * 5] * 2])
    found = detection().trivial(targets, (64, 96))
    assert found[0].tolist() == [*usual, 0.75]
    assert sorted(found[1:3].tolist()) == sorted([[*rare, 0.25], [*other, 0.25]])
    assert found[-1].tolist() == [0, 0, 96, 64, -1, 0]
    assert (found[3:, 4] == -1).all()
    assert (detection().trivial(targets[3:], (64, 96))[:, 4] == -1).all()


def test_words() -> None:
    target = torch.tensor([[[1.0, 1, 9, 9, 1], [2, 2, 9, 9, 0], [3, 3, 9, 9, 1], [0, 0, 0, 0, -1]]])
    found = found_exactly(target)[0]
    assert detection().describe(found) == "2 dog, 1 cat"
    found[:, 5] = 0.1
    assert detection().describe(found) == "none"
    assert detection().render_target(torch.full((3, 5), -2.0), SIZE) == "unlabelled"


def test_outlines_lie_on_the_edges_of_the_boxes() -> None:
    target = torch.tensor([[4.0, 2.0, 20.0, 12.0, 0.0], [0.0, 0.0, 32.0, 24.0, 2.0]])
    picture = detection().render_target(target, SIZE)
    assert isinstance(picture, Tensor)
    drawn = picture.bool().any(0)
    assert drawn.sum() == 2 * (16 + 8) + 2 * (32 + 22)
    assert drawn[2, 4:20].all()
    assert drawn[11, 4:20].all()
    assert drawn[2:12, 4].all()
    assert drawn[2:12, 19].all()
    assert not drawn[3:11, 5:19].any()
    assert len(picture[:, drawn].unique(dim=1).T) == 2
    image = torch.full((3, 2 * SIZE[0], 2 * SIZE[1]), 90, dtype=torch.uint8)
    shown = detection().on_image(picture, image)
    assert isinstance(shown, Tensor)
    assert torch.equal(shown[:, drawn], picture[:, drawn])
    assert (shown[:, ~drawn] == 90).all()


def test_the_best_box_is_drawn_in_front() -> None:
    rows = torch.tensor([[2.0, 2, 20, 20, 0, 0.9], [2, 2, 20, 20, 1, 0.8], [0, 0, 32, 24, -1, 0]])
    only = detection().render(rows[[0, 2]])
    assert torch.equal(detection().render(rows), only)


def test_as_many_classes_as_coco_has() -> None:
    column = Column(layout="boxes", classes=tuple(f"class {k}" for k in range(80)))
    task = Detection(spec("detection", column=column))
    output = task.head(*STRIDES)(features(), SIZE)
    assert output.shape[-1] == 88
    total, number = task.loss(output, make("detection").target)
    assert 0.1 < float(total.detach() / number) < 6
