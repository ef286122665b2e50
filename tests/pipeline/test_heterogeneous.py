"""Data sets of different image sizes, batch sizes and tasks in one network, by one rank, by two, and by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from models.loss_weights import LOSS_WEIGHTS
from pipeline.artifacts import read_manifests, write_manifests
from pipeline.config import Config
from pipeline.jobs import TrainJob, model_spec, task_specs, train_job
from pipeline.loading import Feed
from pipeline.loop import _feed, conclude, train
from pipeline.machine import Machine
from pipeline.optimise import learning_rate
from pipeline.preparing import declare, prepare_dataset
from pipeline.step import take_step
from pipeline.storage import JobFolder
from pipeline.training_state import EpochRecord, Site, begin, build, splits_of
from tests.pipeline.cases import DECODING, cut_short, same, saved, settings, site
from tests.pipeline.number_source import Numbers, rows

pytestmark = pytest.mark.filterwarnings(DECODING)

SETS: dict[str, dict[str, Any]] = {  # (height, width), images of a draw, chance
    "square": {"size": (32, 32), "batch": 6, "weight": 3.0},
    "high": {"size": (48, 32), "batch": 2, "weight": 2.0},
    "wide": {"size": (32, 44), "batch": 4, "weight": 1.0},
}
TASKS: dict[str, dict[str, Any]] = {
    "kind": {"kind": "classification", "dataset": "square"},
    "field": {"kind": "depth", "dataset": "square", "head_width": 8},
    "flags": {"kind": "attributes", "dataset": "high"},
    "mask": {"kind": "segmentation", "dataset": "high", "head_width": 8},
    "class": {"kind": "classification", "dataset": "wide", "column": "kind"},
}
PLAIN = ("kind", "flags", "class")  # without a head that has batch statistics
STEPS: dict[str, Any] = {"epochs": 1, "optimiser": "sgd", "lr": 0.05, "schedule": "constant", "clip": 0.1}
JOINT = {"groups": (), "strategy": "taps", "settings": (("joint", True),)}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A job on the three sets: how the step is made up, what else it holds."""

    backbone: str = "test_convnext"
    tasks: tuple[str, ...] = PLAIN
    job: Mapping[str, Any]
    train: Mapping[str, Any]
    model: Mapping[str, Any]


def case(tasks: tuple[str, ...] = PLAIN, backbone: str = "test_convnext", **job: Any) -> Case:
    train = STEPS | job.pop("train", {})
    return Case(backbone=backbone, tasks=tasks, model=job.pop("model", {}), train=train, job=job)


# Batch statistics of two images blow up the last digit of every sum: small steps, or it is all that one would see.
SMALL = {"lr": 0.005}
CASES: dict[str, Case] = {
    "per_step": case((*TASKS,), "test_resnet", train=SMALL),
    "per_step, swin": case(backbone="swin_nano_patch4_window4", train={"clip": 0.0}),
    "per_rank": case(draws=2, train={"clip": 0.0, "augment": {"flip": 0.5, "crop": 0.7}}),
    "four draws": case(draws=4, loss_weights="uncertainty", train={"ema": 0.7, "epochs": 2}),
    "penalty": case(draws=2, lam=0.1, model=JOINT),
    "lamb": case(draws=2, train={"optimiser": "lamb", "schedule": "triangular", "warmup_epochs": 0.5}),
    "untrained tasks": case((*TASKS,), "test_resnet", on=("high",), train=SMALL),
}
BY_HAND = ("per_step", "per_step, swin", "per_rank", "four draws", "penalty", "untrained tasks")


def job_of(name: str, prepared: Path) -> TrainJob:
    wanted = CASES[name]
    config = study(wanted.tasks, wanted.backbone, **wanted.train)
    manifests = read_manifests(prepared)
    spec = model_spec(config, manifests, task_specs(config, manifests), ((0,) * len(wanted.tasks),) * 4)
    reference = dict.fromkeys(wanted.tasks, 0.5)
    return train_job(
        config, manifests, replace(spec, **wanted.model), name=name, seed=0, reference=reference, **wanted.job
    )


