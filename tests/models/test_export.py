"""A program predicts as the network that it was made of, for any number of images, where nothing of ours is there."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.export import ExportedProgram

from models import bundle
from models.bundle import Predictor
from models.experts import MoEMlp
from models.export import ABOUT, difference, export_program, image_size, random_images, write_program
from models.sharing import SHARING
from models.spec import BackboneSpec
from models.static_boxes import static_boxes
from models.static_network import DenseMixture, static_network
from models.tasks.detection import Detection
from tests.models.export_cases import NETWORKS, every_kind
from tests.models.task_cases import spec as task_spec
from tests.models.test_branched import SIZE, TREES, build, shaken
from tests.models.test_taps_bundle import build as build_taps

BATCHES = (1, 2, 5)
ROOT = Path(__file__).resolve().parents[2]
WITH_TORCH_ALONE = """\
import sys
for name in ("timm", "torchvision", "models", "torchmetrics", "safetensors"):
    sys.modules[name] = None  # an import of it fails
import torch
for path in sys.argv[1:]:
    program, images = torch.export.load(path).module(), torch.load(path + ".images", weights_only=True)
    with torch.inference_mode():
        torch.save([dict(program(some)) for some in images], path + ".found")
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[Predictor, Path]]:
    """Each network as its bundle gives it, and the file of its program, which a process with torch alone has run."""
    folder, made = tmp_path_factory.mktemp("programs"), {}
    for number, (name, make) in enumerate(NETWORKS.items()):
        bundle.save(make(), folder / str(number))
        predictor, path = bundle.load(folder / str(number)), folder / f"{number}.pt2"
        write_program(predictor, path)
        torch.save(random_images(predictor, BATCHES), f"{path}.images")
        made[name] = predictor, path
    command = [sys.executable, "-I", "-c", WITH_TORCH_ALONE, *(str(path) for _, path in made.values())]
    subprocess.run(command, cwd=folder, check=True)
    return made


def test_every_strategy_is_exported() -> None:
    kept = {make().spec.strategy for make in NETWORKS.values()}
    assert kept == SHARING.keys() - {"lwf"}


@pytest.mark.parametrize("name", NETWORKS)
def test_torch_alone_predicts_the_same(elsewhere: Mapping[str, tuple[Predictor, Path]], name: str) -> None:
    predictor, path = elsewhere[name]
    every = torch.load(f"{path}.found", weights_only=True)
    for images, found in zip(random_images(predictor, BATCHES), every, strict=True):
        expected = predictor(images)
        assert list(found) == list(expected)
        for task, prediction in expected.items():
            assert found[task].dtype == prediction.dtype
            assert found[task].shape == prediction.shape
        assert difference(predictor.network.tasks, found, expected) <= 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_says_what_it_holds_and_nothing_of_this_machine(
    elsewhere: Mapping[str, tuple[Predictor, Path]], name: str
) -> None:
    predictor, path = elsewhere[name]
    extra = {ABOUT: ""}
    torch.export.load(path, extra_files=extra)
    about = json.loads(extra[ABOUT])
    assert list(about["tasks"]) == list(predictor.network.tasks)
    assert all(about["tasks"][task]["classes"] == list(t.classes) for task, t in predictor.network.tasks.items())
    with zipfile.ZipFile(path) as files:
        contents = b"".join(files.read(part) for part in files.namelist())
    assert str(ROOT).encode() not in contents
    assert sys.prefix.encode() not in contents


def predictions(program: ExportedProgram, images: Tensor) -> dict[str, Tensor]:
    with torch.inference_mode():
        return program.module()(images)


def test_one_task_is_its_own_program() -> None:
    predictor = Predictor(shaken(build(TREES[0])))
    program = export_program(predictor, "my_depth")
    (images,) = random_images(predictor, [3])
    found = predictions(program, images)
    assert list(found) == ["my_depth"]
    assert difference(predictor.network.tasks, found, {"my_depth": predictor(images)["my_depth"]}) <= 1e-5
    names = [name for name in program.state_dict if name.startswith("network.heads.")]
    assert names
    assert all(name.startswith("network.heads.0.") for name in names)


