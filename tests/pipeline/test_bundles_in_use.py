"""A trained network's bundle, and the program made of it, are at test what training measured; and it is said so."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from torch import Tensor

from models import bundle
from models.export import difference, export_program
from models.spec import ModelSpec
from pipeline.about import ABOUT, read_about
from pipeline.artifacts import read_manifests
from pipeline.evaluate import metrics_of
from pipeline.jobs import TrainJob, train_job
from pipeline.loading import Batch, in_order
from pipeline.loop import conclude, train
from pipeline.machine import Machine
from pipeline.model_card import card
from pipeline.results import copy_result
from pipeline.training_state import splits_of
from stages import info, only, predict
from tests.pipeline.cases import DECODING, make_job, settings, site

pytestmark = pytest.mark.filterwarnings(DECODING)
TASKS: tuple[str, ...] = ("scene", "depth", "segmentation", "keypoints")
SWIN = {"placement": ("layers.2*", "layers.3*"), "experts": 4, "top_k": 2}


def plain(spec: ModelSpec) -> ModelSpec:
    return spec


def joint(spec: ModelSpec) -> ModelSpec:
    return replace(spec, strategy="taps", groups=(), settings=(("joint", True),))


def alone(spec: ModelSpec) -> ModelSpec:
    return replace(joint(spec), tasks=spec.tasks[1:2], settings=())


def adapted(spec: ModelSpec) -> ModelSpec:
    return replace(
        spec, strategy="adapted", tasks=spec.tasks[1:2], groups=(), settings=(("method", "parallel_adapters"),)
    )


def with_experts(spec: ModelSpec) -> ModelSpec:
    backbone = replace(spec.backbone, name="swin_nano_patch4_window4")
    return replace(spec, strategy="moe", groups=(), backbone=backbone, settings=tuple(sorted(SWIN.items())))


CASES: Mapping[str, Callable[[ModelSpec], ModelSpec]] = {
    "branched": plain,
    "taps, joint": joint,
    "taps": alone,
    "adapted": adapted,
    "moe": with_experts,
}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A small network that was trained: its job, what that measured, its bundle as a stage leaves it."""

    job: TrainJob
    result: Mapping[str, Any]
    folder: Path
    prepared: Path


