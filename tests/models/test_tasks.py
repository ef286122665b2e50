"""What holds for every task kind."""

import math
import pickle
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.spec import Column
from models.tasks import TASKS, Task
from tests.models.task_cases import BATCH, KINDS, SIZE, STRIDES, Case, features, make, spec


@pytest.fixture(params=TASKS)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    return make(request.param)


def score(case: Case, *batches: tuple[Tensor, Tensor]) -> float:
    metric = case.task.metric()
    for prediction, target in batches:
        metric.update(prediction, target)
    return float(metric.compute())


def scores(case: Case, *batches: tuple[Tensor, Tensor]) -> dict[str, float]:
    """All measures by name, each from a pickled copy of its metric."""
    metrics = [pickle.loads(pickle.dumps(metric)) for metric in case.task.metrics()]
    for metric in metrics:
        for prediction, target in batches:
            metric.update(prediction, target)
    values = torch.cat([metric.compute().flatten() for metric in metrics]).tolist()
    return {measure.name: value for measure, value in zip(case.task.measures, values, strict=True)}


def unlabelled(case: Case, like: Tensor) -> Tensor:
    """Where elements of a batch of output or predictions have no label, in its shape."""
    missing = case.raw == KINDS[case.task.spec.kind].unlabelled
    if case.task.layout in ("points", "boxes"):
        missing = missing.flatten(1).all(1)
    elif case.task.layout == "normals":
        missing = missing.all(1)
    assert missing.any()
    if missing.dim() == 3 and like.dim() == 4:
        missing = missing.unsqueeze(1)
    return missing.reshape(*missing.shape, *[1] * (like.dim() - missing.dim())).expand_as(like)


def signed(case: Case, value: float) -> float:
    return value if case.task.higher_is_better else -value


def constant(case: Case, prediction: Tensor) -> float:
    return signed(case, score(case, (prediction.expand(BATCH, *prediction.shape), case.target)))


def test_loss_falls_when_a_head_is_trained(case: Case) -> None:
    head = case.task.head(*STRIDES)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        total, number = case.task.loss(head(features(), SIZE), case.target)
        optimiser.zero_grad()
        (total / number).backward()
        optimiser.step()
        losses.append(float(total.detach() / number))
    assert losses[-1] < 0.85 * losses[0]


def test_loss_of_a_fresh_head_is_of_order_one(case: Case) -> None:
    total, number = case.task.loss(case.output, case.target)
    assert 0.1 < float(total / number) < 3


def test_unlabelled_elements_cost_nothing_and_pull_nowhere(case: Case) -> None:
    output = case.output.requires_grad_()
    total, number = case.task.loss(output, case.task.target(case.blank))
    total.backward()
    assert (total.item(), number.item()) == (0, 0)
    assert output.grad is not None
    assert torch.equal(output.grad, torch.zeros_like(output))


def test_what_is_said_of_unlabelled_elements_changes_nothing(case: Case) -> None:
    """Pixels, flags and images without a label, in the midst of others that have one."""
    output, target = case.output, case.target
    prediction = case.perfect(target)
    other, spoiled = (torch.where(unlabelled(case, x), x.roll(1, 0), x) for x in (output, prediction))
    assert not torch.equal(other, output)
    assert not torch.equal(spoiled, prediction)
    torch.testing.assert_close(case.task.loss(other, target), case.task.loss(output, target))
    assert scores(case, (spoiled, target)) == pytest.approx(scores(case, (prediction, target)))


def test_loss_of_two_halves_adds_up(case: Case) -> None:
    output, target = case.output, case.target
    whole = torch.stack(case.task.loss(output, target))
    halves = [torch.stack(case.task.loss(output[part], target[part])) for part in (slice(3), slice(3, None))]
    torch.testing.assert_close(halves[0] + halves[1], whole)


def test_loss_is_reckoned_in_float32_under_autocast(case: Case) -> None:
    low = case.output.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        total, number = case.task.loss(low, case.target)
    expected = case.task.loss(low.float(), case.target)
    assert total.dtype == number.dtype == torch.float32
    torch.testing.assert_close((total, number), expected)


