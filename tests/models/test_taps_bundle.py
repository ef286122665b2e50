"""One base and one delta per task: what was saved comes back, tasks are taken in."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models import bundle
from models.accounting import count_params
from models.sharing.branched import BranchedModel
from models.sharing.taps import TapsModel
from models.spec import BackboneSpec, ModelSpec, Setting
from models.taps_bundle import DELTA
from tests.models.task_cases import spec as task_spec

SIZE = (64, 64)
KINDS = ("classification", "depth", "segmentation")
IMAGES = torch.randint(0, 256, (2, 3, *SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
NETWORKS = {"test_resnet": 4, "test_byobnet": 4, "test_vit": 2, "decathlon_resnet26_quarter": 3}
CASES = [(name, kinds, joint) for name in NETWORKS for kinds in (KINDS, KINDS[1:2]) for joint in (False, True)]


def build(
    backbone: str = "test_resnet",
    locations: int = 2,
    kinds: tuple[str, ...] = KINDS,
    seed: int = 0,
    **settings: Setting,
) -> TapsModel:
    """A network of random weights, statistics and scores, as after training; gates of all tasks differ."""
    torch.manual_seed(seed)
    spec = ModelSpec(
        strategy="taps",
        backbone=BackboneSpec(name=backbone, locations=locations, size=SIZE),
        tasks=tuple(task_spec(kind, name=f"my {kind}", head_width=8) for kind in sorted(kinds)),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        settings=tuple(sorted(settings.items())),
    )
    model = TapsModel(spec)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(0.1 * torch.rand_like(value) - 0.05 if value.is_floating_point() else 7)
        for task in model.tasks:
            scores = model.of(task).scores
            scores.copy_(torch.where(torch.rand_like(scores) < 0.5, 0.1, 0.09) + 0.001 * torch.rand_like(scores))
    return model.eval()


def files(path: Path) -> dict[str, tuple[bytes, int]]:
    """Contents and time of writing of every file."""
    return {
        str(file.relative_to(path)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in path.rglob("*")
        if file.is_file()
    }


def agree(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(("backbone", "kinds", "joint"), [*CASES, ("resnet18", KINDS[:1], False)])
def test_round_trip_to_the_bit(tmp_path: Path, backbone: str, kinds: tuple[str, ...], joint: bool) -> None:
    model = build(backbone, NETWORKS.get(backbone, 4), kinds, joint=joint)
    bundle.save(model, tmp_path)
    network = bundle.load_network(tmp_path)
    assert isinstance(network, TapsModel)
    assert network.spec == replace(model.spec, settings=(("joint", False),))
    assert not any(weight.requires_grad for weight in network.base.parameters())
    predictor = bundle.load(tmp_path)
    found, expected = predictor(IMAGES), bundle.Predictor(model)(IMAGES)
    assert agree(found, expected)
    assert all(prediction.isfinite().all() for prediction in found.values())
    assert agree(network.base.state_dict(), model.base.state_dict())
    for task in model.tasks:
        assert network.gates(task) == model.gates(task)
        assert 0 < len(network.active_layers(task)) < len(network.layers)
        with torch.no_grad():
            assert agree(network.of(task).tensors(network.base), model.of(task).tensors(model.base))
        assert agree(network.merged(task).state_dict(), model.merged(task).state_dict())
        assert agree(predictor.only(task)(IMAGES), {task: expected[task]})


def test_what_predicts_holds_what_the_bundle_holds(tmp_path: Path) -> None:
    """The base once, and per task its open layers, its normalisation layers, its head and its scores."""
    model = build()
    bundle.save(model, tmp_path)
    network = bundle.load(tmp_path).network
    scores = len(model.layers) * len(model.tasks)
    assert count_params(network) == model.num_params() + scores < count_params(model)


def test_what_is_saved_again_is_the_same_bytes(tmp_path: Path) -> None:
    bundle.save(build(), tmp_path / "once")
    bundle.save(bundle.load_network(tmp_path / "once"), tmp_path / "twice")
    once, twice = files(tmp_path / "once"), files(tmp_path / "twice")
    assert {name: data for name, (data, _) in once.items()} == {name: data for name, (data, _) in twice.items()}
    assert sorted(once) == [*sorted(f"my {kind}/{DELTA}" for kind in KINDS), "spec.json", "weights.safetensors"]


@pytest.mark.parametrize("opened", ["all", "none"])
def test_layers_of_a_closed_gate_are_not_in_the_file(tmp_path: Path, opened: str) -> None:
    model = build(kinds=("depth",))
    with torch.no_grad():
        model.of().scores.fill_({"all": 1.0, "none": 0.0}[opened])
    bundle.save(model, tmp_path)
    stored = load_file(str(tmp_path / "my depth" / DELTA))
    gated = {name for layer in model.layers for name in layer.parameters}
    assert stored.keys() & gated == (gated if opened == "all" else set())
    norms = dict(model.of().norm_tensors())
    assert norms.keys() <= stored.keys()
    rest = {name for name in stored if name not in gated | norms.keys()}
    assert rest == {"scores", *(f"head.{name}" for name in model.heads[0].state_dict())}


def test_laying_a_delta_over_the_base_is_the_tasks_network(tmp_path: Path) -> None:
    """Without any code of ours: two files of named tensors."""
    model = build()
    bundle.save(model, tmp_path)
    laid = load_file(str(tmp_path / "weights.safetensors")) | load_file(str(tmp_path / "my depth" / DELTA))
    plain = model.merged("my depth")
    assert isinstance(plain, BranchedModel)
    for name, tensor in plain.blocks.state_dict().items():
        location, _, path = name.split(".", 2)
        assert torch.equal(laid[f"{location}.{path}"], tensor)


def test_one_task_cut_out_is_a_plain_bundle(tmp_path: Path) -> None:
    model = build()
    bundle.save(model, tmp_path / "all")
    bundle.save(bundle.load(tmp_path / "all").only("my depth").network, tmp_path / "one")
    assert sorted(files(tmp_path / "one")) == ["spec.json", "weights.safetensors"]
    assert agree(bundle.load(tmp_path / "one")(IMAGES), bundle.Predictor(model.only("my depth"))(IMAGES))


def test_adopting_a_task_touches_no_other_file(tmp_path: Path) -> None:
    model = build()
    bundle.save(model, tmp_path / "all")
    expected = bundle.load(tmp_path / "all")(IMAGES)
    for place, task in enumerate(reversed(model.spec.task_names)):
        before = files(tmp_path / "grown")
        bundle.adopt_task(tmp_path / "all", task, tmp_path / "grown")
        after = files(tmp_path / "grown")
        assert {name: after[name] for name in before} == before
        news = {f"{task}/{DELTA}", *([] if place else ["spec.json", "weights.safetensors"])}
        assert after.keys() - before.keys() == news
        found = bundle.load(tmp_path / "grown")(IMAGES)
        assert agree(found, {name: expected[name] for name in found})
        assert len(found) == place + 1
    assert list(bundle.load(tmp_path / "grown")(IMAGES)) == sorted(expected)


def test_jobs_of_one_task_each_meet_in_one_bundle(tmp_path: Path) -> None:
    """As the taps stage does it: networks that were trained apart from the same base."""
    for kind in KINDS:
        model, base = build(kinds=(kind,), seed=len(kind)), build(kinds=(kind,)).base
        model.base.load_state_dict(base.state_dict())
        bundle.save(model, tmp_path / kind)
        bundle.adopt_task(tmp_path / kind, f"my {kind}", tmp_path / "all")
    found = bundle.load(tmp_path / "all")(IMAGES)
    for kind in KINDS:
        assert torch.equal(found[f"my {kind}"], bundle.load(tmp_path / kind)(IMAGES)[f"my {kind}"])


@pytest.mark.parametrize("name", ["type", "a.b", "größe", "two words", "a/b", "..", ".hidden", "50%", "back\\slash"])
def test_any_task_name_will_do(tmp_path: Path, name: str) -> None:
    model = build(kinds=("depth",))
    spec = replace(model.spec, tasks=(replace(model.spec.tasks[0], name=name),))
    bundle.save(TapsModel(spec), tmp_path / "one")
    bundle.adopt_task(tmp_path / "one", name, tmp_path / "other")
    assert list(bundle.load(tmp_path / "other").network.tasks) == [name]
    assert len(files(tmp_path)) == 6, "nothing outside of the two folders"


def test_a_failed_save_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle.save(build(), tmp_path)
    before = files(tmp_path)

    def full(_tensors: object, path: str, _about: object) -> None:
        Path(path).write_bytes(b"ha")
        raise OSError("No space left on device")

    monkeypatch.setattr("models.taps_bundle.save_file", full)
    with pytest.raises(OSError, match="No space"):
        bundle.save(build(), tmp_path)
    deltas = {name for name in before if name.endswith(DELTA)}
    assert {name: files(tmp_path)[name] for name in deltas} == {name: before[name] for name in deltas}
    assert files(tmp_path).keys() == before.keys()
