"""The training loop: what it computes, and that it is the same computation wherever it was stopped."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models import bundle
from models.branch_tree import BranchTree
from models.sharing import SharedModel
from pipeline import loop
from pipeline.artifacts import read_manifests, shards, write_manifests
from pipeline.checkpoints import kept_weights
from pipeline.config import Train
from pipeline.evaluate import network_metrics, trivial_metrics
from pipeline.jobs import TrainJob
from pipeline.loop import conclude, train
from pipeline.machine import Machine
from pipeline.optimise import SCHEDULES, build_optimiser, learning_rate
from pipeline.results import trials
from pipeline.step import Diverged, _seed, take_step
from pipeline.storage import JobFolder
from pipeline.training_state import EpochRecord, begin, build, splits_of
from tests.pipeline.cases import DECODING, QUIET, cut_short, make_job, prepare, same, saved, settings, site
from tests.pipeline.number_source import Numbers, labels_of, rows

pytestmark = pytest.mark.filterwarnings(DECODING)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def job(prepared: Path, *arguments: Any, **changes: Any) -> TrainJob:
    return make_job(read_manifests(prepared), *arguments, **changes)


def weights(job: TrainJob, storage: Path) -> dict[str, Tensor]:
    return saved(job, storage)["network"]


def timeless(records: list[EpochRecord]) -> list[EpochRecord]:
    return [replace(record, seconds=0.0) for record in records]


def first_weights(job: TrainJob) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in build(job).state_dict().items()}


LIVELY = {"epochs": 3, "ema": 0.9, "clip": 1.0, "optimiser": "adamw", "augment": {"flip": 0.5, "crop": 0.7}}


@pytest.fixture(scope="module")
def uninterrupted(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainJob, list, Mapping]:
    torch.set_num_threads(1)
    storage, mine = tmp_path_factory.mktemp("whole"), job(prepared, loss_weights="uncertainty", **LIVELY)
    records = list(train(mine, site(prepared, storage)))
    return mine, records, saved(mine, storage)


def assert_same_end(mine: TrainJob, storage: Path, records: list[EpochRecord], expected: tuple) -> None:
    _, whole, state = expected
    found = saved(mine, storage)
    assert same(found["network"], state["network"])
    assert same(found["average"], state["average"])
    assert same(found["weighing"], state["weighing"])
    assert timeless(records) == timeless(whole)


def test_stopped_between_epochs(prepared: Path, tmp_path: Path, uninterrupted: tuple) -> None:
    mine, where = uninterrupted[0], site(prepared, tmp_path)
    for epoch in (1, 2):
        generator = train(mine, where)
        for _ in range(epoch):
            next(generator)
        generator.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert_same_end(mine, tmp_path, list(train(mine, where)), uninterrupted)


@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_inside_an_epoch(prepared: Path, tmp_path: Path, uninterrupted: tuple, workers: int) -> None:
    mine, where = uninterrupted[0], site(prepared, tmp_path, loader_workers=workers)
    for steps in (2, 5):
        cut_short(mine, where, steps)
        assert saved(mine, tmp_path)["step"] % 4 > 0, "inside an epoch"
    assert_same_end(mine, tmp_path, list(train(mine, where)), uninterrupted)


def test_learned_loss_weights_move_are_recorded_and_leave_the_network_as_large_as_it_was(
    prepared: Path, tmp_path: Path
) -> None:
    mine, plain = (job(prepared, loss_weights=name, select="last") for name in ("uncertainty", "fixed"))
    records = [list(train(one, site(prepared, tmp_path)))[-1] for one in (mine, plain)]
    assert all(weight != 1 for weight in records[0].weights.values())
    assert set(records[1].weights.values()) == {1}
    results = [conclude(one, site(prepared, tmp_path)) for one in (mine, plain)]
    assert results[0]["params"] == results[1]["params"]
    assert results[0]["weights"] == pytest.approx(dict(records[0].weights))
    assert (
        bundle.load(tmp_path / "jobs" / mine.key / "bundle").network.state_dict().keys() == first_weights(plain).keys()
    )


def test_a_network_starts_from_its_members(prepared: Path, tmp_path: Path) -> None:
    """With no step taken at all, the split tree is the single-task networks that it starts from."""
    where, still = site(prepared, tmp_path), {"lr": 1e-30, "weight_decay": 0.0, "select": "last"}
    alone = {name: job(prepared, (name,)) for name in ("scene", "depth")}
    for one in alone.values():
        list(train(one, where))
        conclude(one, where)
    start = {name: one.key for name, one in alone.items()}
    mine = job(prepared, groups=[[0, 1]] * 4, start=start, epochs=1, **still)
    assert mine.key != job(prepared, groups=[[0, 1]] * 4, epochs=1, **still).key
    list(train(mine, where))
    found = weights(mine, tmp_path)
    for task, one in enumerate(alone.values()):
        own = kept_weights(where.folder(one)) or {}
        for key, value in own.items():
            part, _, rest = key.partition(".")
            place = f"blocks.{rest.replace('.0.', f'.{task}.', 1)}" if part == "blocks" else f"heads.{task}.{rest[2:]}"
            if "running" not in key and value.is_floating_point():
                assert torch.equal(found[place], value), key


def test_a_start_that_is_gone_is_named(prepared: Path, tmp_path: Path) -> None:
    mine = job(prepared, start={"scene": "0123", "depth": "4567"})
    with pytest.raises(ValueError, match=r"task 'depth' to start from, job 4567, are not in"):
        list(train(mine, site(prepared, tmp_path)))


def test_a_finished_job_is_not_trained_again(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, where = job(prepared), site(prepared, tmp_path)
    records = list(train(mine, where))
    monkeypatch.setattr(loop, "take_step", None)
    assert list(train(mine, where)) == records
    assert [record.epoch for record in records] == [1, 2]
    assert records[-1].step == 2 * loop._feed(mine, where).steps_per_epoch


def test_the_seed_is_all_the_luck_there_is(prepared: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    one, other = job(prepared, **QUIET), job(prepared, seed=1, **QUIET)
    list(train(one, site(prepared, tmp_path / "a")))
    torch.manual_seed(2)
    list(train(one, site(prepared, tmp_path / "b")))
    list(train(other, site(prepared, tmp_path / "b")))
    assert same(weights(one, tmp_path / "a"), weights(one, tmp_path / "b"))
    assert not same(weights(one, tmp_path / "a"), weights(other, tmp_path / "b"))


@pytest.mark.parametrize("tasks", [("scene", "depth"), ("keypoints", "segmentation", "depth")])
def test_the_split_tree_is_the_single_task_networks(prepared: Path, tmp_path: Path, tasks: tuple[str, ...]) -> None:
    """With no clipping, which takes one norm over all weights, nothing couples tasks that share no block."""
    tree = BranchTree.split(len(tasks), 4)
    together = job(prepared, tasks, tree.groups, **QUIET)
    list(train(together, site(prepared, tmp_path)))
    network = build(together)
    network.load_state_dict(weights(together, tmp_path))
    start = build(together)
    for name in tasks:
        alone = job(prepared, (name,), **QUIET)
        assert same(start.only(name).state_dict(), build(alone).state_dict()), "the first weights agree"
        list(train(alone, site(prepared, tmp_path)))
        cut, expected = network.only(name).state_dict(), weights(alone, tmp_path)
        for key, value in expected.items():
            torch.testing.assert_close(cut[key], value, rtol=1e-5, atol=1e-6, msg=lambda text, k=key: f"{k}: {text}")
        assert not same(expected, first_weights(alone)), "it did learn"


def test_the_objective_is_the_weighted_sum_of_means(prepared: Path, tmp_path: Path) -> None:
    """One SGD step, against gradients taken by hand."""
    where, lr = site(prepared, tmp_path), 0.05
    quiet = QUIET | {"schedule": "constant", "augment": {"flip": 0.0}, "batch": 38, "momentum": 0.0}
    mine = job(prepared, weights=(0.3, 2.0), **quiet)
    assert loop._feed(mine, where).steps_per_epoch == 1
    list(train(mine, where))
    network, batch = build(mine).train(), loop._feed(mine, where)[0]
    outputs, objective = network(batch.images), torch.zeros(())
    for name, weight in (("scene", 0.3), ("depth", 2.0)):
        total, count = network.tasks[name].loss(outputs[name], network.tasks[name].target(batch.labels[name]))
        objective = objective + weight * total / count
    objective.backward()
    after = weights(mine, tmp_path)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(after[name], parameter.detach() - lr * parameter.grad, rtol=1e-5, atol=1e-6)


def test_clip_bounds_the_step(prepared: Path, tmp_path: Path) -> None:
    quiet = QUIET | {"schedule": "constant", "batch": 38, "momentum": 0.0, "lr": 1.0, "clip": 1e-3}
    mine = job(prepared, **quiet)
    list(train(mine, site(prepared, tmp_path)))
    after = weights(mine, tmp_path)
    moved = (
        torch.stack([(after[n] - p.detach()).square().sum() for n, p in build(mine).named_parameters()]).sum().sqrt()
    )
    assert float(moved) == pytest.approx(1e-3, rel=1e-2)


def unlabelled(folder: Path) -> Path:
    """Rows of `Numbers` of which none has a depth or a kind."""
    listed = [row for row in rows(200) if labels_of(int(row.id))["field"] is None]
    prepare(folder, Numbers(listed), settings({"images": None, "val": 0.3, "test": 0.3}))
    manifest = read_manifests(folder)["tiny"]
    names = {"depth": manifest.columns["field"]}
    for path in (path for split in ("train", "val", "test") for path in shards("tiny", split, folder)):
        _rename(path, "field", "depth")
    write_manifests(folder, [replace(manifest, columns=names)])
    return folder


def _rename(path: Path, old: str, new: str) -> None:
    import pyarrow as pa

    with pa.OSFile(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    table = table.rename_columns([new if name == old else name for name in table.column_names])
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def test_nothing_labelled_teaches_nothing(tmp_path: Path) -> None:
    prepared = unlabelled(tmp_path / "data")
    mine = job(prepared, ("depth",), **QUIET | {"batch": 4})
    (record,) = train(mine, site(prepared, tmp_path))
    before, after = build(mine), weights(mine, tmp_path)
    for name, parameter in before.named_parameters():
        assert torch.equal(after[name], parameter), name
    assert record.losses == {"depth": 0.0}
    assert math.isnan(record.val["depth"]), "no label, no score"


@pytest.mark.parametrize("lr", [1e30, 3e38])
def test_divergence_names_the_task(prepared: Path, tmp_path: Path, lr: float) -> None:
    mine = job(prepared, ("scene", "depth"), **QUIET | {"lr": lr, "epochs": 2})
    with pytest.raises(Diverged, match=r"scene-depth: the loss of .*depth.* is not finite at step .*lower train.lr"):
        list(train(mine, site(prepared, tmp_path)))
    assert JobFolder(str(tmp_path), mine.key).read_result() is None


def test_ema_is_the_decayed_mean_of_the_weights(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Tensor]] = []
    taken = loop.take_step

    def watched(*arguments: Any) -> None:
        taken(*arguments)
        seen.append({name: value.clone() for name, value in arguments[2].network.state_dict().items()})

    monkeypatch.setattr(loop, "take_step", watched)
    mine = job(prepared, **QUIET | {"ema": 0.8})
    list(train(mine, site(prepared, tmp_path)))
    expected = seen[0]
    for state in seen[1:]:
        expected = {name: 0.8 * value + 0.2 * state[name] for name, value in expected.items()}
    best = kept_weights(JobFolder(str(tmp_path), mine.key)) or {}
    for name, value in best.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(value, seen[-1][name]), "no mean of whole numbers"
    assert not same(best, weights(mine, tmp_path))


def test_conclude_writes_what_was_kept(prepared: Path, tmp_path: Path) -> None:
    mine, where = job(prepared, epochs=3), site(prepared, tmp_path)
    records = list(train(mine, where))
    result = conclude(mine, where)
    kept = max(records, key=lambda record: record.score)
    assert (result["epoch"], result["val"]) == (kept.epoch, dict(kept.val))
    assert where.folder(mine).read_result() == result
    predictor = bundle.load(Path(where.folder(mine).path) / "bundle")
    network = build(mine)
    network.load_state_dict(kept_weights(where.folder(mine)) or {})
    (test,) = splits_of(mine, prepared, "test")
    batch, predict = test.read(range(len(test))), network.eval()
    with torch.no_grad():
        expected = {name: network.tasks[name].predict(out) for name, out in predict(batch.images).items()}
    assert same(predictor(batch.images), expected)
    for name, value in result["test"].items():
        metric = network.tasks[name].metric()
        metric.update(expected[name], network.tasks[name].target(batch.labels[name]))
        assert value == pytest.approx(float(metric.compute()), rel=1e-5)
        assert list(result["further"][name]) == [measure.name for measure in network.tasks[name].further]
        metrics = network.tasks[name].metrics()[1:]
        for metric in metrics:
            metric.update(expected[name], network.tasks[name].target(batch.labels[name]))
        values = torch.cat([metric.compute().flatten() for metric in metrics]).tolist()
        assert list(result["further"][name].values()) == pytest.approx(values, rel=1e-5)
    rows = [row for row in trials(mine, Machine(storage=str(tmp_path))) if row["split"] == "test"]
    first = {(name, network.tasks[name].metric_name): value for name, value in result["test"].items()}
    rest = {(name, key): value for name, found in result["further"].items() for key, value in found.items()}
    assert {(row["task"], row["metric"]): row["value"] for row in rows} == first | rest
    assert {(row["key"], row["epoch"]) for row in rows} == {(mine.key, kept.epoch)}
    assert result["params"] == sum(parameter.numel() for parameter in network.parameters())


def test_a_measure_of_nothing_is_none(prepared: Path) -> None:
    (task,) = build(job(prepared, ("depth",))).tasks.values()
    values = {"rmse": math.nan, "abs_rel": math.nan, "within_1.25": 0.5}
    assert loop._further(task, values) == {"abs_rel": None, "within_1.25": 0.5}


def test_small_weights_of_classes_do_not_shrink_the_loss(prepared: Path, tmp_path: Path) -> None:
    """Over images of one class the weighted mean is the mean, also where the weights add up to less than 1."""
    plain = job(prepared, ("scene",), **QUIET)
    (task,), (split,) = plain.model.tasks, splits_of(plain, prepared, "train")
    batch, number = split.read([0, 0]), len(task.column.classes)
    shares = [0.03 / (number - 1)] * number
    shares[int(batch.labels["scene"][0])] = 0.97
    column = replace(task.column, shares=tuple(shares))
    balanced = replace(task, column=column, options=(("balance", 1.0),))
    losses = []
    for one in (plain, replace(plain, model=replace(plain.model, tasks=(balanced,)))):
        run = begin(one, site(prepared, tmp_path))
        take_step(one, site(prepared, tmp_path), run, [batch])
        losses.append(float(run.sums[0]))
    _, count = build(plain).tasks["scene"].loss(torch.zeros(2, number), batch.labels["scene"])
    assert count == 2
    assert 2 / (0.97 * number) < 1
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


@pytest.mark.parametrize("select", ["best", "last"])
def test_which_epoch_is_kept(prepared: Path, select: str) -> None:
    mine = job(prepared, select=select)
    scores = [math.nan, 0.2, 0.5, 0.5, math.nan, 0.1]
    fields: dict[str, Any] = {"step": 0, "losses": {}, "weights": {}, "val": {}, "lr": 0.0, "seconds": 0.0}
    history = [EpochRecord(epoch=i + 1, score=score, **fields) for i, score in enumerate(scores)]
    assert loop._best(history, mine).epoch == {"best": 3, "last": 6}[select]
    assert loop._best(history[:1], mine).epoch == 1


def test_metrics_do_not_depend_on_the_batch(prepared: Path) -> None:
    mine = job(prepared)
    network, device = build(mine), torch.device("cpu")
    found = [
        network_metrics(network, network.tasks, splits_of(mine, prepared, "val"), batches=[batch], device=device)
        for batch in (1, 5, 100)
    ]
    assert network.training, "the network is left in the mode it was in"
    for values in found[1:]:
        assert values == pytest.approx(found[0], rel=1e-5)


def test_trivial_metrics_are_those_of_a_constant(prepared: Path) -> None:
    mine = job(prepared)
    network: SharedModel = build(mine)
    train_split, test = (splits_of(mine, prepared, name) for name in ("train", "test"))
    values = trivial_metrics(network.tasks, train_split, test)
    seen = train_split[0].read(range(len(train_split[0]))).labels["scene"]
    held = test[0].read(range(len(test[0]))).labels["scene"]
    most = seen.bincount().argmax()
    assert values["scene"] == pytest.approx(float((held == most).float().mean()))


SCHEDULE = {"epochs": 10, "lr": 2.0, "warmup_epochs": 0.0}


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("constant", {0: 2.0, 50: 2.0, 99: 2.0}),
        ("cosine", {0: 2.0, 50: 1.0, 100: 0.0}),
        ("triangular", {0: 2.0, 25: 1.5, 50: 1.0, 100: 0.0}),
        ("step", {0: 2.0, 49: 2.0, 50: 0.2, 74: 0.2, 75: 0.02, 99: 0.02}),
        ("poly", {0: 2.0, 50: 2.0 * 0.5**0.9, 75: 2.0 * 0.25**0.9, 100: 0.0}),
    ],
)
def test_schedules(schedule: str, values: dict[int, float]) -> None:
    settings = Train(**{**SCHEDULE, "schedule": schedule})  # pyright: ignore[reportArgumentType]
    for step, expected in values.items():
        assert learning_rate(settings, step, 10) == pytest.approx(expected, abs=1e-12)


def test_steps_fall_at_the_milestones() -> None:
    """The Visual Decathlon's: after 80 and 100 of 120 epochs."""
    settings = Train(epochs=120, lr=0.1, schedule="step", milestones=[0.667, 0.833])
    rates = [learning_rate(settings, epoch * 10, 10) for epoch in (0, 79, 81, 99, 101, 119)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_warm_up_rises_in_a_line_then_the_schedule_starts(schedule: str) -> None:
    settings = Train(**{**SCHEDULE, "schedule": schedule, "warmup_epochs": 2.0})  # pyright: ignore[reportArgumentType]
    rates = [learning_rate(settings, step, 10) for step in range(100)]
    assert rates[:20] == pytest.approx([2.0 * (step + 1) / 20 for step in range(20)])
    assert rates[20] == pytest.approx(2.0)
    assert all(a >= b for a, b in pairwise(rates[20:]))


def test_triangular_with_a_warm_up_is_a_line_up_and_a_line_down() -> None:
    settings = Train(**{**SCHEDULE, "schedule": "triangular", "warmup_epochs": 2.5})  # pyright: ignore[reportArgumentType]
    rates = [learning_rate(settings, step, 10) for step in range(101)]
    assert rates == pytest.approx(np.interp(range(101), [-1, 24, 25, 100], [0.0, 2.0, 2.0, 0.0]).tolist())


def test_lamb_is_the_papers_with_our_decay_rates_and_clip(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """You et al. 2020, Alg. 2, twice by hand; nothing but `train.clip` bounds the gradient, here not at all."""
    mine = job(prepared, optimiser="lamb", weight_decay=0.1, clip=0.0)
    network, plain = build(mine), build(mine)
    monkeypatch.setattr(network, "lr_scale", lambda parameter: 3.0 if parameter.endswith("bias") else 1.0)
    optimiser, generator = build_optimiser(network, mine.train), torch.Generator().manual_seed(0)
    means, squares = ({name: torch.zeros_like(p) for name, p in plain.named_parameters()} for _ in range(2))
    for step in (1, 2):
        for group in optimiser.param_groups:
            group["lr"] = 0.01 * group["lr_scale"]
        for (name, ours), parameter in zip(network.named_parameters(), plain.parameters(), strict=True):
            gradient = torch.randn(parameter.shape, generator=generator) * 10.0**step
            ours.grad = gradient.clone()
            means[name] = 0.9 * means[name] + 0.1 * gradient
            squares[name] = 0.999 * squares[name] + 0.001 * gradient.square()
            update = means[name] / (1 - 0.9**step) / ((squares[name] / (1 - 0.999**step)).sqrt() + 1e-6)
            trust = 1.0
            if parameter.ndim > 1:
                update = update + 0.1 * parameter.detach()
                trust = float(parameter.detach().norm() / update.norm()) or 1.0
            parameter.data -= 0.01 * network.lr_scale(name) * trust * update
        optimiser.step()
    for (name, found), expected in zip(network.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("optimiser", ["adamw", "sgd", "lamb"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_decay_spares_biases_and_normalisation(prepared: Path, optimiser: str, momentum: float) -> None:
    mine = job(prepared, optimiser=optimiser, weight_decay=0.1, momentum=momentum)
    network = build(mine)
    decayed = {
        id(parameter)
        for group in build_optimiser(network, mine.train).param_groups
        for parameter in group["params"]
        if group["weight_decay"]
    }
    for name, parameter in network.named_parameters():
        assert (id(parameter) in decayed) == (parameter.ndim > 1), name


@pytest.mark.parametrize("nesterov", [True, False])
def test_a_first_gradient_may_come_in_a_later_step(prepared: Path, nesterov: bool) -> None:
    """As that of a head whose data set is drawn later; against torch's own loop over single parameters."""
    mine = job(prepared, optimiser="sgd", momentum=0.9, nesterov=nesterov, weight_decay=0.1, lr=0.1)
    ours, plain = build(mine).eval(), build(mine).eval()
    fused = build_optimiser(ours, mine.train)
    groups = [
        {"params": group["params"], "weight_decay": group["weight_decay"]}
        for group in build_optimiser(plain, mine.train).param_groups
    ]
    loop = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=nesterov, foreach=False)
    images = torch.rand(2, 3, *mine.model.backbone.size, generator=torch.Generator().manual_seed(0))
    for tasks in (["scene"], ["depth"], ["scene", "depth"]):
        for network, optimiser in ((ours, fused), (plain, loop)):
            optimiser.zero_grad(set_to_none=True)
            torch.stack([output.square().mean() for output in network(images, tasks).values()]).sum().backward()
            optimiser.step()
    for (name, one), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_a_step_s_seed_is_torch_s(tmp_path: Path) -> None:
    _seed(2**40 + 7, site(tmp_path, tmp_path))
    ours = torch.rand(5)
    torch.manual_seed(2**40 + 7)
    assert torch.equal(ours, torch.rand(5))
