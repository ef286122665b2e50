"""What a plan says against what stages then do, and against figures that are known without data."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.accounting import count_flops, count_params
from models.branch_tree import BranchTree
from models.bundle_files import offline
from models.sharing import SHARING
from models.sharing.taps import TapsModel
from pipeline import planning
from pipeline.artifacts import DatasetManifest, read_manifests
from pipeline.config import Config, load
from pipeline.jobs import TrainJob
from pipeline.loop import conclude, train
from pipeline.machine import Machine
from pipeline.plan_costs import (
    BACKWARD,
    image_costs,
    job_bytes,
    job_flops,
    measured_speed,
    network_params,
    shared_spec,
    steps_of,
    unit_costs,
)
from pipeline.plan_data import DataPlan, look
from pipeline.plan_jobs import Planned, planned_jobs, search_method, stages_of
from pipeline.plan_text import bytes_text, time_text
from pipeline.planning import plan
from pipeline.presets import PRESETS
from tests.pipeline.cases import DECODING, settings, site
from tests.pipeline.layouts import cityscapes
from tests.pipeline.small_studies import brought_down, planted

TABLE_2 = [(1, 1, 1, 1), (1, 1, 1, 2), (1, 1, 2, 2), (1, 2, 2, 2), (3, 3, 3, 3)]  # branches at each location
pytestmark = pytest.mark.filterwarnings(DECODING)


def stand_ins(config: Config, classes: Mapping[str, int], counts: Mapping[str, int]) -> dict[str, DatasetManifest]:
    """Data sets of known sizes that nobody has to download: by name classes of the columns, and training images."""
    found = {}
    for name in config.datasets:
        manifest = look(name, config, Machine(roots={name: "nowhere"})).manifest
        columns = {
            key: replace(column, classes=tuple(map(str, range(classes[name]))))
            for key, column in manifest.columns.items()
        }
        sizes = {"train": counts.get(name, 100), "val": 10, "test": 10}
        found[name] = replace(manifest, columns=columns, counts=sizes)
    return found


def jobs_of(config: Config, manifests: Mapping[str, DatasetManifest]) -> list[Planned]:
    return planned_jobs(config, manifests, unit_costs(shared_spec(config, manifests)))


def test_cityscapes_networks_are_those_of_the_paper() -> None:
    """Table 2, in whole numbers: fully shared, its three budgets as trees, single task."""
    config = load(PRESETS / "cityscapes.yaml")
    manifests = stand_ins(config, {"cityscapes": 19}, {})
    blocks, heads = unit_costs(shared_spec(config, manifests))["params"]
    sizes = [sum(b * block for b, block in zip(branches, blocks, strict=True)) + sum(heads) for branches in TABLE_2]
    assert sizes[0] == 92_740_694
    assert sizes[1:-1] == config.trees.budgets
    assert sizes[-1] == pytest.approx(139.757e6, abs=500)
    text = plan_of(config, manifests)
    assert "trees of 3 tasks at 4 locations, the first shared: 22; search: exhaustive" in text


def plan_of(config: Config, manifests: Mapping[str, DatasetManifest]) -> str:
    """The plan's text for data sets that are not on this disk."""
    known = [DataPlan(manifest=item, reader="reader", root="") for item in manifests.values()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "look", lambda name, *_: next(d for d in known if d.manifest.name == name))
        return plan(config, Machine(), timing=False).text


