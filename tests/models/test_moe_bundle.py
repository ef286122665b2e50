"""One base with experts and a file per data set that was added: what fits comes back, what does not is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from models import bundle
from models.delta_files import DELTA
from models.deltas import fingerprint
from models.expert_growth import added_datasets, join
from models.sharing.moe import MoeModel
from models.spec import Route
from stages import predict
from tests.models.test_expert_growth import (
    IMAGES,
    LAYERS,
    TASKS,
    agree,
    build_base,
    learn,
    outputs,
    shaken,
    spec,
)
from tests.models.test_taps_bundle import build as build_taps
from tests.models.test_taps_bundle import files

BASE = {"spec.json", "weights.safetensors"}


def build(c: str = "both", d: str = "tuned", seed: int = 0) -> MoeModel:
    """A base for a and b to which d.1 and c were added."""
    base = build_base(seed)
    return join(base, [learn(base, "d.1", d), learn(base, "c", c)])


def contents(path: Path) -> dict[str, bytes]:
    return {name: data for name, (data, _) in files(path).items()}


@pytest.mark.parametrize(("c", "d"), [("both", "tuned"), ("router", "all its own"), ("pruned and tuned", "added")])
def test_round_trip_to_the_bit(tmp_path: Path, c: str, d: str) -> None:
    model = build(c, d)
    bundle.save(model, tmp_path / "once")
    network = bundle.load_network(tmp_path / "once")
    assert isinstance(network, MoeModel)
    assert network.spec.task_names == ("a class", "b depth", "c class", "d class", "d mask"), "added ones by alphabet"
    assert agree(outputs(network.eval()), outputs(model))
    bundle.save(network, tmp_path / "twice")
    assert contents(tmp_path / "once") == contents(tmp_path / "twice")
    assert contents(tmp_path / "once").keys() == {*BASE, f"c/{DELTA}", f"d.1/{DELTA}"}
    predictor, expected = bundle.load(tmp_path / "once"), bundle.Predictor(model)(IMAGES)
    assert agree(predictor(IMAGES), expected)
    for task in model.tasks:
        alone = predictor.only(task)
        assert agree(alone(IMAGES), {task: expected[task]})
        assert alone.network.num_params() == model.only(task).num_params()


def test_the_base_in_a_bundle_is_the_base(tmp_path: Path) -> None:
    """Bytes for bytes, so that data sets that were learned apart meet beside a base that was saved alone."""
    bundle.save(build_base(), tmp_path / "base")
    bundle.save(build(), tmp_path / "grown")
    base, grown = contents(tmp_path / "base"), contents(tmp_path / "grown")
    assert base.keys() == BASE
    assert base == {name: grown[name] for name in BASE}


def test_a_file_does_not_depend_on_what_stands_beside_it(tmp_path: Path) -> None:
    base = build_base()
    grown = [learn(base, "c", "both"), learn(base, "d.1", "tuned"), learn(base, "e", "added")]
    bundle.save(join(base, grown), tmp_path / "all")
    for network in grown:
        bundle.save(join(base, [network]), tmp_path / "one" / network.datasets[0])
        file = f"{network.datasets[0]}/{DELTA}"
        assert contents(tmp_path / "one" / network.datasets[0])[file] == contents(tmp_path / "all")[file]


def test_a_file_holds_what_learned_and_no_more(tmp_path: Path) -> None:
    base = build_base()
    grown = learn(base, "c", "both")
    bundle.save(join(base, [grown]), tmp_path)
    found = load_file(str(tmp_path / "c" / DELTA))
    estimates = sum(len(experts) for experts in grown.routes["c"].experts)
    learned = sum(weight.numel() for weight in grown.parameters() if weight.requires_grad)
    assert sum(tensor.numel() for tensor in found.values()) == learned + estimates


def restricted() -> MoeModel:
    """Two data sets with routes of their own that were trained together."""
    b = Route(dataset="b", top_k=1, experts=((2, 3),) * LAYERS)
    a = Route(dataset="a", top_k=2, experts=((0, 1, 2),) * LAYERS)
    return shaken(MoeModel(spec((*TASKS["a"], *TASKS["b"]), (b, a))))


# Networks to which nothing was added.
PLAIN: dict[str, Callable[[], MoeModel]] = {
    "base": build_base,
    "dense": lambda: shaken(MoeModel(spec(TASKS["a"], placement=()))),
    "one task, pruned": lambda: learn(build_base(), "c", "pruned and tuned"),
    "router alone": lambda: learn(build_base(), "c", "router"),
    "fine-tuned": lambda: learn(build_base(), "c", "pruned", learns="all"),
    "adapters": lambda: learn(build_base(), "c", "router", adapter=4),
    "cut out": lambda: build().only("d mask"),
    "restricted": restricted,
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_network_to_which_nothing_was_added_is_two_files(tmp_path: Path, name: str) -> None:
    model = PLAIN[name]()
    bundle.save(model, tmp_path / "once")
    network = bundle.load_network(tmp_path / "once")
    assert network.spec == model.spec
    assert agree(network.state_dict(), model.state_dict())
    assert agree(bundle.load(tmp_path / "once")(IMAGES), bundle.Predictor(model)(IMAGES))
    bundle.save(network, tmp_path / "twice")
    assert contents(tmp_path / "once") == contents(tmp_path / "twice")
    assert contents(tmp_path / "once").keys() == BASE


def test_adopting_a_task_touches_no_other_file(tmp_path: Path) -> None:
    """From bundles of one data set each, into one of the base alone, and into none."""
    base = build_base()
    for dataset, way in (("e", "both"), ("c", "added"), ("d.1", "tuned")):
        bundle.save(join(base, [learn(base, dataset, way)]), tmp_path / dataset)
    bundle.save(base, tmp_path / "alone")
    for target in (tmp_path / "alone", tmp_path / "new"):
        expected = outputs(base)
        for dataset in ("e", "d.1", "c"):
            before = files(target)
            bundle.adopt_task(tmp_path / dataset, TASKS[dataset][-1].name, target)
            after = files(target)
            assert {name: after[name] for name in before} == before
            assert after.keys() - before.keys() == {f"{dataset}/{DELTA}", *(() if before else BASE)}
            expected |= outputs(bundle.load(tmp_path / dataset).network)
            found = bundle.load(target).network
            assert agree(outputs(found), expected)
        assert added_datasets(found.spec) == ("c", "d.1", "e")


@pytest.mark.parametrize("name", ["type", "größe", "two words", "a/b", "..", ".hidden", "50%", "back\\slash"])
def test_any_name_of_a_data_set_will_do(tmp_path: Path, name: str) -> None:
    base = build_base()
    grown = learn(base, "c", "added")
    task, route = grown.spec.tasks[0], grown.spec.routes[0]
    renamed = MoeModel(
        replace(grown.spec, tasks=(replace(task, dataset=name),), routes=(replace(route, dataset=name),))
    )
    renamed.start_from({"moe": base.state_dict()})
    joined = join(base, [renamed])
    bundle.save(joined, tmp_path / "one")
    bundle.adopt_task(tmp_path / "one", "c class", tmp_path / "other")
    assert agree(bundle.load(tmp_path / "other")(IMAGES), bundle.Predictor(joined)(IMAGES))
    assert len(files(tmp_path)) == 6, "nothing outside of the two folders"


def test_another_base_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    for seed in (0, 1):
        bundle.save(build_base(seed), tmp_path / str(seed))
    bundle.save(build(seed=1), tmp_path / "other")
    here, there = (fingerprint(load_file(str(tmp_path / name / "weights.safetensors"))) for name in ("0", "1"))
    refusal = f"{DELTA}: another base. It was made for the base {there}; the base here is {here}"
    before = files(tmp_path / "0")
    with pytest.raises(ValueError, match=refusal):
        bundle.adopt_task(tmp_path / "other", "c class", tmp_path / "0")
    assert files(tmp_path / "0") == before
    shutil.copyfile(tmp_path / "0" / "weights.safetensors", tmp_path / "other" / "weights.safetensors")
    with pytest.raises(ValueError, match=refusal):
        bundle.load(tmp_path / "other")


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda data: data[:-100], "damaged or no delta"),
    "a bit": (lambda data: data[:-50] + bytes([data[-50] ^ 1]) + data[-49:], "damaged: its tensors are not"),
    "half its header": (lambda data: data[:300], "damaged or no delta"),
    "nothing": (lambda _: b"", "damaged or no delta"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    bundle.save(build(), tmp_path / "one")
    change, message = DAMAGES[damage]
    file = tmp_path / "one" / "c" / DELTA
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(ValueError, match=f"c/{DELTA}: {message}"):
        bundle.load(tmp_path / "one")
    with pytest.raises(ValueError, match=f"c/{DELTA}: {message}"):
        bundle.adopt_task(tmp_path / "one", "c class", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    bundle.adopt_task(tmp_path / "one", "d mask", tmp_path / "other")
    assert len(bundle.load(tmp_path / "other")(IMAGES)) == 4, "the data set beside it is sound"


def rewrite(file: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Change a file's tensors as someone might who makes one elsewhere: all fingerprints agree."""
    with safe_open(str(file), "pt") as opened:
        about = json.loads(opened.metadata()["delta"])
    tensors = change(load_file(str(file)))
    save_file(tensors, str(file), {"delta": json.dumps(about | {"content": fingerprint(tensors)})})