@pytest.fixture(scope="module", params=CASES)
def trained(request: pytest.FixtureRequest, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    torch.set_num_threads(1)
    storage, manifests = tmp_path_factory.mktemp("storage"), read_manifests(prepared)
    spec = CASES[request.param](make_job(manifests, TASKS, [[0, 0, 1, 1]] * 4).model)
    config = settings(tasks=TASKS, train={"epochs": 1, "lr": 0.002})
    reference = dict.fromkeys(TASKS, 0.5)
    job = train_job(config, manifests, spec, name=request.param, seed=0, reference=reference, lam=0.01)
    where = site(prepared, storage)
    list(train(job, where))
    result = conclude(job, where)
    single = {task: {"test": value, "job": f"key of {task}"} for task, value in result["test"].items()}
    copy_result(job, Machine(storage=str(storage)), storage / "bundle", manifests, single)
    return Trained(job=job, result=result, folder=storage / "bundle", prepared=prepared)


def measured(trained: Trained, run: Callable[[Tensor], Mapping[str, Tensor]]) -> dict[str, float]:
    """The metric of each task on the test images."""

    def predict(part: Batch, names: Sequence[str]) -> Mapping[str, Tensor]:
        found = run(part.images)
        return {name: found[name] for name in names}

    splits, tasks = splits_of(trained.job, trained.prepared, "test"), bundle.load(trained.folder).network.tasks
    return metrics_of(predict, tasks, splits, batches=trained.job.batches, device=torch.device("cpu"))


def test_a_bundle_is_at_test_what_training_measured(trained: Trained) -> None:
    found = measured(trained, bundle.load(trained.folder))
    assert found == pytest.approx(dict(trained.result["test"]), rel=1e-5, abs=1e-5)


def test_so_is_each_task_alone(trained: Trained, tmp_path: Path) -> None:
    for place, task in enumerate(trained.job.trained):
        folder = tmp_path / str(place)
        only.main([str(trained.folder), task, str(folder)])
        (images,) = (part.images for part in in_order(splits_of(trained.job, trained.prepared, "test")[0], 12))
        whole, alone = bundle.load(trained.folder)(images), bundle.load(folder)
        part = alone(images)
        assert list(part) == [task]
        assert difference(alone.network.tasks, part, whole) <= 1e-5
        about = read_about(folder)
        assert about is not None
        assert list(about.tasks) == [task]
        assert about.tasks[task].test == pytest.approx(trained.result["test"][task])


def test_so_is_the_program(trained: Trained) -> None:
    predictor = bundle.load(trained.folder)
    program = export_program(predictor).module()

    @torch.inference_mode()
    def run(images: Tensor) -> Mapping[str, Tensor]:
        found = program(images)
        assert difference(predictor.network.tasks, found, predictor(images)) <= 1e-5
        return found

    assert measured(trained, run) == pytest.approx(dict(trained.result["test"]), rel=1e-5, abs=1e-5)


def test_what_is_known_of_it(trained: Trained, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    about = read_about(trained.folder)
    assert about is not None
    assert {name: row.test for name, row in about.tasks.items()} == pytest.approx(dict(trained.result["test"]))
    assert {row.job for row in about.tasks.values()} == {trained.job.key}
    assert about.datasets["tiny"].fingerprint == read_manifests(trained.prepared)["tiny"].fingerprint
    info.main([str(trained.folder)])
    text = capsys.readouterr().out
    network = bundle.load(trained.folder).network
    for part in (trained.job.key, f"{network.num_params():,} parameters", about.datasets["tiny"].fingerprint):
        assert part in text
    for name, row in about.tasks.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} ")]
        assert row.metric in line
        assert "0.0 %" in line or row.test == 0, "it is compared with itself"
    info.main([str(trained.folder), "--card", str(tmp_path / "README.md")])
    written = (tmp_path / "README.md").read_text()
    assert written == card(trained.folder, head=True)
    _, head, body = written.split("---\n", 2)
    assert body.strip() == text.strip()
    fields = YAML(typ="safe").load(head)
    assert fields["license"] == "unknown"
    values = {part["task"]["name"]: part["metrics"][0]["value"] for part in fields["model-index"][0]["results"]}
    assert values == pytest.approx(dict(trained.result["test"]))


def test_the_commands_of_a_card_run(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (50, 40), "orange").save("photo.jpg")
    text = card(trained.folder, head=False)
    (command,) = [line for line in text.splitlines() if line.startswith("python -m stages.predict")]
    predict.main(command.split()[3:])
    assert Path("predictions.png").exists()
    code = text.split("```python\n")[1].split("```")[0]
    images = torch.zeros(2, 3, *trained.job.model.backbone.size, dtype=torch.uint8)
    names: dict[str, Any] = {"images": images}
    exec(code, names)  # the card's own lines
    assert set(names["predictions"]) == set(trained.job.trained)


def test_a_damaged_or_missing_about(trained: Trained, tmp_path: Path) -> None:
    only.main([str(trained.folder), trained.job.trained[0], str(tmp_path / "one")])
    file = tmp_path / "one" / ABOUT
    file.write_text(file.read_text()[:40])
    with pytest.raises(ValueError, match=r"about.json: damaged, or of another version .*; remove it to go on without"):
        card(tmp_path / "one", head=False)
    file.unlink()
    assert "not known here" in card(tmp_path / "one", head=True)
    with pytest.raises(ValueError, match="is there already: name a new folder"):
        only.main([str(trained.folder), trained.job.trained[0], str(tmp_path / "one")])
