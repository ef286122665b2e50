"""Learning without Forgetting: what the student learns from, what it is held to, what is left of it."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models import bundle
from models.experts import key
from models.sharing import SHARING
from models.sharing.lwf import LwfModel, distillation_loss
from models.sharing.moe import MoeModel
from models.spec import Setting, TaskSpec
from models.tasks import TASKS as KINDS
from tests.models.task_cases import COLUMNS, make
from tests.models.task_cases import spec as task_spec
from tests.models.test_expert_growth import IMAGES, TASKS, agree, outputs, spec

OLD = (*TASKS["a"], *TASKS["b"])
NEW = TASKS["c"]


@cache
def before() -> MoeModel:
    """The network before: first weights, and batch statistics of the images that its heads saw."""
    torch.manual_seed(0)
    model = MoeModel(spec(OLD)).train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.rand(8, 3, 32, 32))
    model.finish_step()
    return model.eval()


def build(tasks: tuple[TaskSpec, ...] = (*OLD, *NEW), **settings: Setting) -> LwfModel:
    """A network for the old tasks and a new one, as it is before the first step."""
    torch.manual_seed(1)
    plain = spec(tasks, **{"old": ("a", "b"), **settings})
    model = SHARING["lwf"](replace(plain, strategy="lwf"))
    assert isinstance(model, LwfModel)
    model.start_from({"network": before().state_dict()})
    return model


def learn(model: LwfModel, lam: float, steps: int = 5) -> LwfModel:
    optimiser = torch.optim.SGD(model.student.parameters(), lr=0.02)
    labels = torch.tensor([1, 3])
    for _ in range(steps):
        optimiser.zero_grad()
        outputs = model.train()(IMAGES, ["c class"])
        loss = torch.nn.functional.cross_entropy(outputs["c class"], labels)
        (loss + lam * model.penalty(["c class"])).backward()
        optimiser.step()
        model.finish_step()
    return model.eval()


def test_it_begins_as_the_network_before() -> None:
    model = build()
    found = outputs(model.eval())
    assert agree({name: found[name] for name in before().tasks}, outputs(before()))
    for name, tensor in before().state_dict().items():
        assert torch.equal(model.teacher.state_dict()[name], tensor)
        assert torch.equal(model.student.state_dict()[name], tensor)
    model.train()(IMAGES, ["c class"])
    assert model.penalty(["c class"]) == 0


def test_all_of_the_student_learns_and_nothing_of_the_teacher() -> None:
    model = build()
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    taught = {name: tensor.clone() for name, tensor in model.teacher.state_dict().items()}
    found = model.train()(IMAGES, ["c class"])
    (found["c class"].square().sum() + model.penalty(["c class"])).backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {f"student.{name}" for name, _ in model.student.named_parameters()}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in learning), name
    for part in ("heads.0", "heads.1", "heads.2", "on_a", "on_b", "on_c"):
        grads = [p.grad for name, p in model.student.named_parameters() if part in name and p.grad is not None]
        assert any(grad.abs().sum() > 0 for grad in grads), part
    learn(model, 1.0, 2)
    assert agree(taught, model.teacher.state_dict())


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_class_logits_are_compared_as_the_paper_says(temperature: float) -> None:
    draw = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(6, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    student.requires_grad_()
    found = distillation_loss(make("classification").task, student, teacher, temperature)
    expected, entropy = torch.zeros((), dtype=torch.float64), 0.0
    for one, other in zip(student, teacher, strict=True):
        here, there = ((row / temperature).exp() / (row / temperature).exp().sum() for row in (one, other))
        expected = expected - (there * here.log()).sum() / 6  # the paper's Eq. 2
        entropy += float(-(there * there.log()).sum() / 6)  # constant
    assert found.item() == pytest.approx(temperature**2 * (expected.item() - entropy), rel=1e-5)
    (mine,) = torch.autograd.grad(found, student)
    (theirs,) = torch.autograd.grad(temperature**2 * expected, student)
    assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_distance_is_zero_where_both_agree_and_a_mean_over_images(kind: str) -> None:
    case = make(kind)
    student = case.output
    other = student + torch.randn(student.shape[1:])
    assert distillation_loss(case.task, student, student, 2.0) == 0
    apart = distillation_loss(case.task, student, other, 2.0)
    assert apart > 0
    both = [distillation_loss(case.task, student[i : i + 1], other[i : i + 1], 2.0) for i in range(len(student))]
    assert float(apart) == pytest.approx(float(torch.stack(both).mean()), rel=1e-4)


def test_raw_outputs_are_compared_without_what_is_constant() -> None:
    case = make("depth")
    student = case.output
    teacher = student.flip(0)
    assert float(distillation_loss(case.task, student, teacher, 2.0)) == pytest.approx(
        float(((student.double() - teacher.double()) ** 2).mean()), rel=1e-5
    )
    case = make("detection")
    student = case.output
    decided, constant = student.clone(), student.clone()
    decided[:, :-1, :-4] += 3.0
    constant[:, -1] += 1.0
    constant[:, :, -4:] += 1.0
    assert float(distillation_loss(case.task, student, decided, 2.0)) == pytest.approx(9.0, rel=1e-5)
    assert distillation_loss(case.task, student, constant, 2.0) == 0


def test_the_penalty_is_the_sum_over_old_tasks() -> None:
    model = build(temperature=3.0)
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.train()(IMAGES, ["c class"])
    found = model.penalty(["c class"])
    here, there = outputs(model.student), outputs(model.teacher)
    expected = [distillation_loss(KINDS[t.kind](t), here[t.name], there[t.name], 3.0) for t in OLD]
    assert found.item() == pytest.approx(float(sum(expected)), rel=1e-5)
    assert min(expected) > 0
    assert model.penalty(["c class"]) == 0, "it belongs to one batch"


def test_old_tasks_own_images_are_held_to_nothing() -> None:
    model = build()
    assert model.train()(IMAGES, ["b depth"]).keys() == {"b depth"}
    assert model.penalty(["b depth"]) == 0


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_it_forgets_less(temperature: float) -> None:
    first = outputs(before())

    def forgotten(lam: float) -> float:
        model = learn(build(temperature=temperature), lam, 15)
        found = outputs(model)
        return sum(float((found[name] - first[name]).square().mean()) for name in first)

    assert forgotten(1.0) < 0.5 * forgotten(0.0)


def test_it_predicts_without_the_teacher() -> None:
    model = learn(build(), 1.0)
    with torch.no_grad():
        for parameter in model.teacher.parameters():
            parameter.fill_(float("nan"))
    assert agree(outputs(model), outputs(model.student))
    assert model.num_params() == model.student.num_params() == sum(p.numel() for p in model.student.parameters())
    assert agree(outputs(model.only("a class")), {"a class": outputs(model.student)["a class"]})
    features = model.features(IMAGES, "c class")
    assert [torch.equal(*pair) for pair in zip(features, model.student.features(IMAGES, "c class"), strict=True)]


def test_the_teacher_never_trains() -> None:
    model = build().train()
    assert model.student.training
    assert model.student.heads[2].training
    assert not any(module.training for module in model.teacher.modules())
    assert not any(module.training for module in deepcopy(model).train().teacher.modules())


def test_what_old_heads_know_of_their_own_images_stays() -> None:
    """A step moves their weights, but their batch statistics are not the new images'."""
    model = build()
    first = {name: tensor.clone() for name, tensor in model.student.heads[1].state_dict().items()}
    after = learn(model, 1.0, 2).student.heads[1].state_dict()
    statistics = [name for name in first if "running_" in name]
    assert statistics
    assert all(torch.equal(after[name], first[name]) for name in statistics)
    assert not all(torch.equal(after[name], first[name]) for name in first)