def test_tasks_of_one_base_hold_it_once(tmp_path: Path) -> None:
    model = build_taps("test_resnet", 4)
    with torch.no_grad():
        for task in model.tasks:
            model.of(task).scores.zero_()  # all gates closed
    bundle.save(model, tmp_path / "bundle")
    write_program(bundle.load(tmp_path / "bundle"), tmp_path / "all.pt2")
    weights = sum(file.stat().st_size for file in (tmp_path / "bundle").rglob("*.safetensors"))
    assert (tmp_path / "all.pt2").stat().st_size < 1.5 * weights + 500_000


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("score", [0.0, 0.05, 0.6, 0.99])
def test_boxes_are_those_of_the_task(classes: int, score: float) -> None:
    """Against torchvision's suppression of one image after the other; anchors are so near that most cover another."""
    column = replace(task_spec("detection").column, classes=tuple("abc"[:classes]))
    options = (("candidates", 200.0), ("detections", 20.0), ("score", score))
    task = Detection(task_spec("detection", column=column, options=tuple(sorted(options))))
    draw, size = torch.Generator().manual_seed(classes), (40, 60)
    corners = torch.rand(4, 100, 2, generator=draw) * torch.tensor([60.0, 40.0])
    anchors = torch.cat([corners, corners + 4 + 20 * torch.rand(4, 100, 2, generator=draw)], -1)[:1].expand(4, -1, -1)
    raw = torch.randn(4, 100, classes + 4, generator=draw)
    image = torch.tensor([0.0] * (classes + 4) + [0, 0, size[1], size[0]]).expand(4, 1, -1)
    output = torch.cat([torch.cat([raw, anchors], -1), image], 1)
    expected = task.predict(output)
    found = static_boxes(task, output, size)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert int((expected[:, :-1, 4] >= 0).sum()) > 0 or score == 0.99


def test_no_box_at_all() -> None:
    predictor = Predictor(every_kind()).only("my detection")
    task = predictor.network.tasks["my detection"]
    assert isinstance(task, Detection)
    task.settings = {**task.settings, "score": 1.0}
    (images,) = random_images(predictor, [2])
    found = predictions(export_program(predictor), images)["my detection"]
    assert torch.equal(found, predictor(images)["my detection"])
    assert bool((found[:, :, 4] == -1).all())


@pytest.mark.parametrize(("experts", "top_k"), [((0, 1, 2, 3), 2), ((2, 0), 1), ((3,), 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_all_experts_behind_their_gates_are_the_mixture(experts: tuple[int, ...], top_k: int, bias: bool) -> None:
    torch.manual_seed(0)
    mixture = MoEMlp(16, 24, {"a": ((0, 1, 2, 3), 2), "b": (experts, top_k)}, bias=bias, adapter=4).eval()
    with torch.no_grad():
        for parameter in mixture.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    dense = DenseMixture(mixture)
    x = torch.randn(2, 5, 6, 16)
    for dataset in ("a", "b"):
        mixture.dataset = dense.dataset = dataset
        with torch.no_grad():
            torch.testing.assert_close(dense(x), mixture(x), rtol=1e-5, atol=1e-5)


def test_a_network_stays_as_it_is() -> None:
    for name in ("moe", "taps", "branched"):
        predictor = Predictor(NETWORKS[name]())
        (images,) = random_images(predictor, [2])
        modules, before = [type(module) for module in predictor.modules()], predictor(images)
        static_network(predictor.network, image_size(predictor))
        assert [type(module) for module in predictor.modules()] == modules
        assert all(torch.equal(value, before[task]) for task, value in predictor(images).items())


def test_what_can_not_be_exported_is_refused() -> None:
    predictor = Predictor(shaken(build(TREES[0])))
    with pytest.raises(ValueError, match="no task 'zoom'; this network has"):
        export_program(predictor, "zoom")
    sizes = ((32, 32), (32, 64), (32, 32))
    spec = predictor.network.spec
    backbone = BackboneSpec(name="test_resnet", locations=4, size=SIZE, dynamic=True)
    tasks = tuple(replace(task, size=size) for task, size in zip(spec.tasks, sizes, strict=True))
    several = Predictor(SHARING["branched"](replace(spec, tasks=tasks, backbone=backbone)))
    with pytest.raises(ValueError, match=r"differ in size \(my_classification 32x32, my_depth 32x64.*a task at a time"):
        export_program(several)
    images = torch.randint(0, 256, (3, 3, 32, 64), dtype=torch.uint8)
    depth = several.only("my_depth")
    found = predictions(export_program(several, "my_depth"), images)
    assert difference(depth.network.tasks, found, depth(images)) <= 1e-5