def study(tasks: Sequence[str], backbone: str, **train: Any) -> Config:
    raw = settings(backbone={"name": backbone, "locations": 4}, train=train).model_dump()
    raw["datasets"] = {name: raw["datasets"]["tiny"] | {"images": None} | item for name, item in SETS.items()}
    raw["tasks"] = {name: TASKS[name] for name in tasks}
    return Config.model_validate(raw)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training images a set: 4 + 12 + 6 whole batches."""
    folder, config = tmp_path_factory.mktemp("numbers"), study(PLAIN, "test_convnext")
    listed = [
        replace(row, split=("train", "val", "test")[(int(row.id) >= 24) + (int(row.id) >= 31)]) for row in rows(38)
    ]
    manifests = []
    for name, item in SETS.items():
        source = Numbers(listed, size=item["size"])
        declared = declare(name, config, source)
        manifests.append(prepare_dataset(declared, source, config, Machine(prepare_workers=1), folder, lambda _: None))
    write_manifests(folder, manifests)
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def _rank(rank: int, world: int, folder: str, prepared: str) -> None:
    torch.set_num_threads(1)
    wait = timedelta(seconds=60)  # instead of half an hour, where a rank waits for ever
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world, timeout=wait)
    where = site(Path(prepared), Path(folder), rank=rank, world=world)
    for name in CASES:
        mine = job_of(name, Path(prepared))
        records = list(train(mine, where))
        torch.save([record.val for record in records], f"{folder}/{mine.key}.{rank}")
        if rank == 0:
            conclude(mine, where)
    cut_short(job_of("per_rank", Path(prepared)), replace(where, storage=f"{folder}/cut"), 5)
    for name in ("per_rank", "four draws", "untrained tasks"):
        _unused_heads_have_no_gradient(job_of(name, Path(prepared)), where)
    dist.destroy_process_group()


def _unused_heads_have_no_gradient(job: TrainJob, where: Site) -> None:
    """Neither zeros, which momentum and decay would act on: the optimiser passes over what no rank used."""
    run, feed, whole = begin(job, where), _feed(job, where), _feed(job, replace(where, rank=0, world=1))
    left_alone = 0
    for run.step in range(4):
        take_step(job, where, run, list(feed.loader(run.step, run.step + 1, workers=0, pin=False)))
        drawn = {whole[number].dataset for number in whole.of_step(run.step)}
        for task, head in zip(job.model.tasks, run.network.heads, strict=True):
            left_alone += task.dataset not in drawn
            for parameter in head.parameters():
                assert (parameter.grad is None) == (task.dataset not in drawn), task.name
    assert left_alone


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this process trains; what is trained there once is not trained again."""
    return tmp_path_factory.mktemp("one")


@pytest.fixture(scope="module")
def two_ranks(numbers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(_rank, args=(2, str(folder), str(numbers)), nprocs=2)
    return folder


def assert_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=2e-5, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
def test_two_ranks_are_one(name: str, numbers: Path, two_ranks: Path, one_rank: Path) -> None:
    mine = job_of(name, numbers)
    records = list(train(mine, site(numbers, one_rank)))
    one, two = saved(mine, one_rank), saved(mine, two_ranks)
    assert one["step"] == two["step"] > 4
    assert_close(two["network"], one["network"])
    assert_close(two["weighing"], one["weighing"])
    assert len(one["optimiser"]["state"]) == len(two["optimiser"]["state"]), "what was never used has no momentum"
    first, second = (torch.load(f"{two_ranks}/{mine.key}.{rank}") for rank in range(2))
    assert first == second
    assert first[-1] == pytest.approx(dict(records[-1].val), rel=1e-2)
    histories = [JobFolder(str(folder), mine.key).read_history()[-1] for folder in (one_rank, two_ranks)]
    assert histories[1]["losses"] == pytest.approx(histories[0]["losses"], rel=1e-3)
    results = [conclude(mine, site(numbers, one_rank)), JobFolder(str(two_ranks), mine.key).read_result() or {}]
    assert results[1]["test"] == pytest.approx(results[0]["test"], rel=1e-2)


@pytest.mark.slow
def test_one_rank_goes_on_where_two_shared_out_the_draws(numbers: Path, two_ranks: Path, one_rank: Path) -> None:
    mine = job_of("per_rank", numbers)
    assert saved(mine, two_ranks / "cut")["step"] == 5
    (record,) = train(mine, site(numbers, two_ranks / "cut"))
    (whole,) = train(mine, site(numbers, one_rank))
    assert isinstance(record, EpochRecord)
    assert isinstance(whole, EpochRecord)
    assert record.losses == pytest.approx(whole.losses, rel=1e-5)
    assert_close(saved(mine, two_ranks / "cut")["network"], saved(mine, one_rank)["network"])


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_HAND)
def test_training_is_what_one_writes_by_hand(name: str, numbers: Path, one_rank: Path) -> None:
    """The mean of the draws' objectives by autograd, a clipped Nesterov step on what they reached, and nothing else."""
    mine = job_of(name, numbers)
    list(train(mine, site(numbers, one_rank)))
    feed = _feed(mine, site(numbers, one_rank))
    names_of = {number: feed.splits[feed.order.dataset(number)[0]].dataset for number in range(20 * feed.draws)}
    drawn = [{names_of[number] for number in feed.of_step(step)} for step in range(20)]
    if len(mine.datasets) > 1:
        assert any(len(names) < len(SETS) for names in drawn), "some step leaves a head alone"
        assert mine.draws == 1 or any(len(names) > 1 for names in drawn)
    network, log_scales = by_hand(mine, feed)
    found = saved(mine, one_rank)
    assert_close(found["network"], network)
    assert_close(found["weighing"], log_scales)


