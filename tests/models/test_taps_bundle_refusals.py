"""What does not belong into a bundle of one base and its tasks is refused, in words that name both fingerprints."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from models import bundle
from models.deltas import fingerprint
from models.sharing.taps import TapsModel
from models.spec import BackboneSpec
from models.taps_bundle import DELTA
from tests.models.test_taps_bundle import IMAGES, build, files


def base_of(path: Path) -> str:
    return json.loads((path / "spec.json").read_text())["base"]


def test_saving_over_other_tasks_is_refused(tmp_path: Path) -> None:
    bundle.save(build(), tmp_path)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=r"holds other tasks already \(my classification, my segmentation\)"):
        bundle.save(build(kinds=("depth",)), tmp_path)
    assert files(tmp_path) == before


def rewrite(file: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Change a delta's tensors as someone might who makes one elsewhere: all fingerprints agree."""
    with safe_open(str(file), "pt") as opened:
        about = json.loads(opened.metadata()["delta"])
    tensors = change(load_file(str(file)))
    save_file(tensors, str(file), {"delta": json.dumps(about | {"content": fingerprint(tensors)})})


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


FORM = "my depth/delta.safetensors: {}.*. It was made for the base {}; the base here is {}"
HEAD = "head.project.weight"
FAULTS: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "missing": (without(HEAD), f"missing: {HEAD}"),
    "no scores": (without("scores"), "missing: scores"),
    "extra": (lambda tensors: tensors | {"nose": torch.zeros(1)}, "not of this network: nose"),
    "closed": (lambda tensors: tensors | {"scores": torch.zeros_like(tensors["scores"])}, "not of this network: "),
    "shape": (lambda tensors: tensors | {HEAD: tensors[HEAD][:1].clone()}, rf"unlike: {HEAD} is float32 \[1, "),
    "type": (lambda tensors: tensors | {HEAD: tensors[HEAD].half()}, f"unlike: {HEAD} is float16 .*not float32"),
    "more gates": (lambda tensors: tensors | {"scores": torch.ones(99)}, r"unlike: scores is float32 \[99\], not "),
    "empty": (lambda _: {}, "missing: head."),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mismatching_delta_is_refused(tmp_path: Path, fault: str) -> None:
    bundle.save(build(), tmp_path)
    change, message = FAULTS[fault]
    rewrite(tmp_path / "my depth" / DELTA, change)
    base = base_of(tmp_path)
    with pytest.raises(ValueError, match=FORM.format(message, base, base)):
        bundle.load(tmp_path)


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str, bool]] = {
    "truncated": (lambda data: data[:-100], "damaged or no delta", True),
    "longer": (lambda data: data + b"x", "damaged or no delta", True),
    "a bit": (lambda data: data[:-50] + bytes([data[-50] ^ 1]) + data[-49:], "damaged: its tensors are not", True),
    "half its header": (lambda data: data[:300], "damaged or no delta", False),
    "no safetensors": (lambda _: b"junk", "damaged or no delta", False),
    "an endless header": (lambda data: b"\xff" * 8 + data[8:], "damaged or no delta", False),
    "nothing": (lambda _: b"", "damaged or no delta", False),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_delta_is_refused(tmp_path: Path, damage: str) -> None:
    bundle.save(build(), tmp_path)
    change, message, readable = DAMAGES[damage]
    file = tmp_path / "my depth" / DELTA
    file.write_bytes(change(file.read_bytes()))
    base = base_of(tmp_path)
    refusal = FORM.format(message, base if readable else "unreadable", base)
    with pytest.raises(ValueError, match=refusal):
        bundle.load(tmp_path)
    with pytest.raises(ValueError, match=refusal):
        bundle.adopt_task(tmp_path, "my depth", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_another_base_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    for seed in (0, 1):
        bundle.save(build(seed=seed), tmp_path / str(seed))
    here, there = base_of(tmp_path / "0"), base_of(tmp_path / "1")
    assert here != there
    shutil.rmtree(tmp_path / "0" / "my depth")
    before = files(tmp_path / "0")
    with pytest.raises(ValueError, match=FORM.format("another base", there, here)):
        bundle.adopt_task(tmp_path / "1", "my depth", tmp_path / "0")
    assert files(tmp_path / "0") == before
    shutil.copytree(tmp_path / "1" / "my depth", tmp_path / "0" / "my depth")
    with pytest.raises(ValueError, match=FORM.format("another base", there, here)):
        bundle.load(tmp_path / "0")


def test_a_base_that_was_replaced_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    for seed in (0, 1):
        bundle.save(build(seed=seed), tmp_path / str(seed))
    shutil.copyfile(tmp_path / "1" / "weights.safetensors", tmp_path / "0" / "weights.safetensors")
    here, there = base_of(tmp_path / "0"), base_of(tmp_path / "1")
    with pytest.raises(ValueError, match=f"is damaged or another base: it is {there}, spec.json says {here}"):
        bundle.load(tmp_path / "0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": (0.1, 0.2, 0.3)}, r"mean \(0.1, 0.2, 0.3\), here \(0.4, 0.5, 0.6\)"),
        ({"settings": (("threshold", 0.2),)}, "threshold 0.2, here 0.1"),
        ({"settings": (("gated", ("*conv1",)),)}, r"gated \('\*conv1',\), here "),
        ({"backbone": BackboneSpec(name="test_resnet", locations=2, size=(32, 32))}, "backbone .*size=.32, 32."),
    ],
)
def test_a_delta_of_another_network_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    model = build()
    bundle.save(model, tmp_path / "here")
    other = TapsModel(replace(model.spec, **changes))  # pyright: ignore[reportArgumentType]
    other.base.load_state_dict(model.base.state_dict())
    bundle.save(other, tmp_path / "there")
    shutil.rmtree(tmp_path / "here" / "my depth")
    base = base_of(tmp_path / "here")
    assert base == base_of(tmp_path / "there")
    with pytest.raises(ValueError, match=FORM.format(f"made for a network with {message}", base, base)):
        bundle.adopt_task(tmp_path / "there", "my depth", tmp_path / "here")