def test_perfect_prediction_scores_best_and_chance_does_not(case: Case) -> None:
    best = 1 if case.task.higher_is_better else 0
    assert score(case, (case.perfect(case.target), case.target)) == pytest.approx(best, abs=1e-6)
    chance = score(case, (case.task.predict(case.output), case.target))
    assert signed(case, chance) < signed(case, best)


def test_every_metric_is_the_same_over_any_batches_and_over_ranks(case: Case) -> None:
    prediction, target = case.task.predict(case.output), case.target
    halves = [(prediction[part], target[part]) for part in (slice(3), slice(3, None))]
    assert scores(case, *halves) == pytest.approx(scores(case, (prediction, target)))
    for whole, *ranks in zip(*(case.task.metrics() for _ in range(3)), strict=True):
        whole.update(prediction, target)
        for rank, half in zip(ranks, halves, strict=True):
            rank.update(*half)
        ranks[0].distributed_available_fn = lambda: True  # two ranks in one process: what they gather is given
        others = iter([torch.cat(x) if isinstance(x, list) else x for x in ranks[1].metric_state.values()])
        ranks[0].dist_sync_fn = lambda state, group, others=others: [state, next(others)]  # noqa: ARG005
        torch.testing.assert_close(ranks[0].compute(), whole.compute())


def test_metrics_without_labels_are_zero_or_nan(case: Case) -> None:
    values = scores(case, (case.task.predict(case.output), case.task.target(case.blank)))
    assert all(value == 0 or math.isnan(value) for value in values.values())
    assert math.isnan(values[case.task.metric_name]) or values[case.task.metric_name] == 0


def test_the_primary_metric_is_the_first_measure(case: Case) -> None:
    first, *further = case.task.measures
    assert (first.name, first.higher_is_better) == (case.task.metric_name, case.task.higher_is_better)
    assert tuple(further) == case.task.further
    assert further
    assert len({measure.name for measure in case.task.measures}) == len(case.task.measures)
    prediction = case.task.predict(case.output)
    value = scores(case, (prediction, case.target))[first.name]
    assert value == pytest.approx(score(case, (prediction, case.target)), abs=1e-7)


def test_every_measure_is_best_for_the_perfect_prediction_and_not_by_chance(case: Case) -> None:
    perfect = scores(case, (case.perfect(case.target), case.target))
    chance = scores(case, (case.task.predict(case.output), case.target))
    for measure in case.task.measures:
        # a median is known to a twentieth of a degree
        assert perfect[measure.name] == pytest.approx(float(measure.higher_is_better), abs=0.05)
        sign = 1 if measure.higher_is_better else -1
        assert sign * chance[measure.name] < sign * perfect[measure.name], measure


def test_units_are_those_of_the_column_or_of_the_image() -> None:
    units = {kind: [measure.unit for measure in make(kind).task.measures] for kind in TASKS}
    assert {kind: found for kind, found in units.items() if any(found)} == {
        "depth": ["m", "", ""],
        "regression": ["px", "px"],
        "normals": ["°", "°", "", "", ""],
        "offsets": ["px", ""],
    }


def test_metric_of_bfloat16_output_is_close_to_that_in_float32(case: Case) -> None:
    output = case.output
    full, low = (score(case, (case.task.predict(x), case.target)) for x in (output, output.bfloat16().float()))
    assert low == pytest.approx(full, abs=0.05)


def test_metrics_ignore_batches_without_a_label(case: Case) -> None:
    prediction, target = case.task.predict(case.output), case.target
    before, blank = scores(case, (prediction, target)), case.task.target(case.blank)
    assert scores(case, (prediction, target), (prediction.flip(0), blank)) == pytest.approx(before)


def test_trivial_prediction_looks_like_a_prediction_and_is_not_perfect(case: Case) -> None:
    trivial = case.task.trivial(case.target, SIZE)
    prediction = case.task.predict(case.output)[0]
    assert (trivial.shape, trivial.dtype) == (prediction.shape, prediction.dtype)
    assert constant(case, trivial) < signed(case, 1 if case.task.higher_is_better else 0)
    blank = case.task.target(case.blank)
    torch.testing.assert_close(case.task.trivial(torch.cat([case.target, blank]), SIZE), trivial)