def by_hand(job: TrainJob, feed: Feed) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    network = build(job).train()
    weighing = LOSS_WEIGHTS[job.loss_weights](list(network.tasks.values()))
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    own = len(named)
    named += list(weighing.named_parameters())
    decays = [job.train.weight_decay if p.ndim > 1 and n not in network.no_weight_decay() else 0.0 for n, p in named]
    speeds: dict[int, Tensor] = {}
    for step in range(job.train.epochs * feed.steps_per_epoch):
        objective = torch.zeros(())
        for number in range(step * job.draws, (step + 1) * job.draws):
            batch = feed[number]
            tasks = [name for name, task in network.tasks.items() if task.spec.dataset == batch.dataset]
            outputs = network(batch.images, tasks)
            losses = []
            for name in tasks:
                task = network.tasks[name]
                total, count = task.loss(outputs[name], task.target(batch.labels[task.spec.column_name]))
                losses.append(total / count if count else total)
            places = [job.model.task_names.index(name) for name in tasks]
            weighed = weighing(torch.stack(losses), places) + job.lam * network.penalty(tasks)
            objective = objective + weighed / job.draws
        gradients = torch.autograd.grad(objective, [p for _, p in named], allow_unused=True)
        norm = torch.stack([g.square().sum() for g in gradients[:own] if g is not None]).sum().sqrt()
        scale = (job.train.clip / norm).clamp(max=1) if job.train.clip else 1
        lr = learning_rate(job.train, step, feed.steps_per_epoch)
        with torch.no_grad():
            for place, ((name, parameter), gradient) in enumerate(zip(named, gradients, strict=True)):
                if gradient is None:
                    continue
                gradient = gradient * (scale if place < own else 1) + decays[place] * parameter
                speeds[place] = 0.9 * speeds.get(place, torch.zeros_like(gradient)) + gradient
                rate = lr * (network.lr_scale(name) if place < own else 1)
                parameter -= rate * (gradient + 0.9 * speeds[place])
    return network.state_dict(), weighing.state_dict()


def test_every_set_is_read_at_its_size_and_in_its_batches(numbers: Path, tmp_path: Path) -> None:
    mine, where = job_of("per_step", numbers), site(numbers, tmp_path)
    feed = _feed(mine, where)
    seen = {batch.dataset: tuple(batch.images.shape) for batch in (feed[number] for number in range(30))}
    assert seen == {name: (item["batch"], 3, *item["size"]) for name, item in SETS.items()}
    assert feed.steps_per_epoch == 24 // 6 + 24 // 2 + 24 // 4
    for split in splits_of(mine, numbers, "val"):
        assert split.size == SETS[split.dataset]["size"]


def test_tasks_on_other_data_sets_stay_as_they_are(numbers: Path, tmp_path: Path) -> None:
    """Neither momentum nor decay moves their heads, nothing is said of them."""
    mine, where = job_of("untrained tasks", numbers), site(numbers, tmp_path)
    (record,) = train(mine, where)
    assert isinstance(record, EpochRecord)
    for said in (record.losses, record.val, record.weights):
        assert set(said) == {"flags", "mask"}
    before, after = build(mine), saved(mine, tmp_path)["network"]
    for place, task in enumerate(mine.model.tasks):
        head = {f"heads.{place}.{name}": value for name, value in before.heads[place].state_dict().items()}
        assert same(head, {name: after[name] for name in head}) == (task.dataset != "high"), task.name
    assert set(conclude(mine, where)["test"]) == {"flags", "mask"}


def test_one_trained_task_of_several_is_scored_by_its_own_metric(numbers: Path, tmp_path: Path) -> None:
    whole = job_of("per_rank", numbers)
    mine = replace(whole, datasets=whole.datasets[1:2], reference=())
    (record,) = train(mine, site(numbers, tmp_path))
    assert mine.trained == ("flags",)
    assert record.score == record.val["flags"]


@pytest.mark.parametrize(
    ("tasks", "backbone", "message"),
    [
        ((*TASKS,), "test_convnext", r"the head of task field has layers with batch statistics .*head: upernet"),
        (PLAIN, "test_resnet", r"but test_resnet has layers with batch statistics .*sampling: per_step"),
    ],
)
def test_batch_statistics_and_draws_by_rank_do_not_go_together(
    numbers: Path, tmp_path: Path, tasks: tuple[str, ...], backbone: str, message: str
) -> None:
    config, manifests = study(tasks, backbone), read_manifests(numbers)
    spec = model_spec(config, manifests, task_specs(config, manifests), ((0,) * len(tasks),) * 4)
    mine = train_job(config, manifests, spec, name="x", seed=0, reference=dict.fromkeys(tasks, 0.5), draws=2)
    with pytest.raises(ValueError, match=message):
        begin(mine, site(numbers, tmp_path))


def test_stopped_between_steps_of_several_draws(numbers: Path, tmp_path: Path) -> None:
    """LAMB counts its steps in the optimiser's groups: they come back with the rest."""
    mine = job_of("lamb", numbers)
    list(train(mine, site(numbers, tmp_path / "whole")))
    cut_short(mine, site(numbers, tmp_path / "cut"), 3)
    assert saved(mine, tmp_path / "cut")["step"] == 3
    list(train(mine, site(numbers, tmp_path / "cut")))
    assert same(saved(mine, tmp_path / "cut")["network"], saved(mine, tmp_path / "whole")["network"])