def test_training_settings_and_first_weights_may_differ(tmp_path: Path) -> None:
    model = build()
    bundle.save(model, tmp_path / "here")
    backbone = replace(model.spec.backbone, pretrained=True)
    model.spec = replace(model.spec, settings=(("score", 0.2), ("weight_decay", 1e-4)), backbone=backbone)
    bundle.save(model, tmp_path / "there")
    shutil.rmtree(tmp_path / "here" / "my depth")
    bundle.adopt_task(tmp_path / "there", "my depth", tmp_path / "here")
    assert len(bundle.load(tmp_path / "here")(IMAGES)) == 3


def test_folders_without_or_with_the_wrong_delta_are_refused(tmp_path: Path) -> None:
    bundle.save(build(), tmp_path)
    base = base_of(tmp_path)
    (tmp_path / "my depth").rename(tmp_path / "yours")
    with pytest.raises(ValueError, match=f"it holds the task 'my depth'; its folder must be my depth.*{base}"):
        bundle.load(tmp_path)
    (tmp_path / "yours" / DELTA).unlink()
    with pytest.raises(ValueError, match=f"yours/{DELTA} is missing: that task has no weights beside the base {base}"):
        bundle.load(tmp_path)
    for folder in ("yours", "my classification", "my segmentation"):
        shutil.rmtree(tmp_path / folder)
    with pytest.raises(ValueError, match=f"has a base, {base}, but no task"):
        bundle.load(tmp_path)


def test_what_cannot_be_adopted_is_refused(tmp_path: Path) -> None:
    model = build()
    bundle.save(model, tmp_path / "taps")
    bundle.save(model.only("my depth"), tmp_path / "plain")
    with pytest.raises(ValueError, match="plain has no base that tasks stand beside: its strategy is 'branched'"):
        bundle.adopt_task(tmp_path / "plain", "my depth", tmp_path / "new")
    with pytest.raises(ValueError, match="plain has no base that tasks stand beside: its strategy is 'branched'"):
        bundle.adopt_task(tmp_path / "taps", "my depth", tmp_path / "plain")
    with pytest.raises(ValueError, match="no task 'zoom'; it has my classification, my depth, my segmentation"):
        bundle.adopt_task(tmp_path / "taps", "zoom", tmp_path / "new")
    with pytest.raises(ValueError, match="has a task 'my depth' already"):
        bundle.adopt_task(tmp_path / "taps", "my depth", tmp_path / "taps")
    with pytest.raises(ValueError, match="no bundle"):
        bundle.adopt_task(tmp_path / "nowhere", "my depth", tmp_path / "new")
    assert not (tmp_path / "new").exists()