def test_estimates_take_in_the_new_data_set_alone() -> None:
    model = build()
    first = {name: tensor.clone() for name, tensor in model.student.state_dict().items() if ".estimates." in name}
    learn(model, 1.0, 1)
    after = model.student.state_dict()
    for name, tensor in first.items():
        assert torch.equal(after[name], tensor) == (key("c") not in name), name
    assert all(layer.tally_ME.abs().sum() == 0 for layer in model.student.layers.values())


def test_a_state_goes_back_to_the_bit() -> None:
    model, other = learn(build(), 1.0), build()
    other.load_state_dict(model.state_dict())
    assert agree(outputs(other.eval()), outputs(model))
    assert agree(other.teacher.state_dict(), model.teacher.state_dict())


def test_averaged_copies_work() -> None:
    model = build()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    for _ in range(2):
        learn(model, 1.0, 1)
        average.update_parameters(model)
    copy = average.module
    assert isinstance(copy, LwfModel)
    assert agree(copy.teacher.state_dict(), model.teacher.state_dict())
    first = outputs(build().eval())["c class"]
    assert not torch.equal(outputs(copy.eval())["c class"], first)
    copy.train()(IMAGES, ["c class"])
    assert copy.penalty(["c class"]) > 0


def test_a_bundle_keeps_the_student_as_a_plain_network(tmp_path: Path) -> None:
    model = learn(build(), 1.0)
    bundle.save(model, tmp_path)
    network = bundle.load_network(tmp_path)
    assert isinstance(network, MoeModel)
    assert network.spec == model.student.spec
    assert agree(network.state_dict(), model.student.state_dict())
    assert agree(bundle.load(tmp_path)(IMAGES), bundle.Predictor(model)(IMAGES))
    assert {file.name for file in tmp_path.iterdir()} == {"spec.json", "weights.safetensors"}