@pytest.mark.parametrize("kind", ["classification", "segmentation", "attributes"])
def test_trivial_prediction_is_the_best_constant_answer(kind: str) -> None:
    case = make(kind)
    number = len(case.task.classes)
    answers = {
        "classification": list(torch.eye(number)),
        "segmentation": [torch.tensor(k, dtype=torch.uint8).expand(SIZE) for k in range(number)],
        "attributes": list(torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * number)),
    }[kind]
    assert constant(case, case.task.trivial(case.target, SIZE)) == max(constant(case, answer) for answer in answers)


def test_trivial_depth_cannot_be_bettered_by_another_map() -> None:
    case = make("depth")
    trivial = case.task.trivial(case.target, SIZE)
    best = constant(case, trivial)
    assert all(constant(case, trivial + step * torch.randn(SIZE)) < best for step in (0.01, 0.1, 1.0))


def test_trivial_values_cannot_be_bettered_by_another_map() -> None:
    case = make("regression")
    trivial = case.task.trivial(case.target, SIZE)
    best = constant(case, trivial)
    assert all(constant(case, trivial + step * torch.randn(SIZE)) < best for step in (0.01, 0.1, 1.0))
    labelled = torch.ones(SIZE, dtype=torch.bool)
    labelled[3, 4] = False
    rest = case.task.trivial(case.target * labelled, SIZE)
    torch.testing.assert_close(rest[labelled], trivial[labelled])
    values = (case.target * labelled)[case.target * labelled > 0]
    assert rest[3, 4] == values.sort().values[(len(values) - 1) // 2]


def test_trivial_normals_cannot_be_bettered_in_the_loss() -> None:
    """The mean direction has the greatest sum of cosines; of the angles it is close to the best."""
    case = make("normals")
    trivial = case.task.trivial(case.target, SIZE)

    def cost(normals: Tensor) -> float:
        return float(case.task.loss(normals.expand(BATCH, 3, *SIZE), case.target)[0])

    assert all(cost(trivial) < cost(trivial + step * torch.randn(3, *SIZE)) for step in (0.01, 0.1, 1.0))


def test_how_far_predictions_are_apart(case: Case) -> None:
    prediction = case.perfect(case.target)
    assert case.task.apart(prediction, prediction) == 0
    assert case.task.apart(prediction, prediction.flip(0)) > 0
    assert case.task.apart(prediction, prediction[:1]) == float("inf")


def test_boxes_of_nearly_equal_scores_may_swap() -> None:
    task = make("detection").task
    boxes = torch.tensor([[[1.0, 2, 5, 6, 0, 0.7], [3, 1, 9, 4, 1, 0.7], [0, 0, 32, 24, -1, 0]]])
    moved, renamed = boxes[:, [1, 0, 2]].clone(), boxes.clone()
    assert task.apart(moved, boxes) == 0
    moved[0, 0, 0] += 0.3
    assert task.apart(moved, boxes) == task.apart(boxes, moved) == pytest.approx(0.3 / 32)
    renamed[0, 0, 4] = 1
    assert task.apart(renamed, boxes) == 1
    assert task.apart(boxes[:, [0, 0, 2]], boxes) == 1


def test_predictions_and_targets_can_be_shown(case: Case) -> None:
    targets = (*case.target, case.task.target(case.blank)[0])
    shown = [case.task.render(p) for p in case.task.predict(case.output)]
    shown += [case.task.render_target(target, SIZE) for target in targets]
    shown.append(case.task.render(case.task.trivial(case.target, SIZE)))
    for picture in shown:
        if isinstance(picture, str):
            assert picture
        else:
            assert (picture.dtype, tuple(picture.shape)) == (torch.uint8, (3, *SIZE))


def test_predictions_can_be_told_in_one_line(case: Case) -> None:
    lines = [case.task.describe(prediction) for prediction in case.task.predict(case.output)]
    assert all(line and "\n" not in line for line in lines)


def test_maps_in_words() -> None:
    def tell(kind: str, prediction: Tensor) -> str:
        return make(kind).task.describe(prediction)

    mask = torch.zeros(4, 5, dtype=torch.uint8)
    mask[0] = 2
    assert tell("segmentation", mask) == "road 75%, sky 25%"
    assert tell("depth", torch.tensor([[1.0, 2.0], [4.0, 5.0]])) == "1 to 5 m, mean 3"
    assert tell("regression", torch.tensor([[1.0, 2.0], [4.0, 5.0]])) == "1 to 5 px, mean 3"
    assert tell("edges", torch.tensor([[0.2, 0.5], [0.6, 0.4]])) == "25.0% of the pixels are above 0.5"
    facing = F.normalize(torch.tensor([[[0.1, 0.2, -3.0, 1.0]], [[0.2, 2.0, 0.1, 4.0]], [[1.0, 1.0, 0.1, 5.0]]]), dim=0)
    assert tell("normals", facing) == "facing the camera 50%, left 25%, up 25%"
    assert tell("offsets", torch.tensor([[[3.0, 0.0]], [[4.0, 0.0]]])) == "vectors of 0 to 5 pixels, mean 2.5"
    heat = torch.full((2, 64, 64), 0.4)
    heat[0, 10, 10], heat[0, 10, 11], heat[0, 40, 40], heat[1, 5, 5] = 0.9, 0.8, 0.6, 0.45
    assert tell("keypoints", heat) == "2 eye, 0 beak"


def test_a_map_and_its_perfect_prediction_look_alike(case: Case) -> None:
    for prediction, target in zip(case.perfect(case.target), case.target, strict=True):
        shown, wanted = case.task.render(prediction), case.task.render_target(target, SIZE)
        if isinstance(shown, str) or isinstance(wanted, str):
            return
        labelled = (wanted != 0).any(0) & (wanted != 128).any(0)  # black or grey: unlabelled
        assert torch.equal(shown[:, labelled], wanted[:, labelled])


def test_texts() -> None:
    classification, attributes = make("classification").task, make("attributes").task
    assert classification.render(torch.tensor([0.01, 0.93, 0.04, 0.02])) == "dress 0.93"
    assert classification.render_target(torch.tensor(3), SIZE) == "hat"
    assert classification.render_target(torch.tensor(-1), SIZE) == "unlabelled"
    assert attributes.render(torch.tensor([0.6, 0.5, 0.91])) == "bald 0.91, smiling 0.60"
    assert attributes.render(torch.tensor([0.1, 0.2, 0.3])) == "none"
    assert attributes.render_target(torch.tensor([-1, 1, 0]), SIZE) == "young"
    assert attributes.render_target(torch.tensor([-1, 0, 0]), SIZE) == "none"
    assert attributes.render_target(torch.tensor([-1, -1, -1]), SIZE) == "unlabelled"


def test_words_stay_short_however_many_classes_there_are() -> None:
    def task(kind: str, number: int) -> Task:
        return TASKS[kind](spec(kind, column=Column(layout=TASKS[kind].layout, classes=classes(number))))

    def classes(number: int) -> tuple[str, ...]:
        return tuple(f"class {k}" for k in range(number))

    species = task("classification", 8142)
    assert species.describe(torch.linspace(0, 0.5, 8142)) == "class 8141 0.50"
    flags = task("attributes", 1000)
    sure = flags.describe(torch.linspace(0.5, 1, 1000))
    assert sure.startswith("class 999 1.00, class 998 1.00, ")
    assert sure.endswith("class 988 0.99 and 987 more")
    assert flags.render_target(torch.ones(1000), SIZE) == ", ".join(classes(12)) + " and 988 more"
    mask = torch.arange(150, dtype=torch.uint8).repeat(4)
    mask[mask < 100] = 7
    assert task("segmentation", 150).describe(mask.view(20, 30)).startswith("class 7 67%, class ")
    assert task("segmentation", 150).describe(mask.view(20, 30)).endswith(" and 39 more")
    rows = torch.tensor([[0.0, 0, 9, 9, k % 80, 1] for k in range(100)] + [[0.0, 0, 32, 24, -1, 0]])
    assert task("detection", 80).describe(rows).endswith("2 class 11 and 68 more")


def test_unknown_option_is_refused_with_the_nearest_name(case: Case) -> None:
    kind = case.task.spec.kind
    for name in case.task.options:
        with pytest.raises(ValueError, match=f"task 'mine': unknown option '{name}s'; did you mean '{name}'"):
            TASKS[kind](spec(kind, options=((f"{name}s", 1.0),)))
    with pytest.raises(ValueError, match=rf"unknown option 'zoom'; (did you mean|{kind} has none)"):
        TASKS[kind](spec(kind, options=(("zoom", 1.0),)))


def test_options_override_defaults() -> None:
    task = TASKS["keypoints"](spec("keypoints", options=(("sigma", 3.0),)))
    assert task.settings == {"sigma": 3.0, "tolerance": 0.05}


def test_wrong_layout_is_refused(case: Case) -> None:
    kind = case.task.spec.kind
    other = "field" if case.task.layout == "boxes" else "boxes"
    message = f"task 'mine': column 'label' of 'photos' has layout '{other}', {kind} learns from '{case.task.layout}'"
    with pytest.raises(ValueError, match=message):
        TASKS[kind](spec(kind, column=Column(layout=other)))


@pytest.mark.parametrize("kind", ["classification", "attributes", "segmentation", "edges", "keypoints", "detection"])
def test_nameless_classes_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=f"task 'mine': column 'label' of 'photos' names no classes, {kind} needs"):
        TASKS[kind](spec(kind, column=Column(layout=TASKS[kind].layout)))


