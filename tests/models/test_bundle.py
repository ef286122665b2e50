"""A bundle gives back the network that was saved, to the bit, without running or fetching anything."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from models import bundle
from models.branch_tree import BranchTree
from models.sharing.branched import BranchedModel
from models.spec import ModelSpec
from models.spec_json import decode_spec
from tests.models.task_cases import COLUMNS
from tests.models.task_cases import spec as task_spec
from tests.models.test_branched import IMAGES, TREES, build, shaken, spec


@pytest.mark.parametrize("groups", TREES[::3])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_round_trip_to_the_bit(tmp_path: Path, groups: tuple[tuple[int, ...], ...], backbone: str) -> None:
    model = shaken(build(groups, backbone))
    bundle.save(model, tmp_path / "mine")
    network = bundle.load_network(tmp_path / "mine")
    assert network.spec == model.spec
    before, after = model.state_dict(), network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    predictor = bundle.load(tmp_path / "mine")
    with torch.no_grad():
        expected = {name: model.tasks[name].predict(output) for name, output in model(IMAGES).items()}
    found = predictor(IMAGES)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    for name in expected:
        alone = predictor.only(name)(IMAGES)
        assert list(alone) == [name]
        assert torch.equal(alone[name], expected[name])


def test_what_is_cut_out_can_be_saved(tmp_path: Path) -> None:
    model = shaken(build(TREES[0]))
    bundle.save(model.only("my_depth"), tmp_path)
    found, expected = bundle.load(tmp_path)(IMAGES)["my_depth"], bundle.Predictor(model)(IMAGES)["my_depth"]
    assert torch.equal(found, expected)


def full_spec() -> ModelSpec:
    tasks = tuple(
        task_spec(kind, name=kind, weight=0.5, head_width=16, options=(("sigma", 2.0),) if kind == "keypoints" else ())
        for kind in COLUMNS
    )
    return replace(spec(BranchTree.shared(len(tasks), 4).groups), tasks=tasks)


def test_spec_round_trip_through_json() -> None:
    wanted = full_spec()
    found = decode_spec(json.loads(json.dumps(asdict(wanted))))
    assert found == wanted
    assert hash(found) == hash(wanted)


def test_a_spec_of_several_sizes_goes_through_json_and_an_older_one_has_one() -> None:
    plain = full_spec()
    tasks = tuple(replace(task, size=(32 + i, 48)) for i, task in enumerate(plain.tasks))
    wanted = replace(plain, backbone=replace(plain.backbone, dynamic=True), tasks=tasks)
    found = decode_spec(json.loads(json.dumps(asdict(wanted))))
    assert found == wanted
    assert hash(found) == hash(wanted)
    raw = json.loads(json.dumps(asdict(plain)))
    del raw["backbone"]["dynamic"], raw["routes"]
    for task in raw["tasks"]:
        del task["size"]
    assert decode_spec(raw) == plain


def test_a_pretrained_backbone_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(TREES[0])
    model.spec = replace(model.spec, backbone=replace(model.spec.backbone, pretrained=True))
    bundle.save(model, tmp_path)
    asked: list[bool] = []
    import timm

    made = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: (asked.append(k["pretrained"]), made(*a, **k))[1])
    bundle.load(tmp_path)
    assert set(asked) == {False}


@pytest.mark.parametrize("missing", ["spec.json", "weights.safetensors"])
def test_no_bundle(tmp_path: Path, missing: str) -> None:
    bundle.save(build(TREES[0]), tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ValueError, match=f"is no bundle: {missing} is missing"):
        bundle.load(tmp_path)


def test_another_format(tmp_path: Path) -> None:
    bundle.save(build(TREES[0]), tmp_path)
    raw = json.loads((tmp_path / "spec.json").read_text()) | {"format": 99}
    (tmp_path / "spec.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="another version"):
        bundle.load(tmp_path)


def test_an_unknown_task_is_refused_with_the_known() -> None:
    predictor = bundle.Predictor(build(TREES[0]))
    with pytest.raises(ValueError, match="no task 'nose'; this network has my_classification, my_depth"):
        predictor.only("nose")


def test_predicting_needs_no_gradient_and_changes_nothing(tmp_path: Path) -> None:
    model = BranchedModel(spec(TREES[0])).train()
    bundle.save(model, tmp_path)
    predictor = bundle.load(tmp_path)
    before = {name: value.clone() for name, value in predictor.state_dict().items()}
    assert not any(value.requires_grad for value in predictor(IMAGES).values())
    assert all(torch.equal(value, before[name]) for name, value in predictor.state_dict().items())