def test_task_after_task() -> None:
    """Its own state is the network before for the next data set."""
    first = learn(build(), 1.0)
    plain = spec((*OLD, *NEW, *TASKS["e"]), old=("a", "b", "c"))
    second = LwfModel(replace(plain, strategy="lwf"))
    second.start_from({"network": first.state_dict()})
    found = outputs(second.eval())
    assert agree({name: found[name] for name in first.tasks}, outputs(first))
    second.train()(IMAGES, ["e flags"])
    assert second.penalty(["e flags"]) == 0


@pytest.mark.parametrize("old", [(), ("z",), ("b",), ("a", "b", "c")])
def test_old_data_sets_are_the_first_tasks_and_not_all(old: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"old \[.*name the data sets of the first tasks, and not of all; the tasks"):
        build(old=old)


OTHERS: Mapping[str, tuple[MoeModel, str]] = {
    "other tasks": (MoeModel(spec(TASKS["a"])), "is not that of a class, b depth: .*on_b"),
    "more experts": (MoeModel(spec(OLD, experts=6)), "is another: "),
    "fewer layers": (MoeModel(spec(OLD, placement="printed")), "is not that of a class, b depth: "),
    "another head": (
        MoeModel(spec((*OLD[:1], task_spec("depth", name="b depth", dataset="b", head_width=4)))),
        "is another: ",
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_network_is_refused(other: str) -> None:
    network, message = OTHERS[other]
    with pytest.raises(ValueError, match=f"the network to start from {message}"):
        build().start_from({"network": network.state_dict()})


def steps(model: LwfModel, images: Tensor, labels: Tensor, world: int = 1) -> dict[str, Tensor]:
    """Three steps as the training loop takes them, on this rank's images."""
    model.train()
    forward = (
        DistributedDataParallel(model, find_unused_parameters=True, broadcast_buffers=False) if world > 1 else model
    )
    optimiser = torch.optim.SGD(model.student.parameters(), lr=0.05, momentum=0.9)
    for _ in range(3):
        optimiser.zero_grad()
        outputs = forward(images, ["c class"])
        loss = torch.nn.functional.cross_entropy(outputs["c class"], labels)
        (loss + 0.5 * model.penalty(["c class"])).backward()
        optimiser.step()
        model.finish_step()
    return model.state_dict()


def _rank(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    wait = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world, timeout=wait)
    images, labels = batch()
    torch.save(steps(build(), images[rank::world], labels[rank::world], world), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def batch() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(5)
    return torch.rand(4, 3, 32, 32, generator=draw), torch.tensor([0, 1, 2, 3])


@pytest.mark.slow
def test_two_ranks_learn_what_one_learns(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_rank, args=(2, str(tmp_path)), nprocs=2)
    alone = steps(build(), *batch())
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert agree(*found)
    for name, tensor in alone.items():
        assert torch.allclose(found[0][name], tensor, rtol=1e-3, atol=1e-5), name
    assert not agree(alone, build().state_dict())