def test_edges_refuse_more_than_two_classes() -> None:
    with pytest.raises(ValueError, match="task 'mine': column 'label' has 3 classes; edges needs two"):
        TASKS["edges"](spec("edges", column=Column(layout="mask", classes=("a", "b", "c"))))


def test_colours_of_neighbouring_classes_differ() -> None:
    strip = torch.arange(24).view(1, 24)
    picture = make("segmentation").task.render(strip)
    assert isinstance(picture, Tensor)
    assert len({tuple(colour) for colour in picture[:, 0].T.tolist()}) == 24


def test_nearer_is_brighter_and_unlabelled_is_black() -> None:
    task = make("depth").task
    near_to_far = task.render(torch.tensor([[0.1, 0.5, 1.0, 2.0, 10.0]]))
    assert isinstance(near_to_far, Tensor)
    luminance = (near_to_far[:, 0].T.float() @ torch.tensor([0.2126, 0.7152, 0.0722])).tolist()
    assert all(near > far for near, far in pairwise(luminance))
    black = task.render_target(torch.zeros(SIZE), SIZE)
    assert isinstance(black, Tensor)
    assert not black.any()


def test_the_picture_of_normals_is_the_usual_one() -> None:
    task = make("normals").task
    axes = torch.eye(3).view(3, 1, 3)
    picture, unlabelled = task.render(axes), task.render_target(torch.zeros(3, *SIZE), SIZE)
    assert isinstance(picture, Tensor)
    assert picture[:, 0].T.tolist() == [[255, 128, 128], [128, 255, 128], [128, 128, 255]]
    assert isinstance(unlabelled, Tensor)
    assert not unlabelled.any()


def test_the_guide_to_adding_a_kind_quotes_the_files_themselves() -> None:
    """docs/adding-a-task-kind.md: each snippet stands, line by line, in the file that is named above it."""
    root = Path(__file__).resolve().parents[2]
    text = (root / "docs" / "adding-a-task-kind.md").read_text()
    snippets = re.findall(r"^`(\S+)`:\n\n```python\n(.*?)```$", text, re.DOTALL | re.MULTILINE)
    assert text.count("```python") == len(snippets)
    for file, snippet in snippets:
        assert snippet in (root / file).read_text(), f"{file} does not hold:\n{snippet}"
    quoted = "".join(snippet for file, snippet in snippets if file == "models/tasks/regression.py")
    assert quoted.split() == (root / "models/tasks/regression.py").read_text().split()