WEIGHT = "layers.0.own.1.fc2.weight"
FAULTS: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "missing": (lambda tensors: {k: v for k, v in tensors.items() if k != WEIGHT}, f"missing: {WEIGHT}"),
    "extra": (lambda tensors: tensors | {"nose": torch.zeros(1)}, "not of this network: nose"),
    "shape": (lambda tensors: tensors | {WEIGHT: torch.zeros(3, 4)}, rf"unlike: {WEIGHT} is float32 \[3, 4\], not"),
    "type": (lambda tensors: tensors | {WEIGHT: tensors[WEIGHT].half()}, f"unlike: {WEIGHT} is float16"),
    "estimates": (
        lambda tensors: tensors | {"layers.0.estimates": torch.zeros(9)},
        r"unlike: layers.0.estimates is float32 \[9\], not float32 \[6\]",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mismatching_file_is_refused(tmp_path: Path, fault: str) -> None:
    bundle.save(build(), tmp_path)
    change, message = FAULTS[fault]
    rewrite(tmp_path / "c" / DELTA, change)
    base = fingerprint(load_file(str(tmp_path / "weights.safetensors")))
    with pytest.raises(ValueError, match=f"data set 'c': .*{message}.*The base here is {base}"):
        bundle.load(tmp_path)


def test_what_cannot_be_adopted_is_refused(tmp_path: Path) -> None:
    base, model = build_base(), build()
    bundle.save(model, tmp_path / "all")
    bundle.save(base, tmp_path / "base")
    bundle.save(build_taps(kinds=("depth",)), tmp_path / "taps")
    before = files(tmp_path)

    def refuse(source: str, task: str, target: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            bundle.adopt_task(tmp_path / source, task, tmp_path / target)

    refuse("all", "zoom", "base", "all has no task 'zoom' beside its base; it has c class, d class, d mask")
    refuse("all", "a class", "new", "all has no task 'a class' beside its base; it has c class")
    refuse("base", "a class", "new", "base has no task 'a class' beside its base; it has none")
    refuse("all", "c class", "all", "all has a data set 'c' already: remove .*c to replace it")
    refuse("nowhere", "c class", "new", "nowhere is no bundle")
    refuse("all", "c class", "taps", "taps has no base that data sets stand beside: its strategy is 'taps'")
    refuse("taps", "my depth", "base", "base has no base that tasks stand beside: its strategy is 'moe'")
    assert files(tmp_path) == before


def test_a_task_or_a_data_set_that_is_there_is_refused(tmp_path: Path) -> None:
    base = build_base()
    bundle.save(join(base, [learn(base, "c", "added")]), tmp_path / "there")
    route = Route(dataset="z", top_k=1, experts=((0, 1),) * LAYERS, own=((),) * LAYERS)
    same_task = MoeModel(spec((replace(TASKS["c"][0], dataset="z"),), (route,)))
    same_task.start_from({"moe": base.state_dict()})
    bundle.save(join(base, [same_task]), tmp_path / "task")
    bundle.save(MoeModel(spec((replace(TASKS["c"][0], name="other"),))), tmp_path / "data set")
    for name, taken in (("task", "task 'c class' already"), ("data set", "data set 'c' already, in its base")):
        before = files(tmp_path / name)
        with pytest.raises(ValueError, match=f"has a {taken}"):
            bundle.adopt_task(tmp_path / "there", "c class", tmp_path / name)
        assert files(tmp_path / name) == before


def test_saving_over_other_data_sets_is_refused(tmp_path: Path) -> None:
    bundle.save(build(), tmp_path)
    before = files(tmp_path)
    base = build_base()
    for model in (base, join(base, [learn(base, "c", "added")])):
        with pytest.raises(ValueError, match=r"holds other data sets already \((c, )?d.1\): save elsewhere, then use"):
            bundle.save(model, tmp_path)
    assert files(tmp_path) == before


def test_a_network_that_would_not_come_back_is_not_saved(tmp_path: Path) -> None:
    """Made by hand, not joined: e uses what c brought."""
    c = Route(dataset="c", top_k=1, experts=((0, 4),) * LAYERS, own=((4,),) * LAYERS)
    e = Route(dataset="e", top_k=1, experts=((1, 4),) * LAYERS, own=((),) * LAYERS)
    model = MoeModel(spec((*TASKS["a"], *TASKS["c"], *TASKS["e"]), (c, e)))
    with pytest.raises(
        ValueError, match=r"data set 'e': experts \[4\] of .* are neither its own nor shared by the base"
    ):
        bundle.save(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_predictions_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle.save(build(), tmp_path / "bundle")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(tmp_path / "one.png")
    asked = [str(tmp_path / "bundle"), str(tmp_path / "one.png"), "--out", str(tmp_path / "drawn.png")]
    predict.main(asked)
    lines = capsys.readouterr().out.splitlines()
    names = [line.split("  ")[1].split(":")[0] for line in lines[:-1]]
    assert names == ["a class", "b depth", "c class", "d class", "d mask"]
    predict.main([*asked, "--task", "d mask"])
    assert capsys.readouterr().out.splitlines()[0] == lines[4]