def test_the_paper_s_mixture_of_experts_takes_240_000_steps() -> None:
    """Swin-T with experts where the printed sizes have them: 51.3 M parameters; three sets drawn on 96 GPUs."""
    config = load(PRESETS / "mthl.yaml")
    kept = {name: config.datasets[name] for name in ("imagenet", "coco", "ade20k")}
    tasks = {name: config.tasks[name] for name in kept}
    small = {**kept, "coco": kept["coco"].model_copy(update={"size": (224, 224)})}
    adapt = config.adapt.model_copy(update={"tasks": []})
    config = config.model_copy(update={"datasets": small, "tasks": tasks, "adapt": adapt})
    sizes = {"imagenet": 1_281_167 * 98 // 100, "coco": 118_287 * 98 // 100, "ade20k": 20_210 * 95 // 100}
    manifests = stand_ins(config, {"imagenet": 1000, "coco": 80, "ade20k": 150}, sizes)
    (job,) = [item.job for item in jobs_of(config, manifests) if item.label == "with experts"]
    assert (steps_of(job, manifests) or 0) * job.train.epochs == pytest.approx(240_000, rel=2e-3)
    assert "12 experts in 4 layers, top 4, without heads   51,266,682" in plan_of(config, manifests)


@pytest.mark.parametrize(
    ("preset", "layers", "jobs"),
    # tasks x lambdas x learning rates, and as many of every baseline less the lambdas
    [("imagenet_to_sketch", 53, {"TAPS": 30, "fine tuning": 10}), ("decathlon", 25, {"TAPS": 36, "fine tuning": 9})],
)
def test_taps_is_swept_over_tasks_lambdas_and_learning_rates(preset: str, layers: int, jobs: dict[str, int]) -> None:
    config = load(PRESETS / f"{preset}.yaml")
    manifests = stand_ins(config, dict.fromkeys(config.datasets, 10), {})
    found = stages_of(jobs_of(config, manifests))["taps"]
    assert {label: len(found[label]) for label in jobs} == jobs
    with torch.device("meta"):
        network = TapsModel(offline(found["TAPS"][0].job.model))
    assert len(network.layers) == layers
    assert f"TAPS base, {layers} gated layers" in plan_of(config, manifests)


def test_forty_tasks_at_fifteen_layers_go_to_the_beam() -> None:
    config = load(PRESETS / "celeba.yaml")
    assert search_method(config, 500_000, 20) == "beam"
    manifests = stand_ins(config, {"celeba": 2}, {})
    blocks, heads = unit_costs(shared_spec(config, manifests))["params"]
    smallest, largest = (BranchTree.shared(40, 15), BranchTree.split(40, 15))
    assert smallest.budget(blocks, heads) < min(config.trees.budgets)
    assert largest.budget(blocks, heads) > max(config.trees.budgets)


@pytest.fixture(scope="module")
def tiny(prepared: Path) -> tuple[Config, dict[str, DatasetManifest]]:
    return settings(tasks=("scene", "depth", "segmentation")), read_manifests(prepared)


def test_steps_and_flops_are_those_of_the_loop(
    tiny: tuple[Config, dict[str, DatasetManifest]], prepared: Path, tmp_path: Path
) -> None:
    config, manifests = tiny
    torch.set_num_threads(1)
    costs = image_costs(shared_spec(config, manifests), manifests)
    (item,) = [item for item in jobs_of(config, manifests) if item.label == "fully shared tree"]
    records = list(train(item.job, site(prepared, tmp_path)))
    result = conclude(item.job, site(prepared, tmp_path))
    assert records[-1].step == (steps_of(item.job, manifests) or 0) * item.job.train.epochs
    images, counts = item.job.train.batch * records[-1].step, manifests["tiny"].counts
    passes = (1 + BACKWARD) * images + item.job.train.epochs * counts["val"] + counts["test"]
    assert job_flops(item, manifests, costs) == passes * result["flops"]
    kept = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.suffix in (".pt", ".safetensors"))
    assert kept <= job_bytes(item, result["params"], 2) <= 2 * kept


@pytest.mark.parametrize("label", ["fully split tree", "single-task networks", "TAPS", "fine tuning"])
def test_flops_of_every_kind_of_network_are_counted_on_it(
    tiny: tuple[Config, dict[str, DatasetManifest]], label: str
) -> None:
    config, manifests = tiny
    config = config.model_copy(update={"taps": config.taps.model_copy(update={"baselines": ["fine_tuning"]})})
    costs = image_costs(shared_spec(config, manifests), manifests)
    item = next(item for item in jobs_of(config, manifests) if item.label == label)
    network = SHARING[item.job.model.strategy](item.job.model)
    one = replace(item, job=replace_train(item.job))
    counts = {"train": item.job.train.batch, "val": 0, "test": 0}
    once = {"tiny": replace(manifests["tiny"], counts=counts)}
    flops = count_flops(network, torch.zeros(1, 3, *manifests["tiny"].size))
    assert job_flops(one, once, costs) == (1 + BACKWARD) * item.job.train.batch * flops
    assert network_params(item.job.model) == count_params(network)


def replace_train(job: TrainJob) -> TrainJob:
    return replace(job, train=job.train.model_copy(update={"epochs": 1}))


def test_a_tree_within_a_budget_lies_between_its_ends(tiny: tuple[Config, dict[str, DatasetManifest]]) -> None:
    config, manifests = tiny
    costs = image_costs(shared_spec(config, manifests), manifests)
    jobs = stages_of(jobs_of(config, manifests))["branched"]
    works = {label: [job_flops(item, manifests, costs) or 0.0 for item in items] for label, items in jobs.items()}
    (shared,), (split,) = works["fully shared tree"], works["fully split tree"]
    assert all(shared < work < split for work in works["trees within budgets"])


def test_every_tree_is_planned_where_all_are_trained() -> None:
    config = brought_down("exhaustive")
    manifests = stand_ins(config, {"scenes": 6}, {})
    jobs = stages_of(jobs_of(config, manifests))["branched"]
    assert {label: len(items) for label, items in jobs.items()} == {
        "fully shared tree": 1,
        "fully split tree": 1,
        "all other trees": 21,
    }


def test_the_jobs_of_a_study_with_experts() -> None:
    config = brought_down("mthl_small")
    manifests = stand_ins(config, dict.fromkeys(config.datasets, 4), {})
    found = {
        (stage, label): len(items)
        for stage, labels in stages_of(jobs_of(config, manifests)).items()
        for label, items in labels.items()
    }
    modes = len(config.adapt.modes) * len(config.adapt.tasks)
    assert found["moe", "with experts"] == len(config.moe.lams)
    assert (found["moe", "without experts"], found["moe", "fine-tuned"]) == (1, 2)
    assert found["adapt", "modes"] == modes
    assert found["adapt", "one after another, own experts"] == found["adapt", "one after another, LwF"] == 2


def test_planning_goes_on_where_data_are_missing(tmp_path: Path) -> None:
    config = brought_down("mthl_small")
    machine = planted(config, tmp_path)
    roots = {**machine.roots, "bccd": str(tmp_path / "nowhere")}
    found = plan(config, machine.model_copy(update={"roots": roots}), timing=False)
    (problem,) = found.problems
    assert problem.startswith("bccd: VOC: there is no folder")
    assert str(tmp_path / "nowhere") in problem
    assert "100?" in found.text, "its classes are assumed"
    assert "jobs are on data sets that aren't known" in found.text
    assert "cifar100" in found.text


def test_another_layout_is_named(tmp_path: Path) -> None:
    config = settings({"reader": "coco", "images": None}, tasks=("segmentation",))
    found = look("tiny", config, Machine(roots={"tiny": str(cityscapes.plant(tmp_path))}))
    assert found.assumed
    assert "it looks like the layout of cityscapes: set reader" in found.problem


def test_fewer_images_than_a_batch_are_a_problem() -> None:
    config = settings({"images": 12, "batch": 20})
    found = look("tiny", config, Machine())
    assert "training images are fewer than the batch of 20" in found.problem
    assert not found.manifest.counts
    assert not found.assumed


def test_a_sample_tells_how_large_the_shards_will_be(
    tiny: tuple[Config, dict[str, DatasetManifest]], prepared: Path
) -> None:
    config, manifests = tiny
    stored = sum(path.stat().st_size for path in prepared.rglob("*.arrow"))
    estimate = (look("tiny", config, Machine()).row_bytes or 0.0) * sum(manifests["tiny"].counts.values())
    assert stored == pytest.approx(estimate, rel=0.3)


def test_wrong_settings_are_refused_whatever_the_data() -> None:
    config = settings(trees={"budgets": [10]})
    with pytest.raises(ValueError, match=r"trees\.budgets\[0\] 10"):
        plan(config, Machine(), timing=False)


def test_the_speed_is_measured_on_the_study_s_own_step(tiny: tuple[Config, dict[str, DatasetManifest]]) -> None:
    config, manifests = tiny
    speed = measured_speed(config, shared_spec(config, manifests), manifests, Machine(threads=1, gpu=False))
    height, width = manifests["tiny"].size
    assert 1e7 < speed.flops < 1e13
    assert f"of {height} x {width}" in speed.where


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.4, "12 s"), (90, "1.5 min"), (3600 * 41, "41.0 h"), (86400 * 3.5, "3.5 days")],
)
def test_times_are_said_in_the_unit_that_people_plan_in(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(3, "3 B"), (4_500, "4.5 kB"), (17_100_000_000, "17.1 GB"), (2_000_000_000_000, "2.0 TB")]
)
def test_sizes_are_said_in_the_unit_that_disks_are_sold_in(number: float, text: str) -> None:
    assert bytes_text(number) == text
