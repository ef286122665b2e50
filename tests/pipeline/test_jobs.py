"""A job's key names its result: it follows all that can change it, and nothing else. Storage holds whole files only."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.branch_tree import BranchTree
from models.spec import Column
from pipeline import jobs
from pipeline.artifacts import DatasetManifest
from pipeline.config import Config
from pipeline.jobs import TrainJob, model_spec, sources_digest, task_specs, train_job, usable_ranks
from pipeline.storage import JobFolder, StorageFailed
from tests.pipeline.cases import make_job, settings

MANIFEST = DatasetManifest(
    name="tiny",
    counts={"train": 40, "val": 10, "test": 10},
    size=(32, 32),
    columns={
        "scene": Column(layout="class", classes=("in", "out")),
        "depth": Column(layout="field", scale=0.001, unit="m"),
        "segmentation": Column(layout="mask", classes=("floor", "wall")),
    },
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.2, 0.2),
    fingerprint="f00d",
    licence="none",
)
JOB = make_job({"tiny": MANIFEST})


def test_the_same_job_twice_is_one_job() -> None:
    assert make_job({"tiny": MANIFEST}).key == JOB.key
    assert len(JOB.key) == 16


def test_the_name_does_not_count() -> None:
    assert replace(JOB, name="another").key == JOB.key


@pytest.mark.parametrize(
    "change",
    [
        lambda job: replace(job, seed=1),
        lambda job: replace(job, datasets=(("tiny", "beef", 1.0, 8),)),
        lambda job: replace(job, datasets=(("tiny", "f00d", 2.0, 8),)),
        lambda job: replace(job, datasets=(("tiny", "f00d", 1.0, 4),)),
        lambda job: replace(job, draws=2),
        lambda job: replace(job, train=job.train.model_copy(update={"lr": 0.02})),
        lambda job: replace(job, train=job.train.model_copy(update={"clip": 0.5})),
        lambda job: replace(job, model=replace(job.model, groups=BranchTree.split(2, 4).groups)),
        lambda job: replace(job, model=replace(job.model, mean=(0.1, 0.5, 0.6))),
        lambda job: replace(job, model=replace(job.model, tasks=tuple(reversed(job.model.tasks)))),
        lambda job: replace(job, reference=(("depth", 0.1), ("scene", 0.5))),
    ],
)
def test_all_that_can_change_a_result_counts(change: Callable[[TrainJob], TrainJob]) -> None:
    assert change(JOB).key != JOB.key


def test_the_programs_own_text_counts(tmp_path: Path) -> None:
    assert sources_digest() == sources_digest()
    for name in ("models/heads.py", "pipeline/loop.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    before = sources_digest(tmp_path)
    (tmp_path / "models/heads.py").write_text("x = 2\n")
    sources_digest.cache_clear()
    assert sources_digest(tmp_path) != before


def test_a_single_task_job_is_independent_of_other_tasks() -> None:
    """Adding a task to params.yaml must train that task alone."""
    keys = []
    for names in (("scene", "depth"), ("segmentation", "scene")):
        config = settings(tasks=names)
        task = next(task for task in task_specs(config, {"tiny": MANIFEST}) if task.name == "scene")
        spec = model_spec(config, {"tiny": MANIFEST}, [task], ((0,),) * 4)
        keys.append(train_job(config, {"tiny": MANIFEST}, spec, name="scene", seed=0).key)
    assert keys[0] == keys[1]


def test_several_tasks_need_a_reference_each() -> None:
    with pytest.raises(ValueError, match="single-task reference"):
        replace(JOB, reference=(("scene", 0.5),))


def test_a_missing_column_is_named_with_the_nearest() -> None:
    raw = settings(tasks=("scene", "depth")).model_dump()
    raw["tasks"]["scene"]["column"] = "scenes"
    raw["tasks"]["depth"]["column"] = "zzz"
    with pytest.raises(ValueError) as caught:
        task_specs(jobs.Config.model_validate(raw), {"tiny": MANIFEST})
    first, second = str(caught.value).splitlines()
    assert "tasks.scene.column" in first
    assert "no column 'scenes'" in first
    assert "Did you mean scene?" in first
    assert "tasks.depth.column" in second
    assert "Use one of scene, depth, segmentation" in second


def two_sets(size: tuple[int, int], **dataset: Any) -> tuple[Config, dict[str, DatasetManifest]]:
    """`scene` on the tiny set, `depth` and `segmentation` on another of its own size."""
    raw = settings(tasks=("scene", "depth", "segmentation")).model_dump()
    raw["datasets"]["other"] = raw["datasets"]["tiny"] | {"size": size} | dataset
    raw["tasks"]["depth"]["dataset"] = raw["tasks"]["segmentation"]["dataset"] = "other"
    return Config.model_validate(raw), {"tiny": MANIFEST, "other": replace(MANIFEST, name="other", size=size)}


def test_where_data_sets_differ_in_size_every_network_takes_all_sizes() -> None:
    config, manifests = two_sets((24, 64))
    tasks = task_specs(config, manifests)
    shared = model_spec(config, manifests, tasks, BranchTree.shared(3, 4).groups)
    assert (shared.backbone.size, shared.backbone.dynamic) == ((32, 64), True)
    assert [task.size for task in shared.tasks] == [(32, 32), (24, 64), (24, 64)]
    alone = model_spec(config, manifests, tasks[:1], ((0,),) * 4)
    assert alone.backbone == shared.backbone, "so that its weights and features fit the shared network's"
    assert alone.tasks == shared.tasks[:1]


def test_where_data_sets_agree_in_size_nothing_is_dynamic() -> None:
    config, manifests = two_sets((32, 32))
    shared = model_spec(config, manifests, task_specs(config, manifests), BranchTree.shared(3, 4).groups)
    assert (shared.backbone.size, shared.backbone.dynamic) == ((32, 32), False)
    assert {task.size for task in shared.tasks} == {None}


def test_a_data_set_has_a_batch_of_its_own_or_the_studys() -> None:
    config, manifests = two_sets((32, 32), batch=2)
    spec = model_spec(config, manifests, task_specs(config, manifests), BranchTree.shared(3, 4).groups)
    job = train_job(config, manifests, spec, name="all", seed=0, reference=dict.fromkeys(spec.task_names, 1.0))
    assert job.batches == (config.train.batch, 2)
    other = config.train.model_copy(update={"batch": 5})
    job = train_job(config, manifests, spec, name="all", seed=0, reference=dict(job.reference), train=other)
    assert job.batches == (5, 2)


def test_a_network_may_hold_tasks_that_it_is_not_trained_on() -> None:
    config, manifests = two_sets((32, 32))
    spec = model_spec(config, manifests, task_specs(config, manifests), BranchTree.shared(3, 4).groups)
    reference = dict.fromkeys(spec.task_names, 1.0)
    one = train_job(config, manifests, spec, name="one", seed=0, on=["tiny"])
    assert [name for name, *_ in one.datasets] == ["tiny"]
    assert one.trained == ("scene",)
    two = train_job(config, manifests, spec, name="two", seed=0, on=["other"], reference=reference)
    assert two.trained == ("depth", "segmentation")
    assert dict(two.reference).keys() == {"depth", "segmentation"}
    with pytest.raises(ValueError, match="several tasks need a single-task reference for each"):
        train_job(config, manifests, spec, name="two", seed=0, on=["other"])


def test_normalisation_is_the_mean_over_data_sets() -> None:
    raw = settings(tasks=("scene", "depth")).model_dump()
    raw["datasets"]["other"] = raw["datasets"]["tiny"]
    raw["tasks"]["depth"]["dataset"] = "other"
    config = jobs.Config.model_validate(raw)
    manifests = {"tiny": MANIFEST, "other": replace(MANIFEST, name="other", mean=(0.6, 0.5, 0.4))}
    spec = model_spec(config, manifests, task_specs(config, manifests), BranchTree.shared(2, 4).groups)
    assert spec.mean == pytest.approx((0.5, 0.5, 0.5))
    job = train_job(config, manifests, spec, name="both", seed=0, reference={"scene": 1.0, "depth": 1.0})
    assert [name for name, *_ in job.datasets] == ["tiny", "other"]


def test_storage_gives_back_what_was_written(tmp_path: Path) -> None:
    folder = JobFolder(str(tmp_path), "abc")
    assert folder.read("result.json") is None
    assert folder.read_result() is None
    assert folder.read_history() == []
    folder.write_result({"score": 1.5})
    folder.write_result({"score": 2.5})
    folder.write_history([{"epoch": 1}, {"epoch": 2}])
    assert folder.read_result() == {"score": 2.5}
    assert folder.read_history() == [{"epoch": 1}, {"epoch": 2}]
    assert sorted(path.name for path in Path(folder.path).iterdir()) == ["history.jsonl", "result.json"]


def test_a_half_written_file_is_never_read(tmp_path: Path) -> None:
    """A killed writer leaves a `.part` beside the old file, or alone."""
    folder = JobFolder(str(tmp_path), "abc")
    folder.write("bundle/spec.json", b"whole")
    (Path(folder.path) / "bundle" / "weights.safetensors.17.part").write_bytes(b"ha")
    (Path(folder.path) / "result.json.17.part").write_bytes(b"{")
    assert folder.read_result() is None
    folder.download("bundle", tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["spec.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    folder, full = JobFolder(str(tmp_path), "abc"), JobFolder(str(tmp_path), "abc")
    folder.write("checkpoint.pt", b"old")
    system, path = folder._place
    full.__dict__["_place"] = _Full(system), path
    with pytest.raises(StorageFailed, match=r"no space left to write checkpoint.pt, 3 bytes"):
        full.write("checkpoint.pt", b"new")
    assert folder.read("checkpoint.pt") == b"old"


class _Full:
    """A file system on a disk that is full."""

    def __init__(self, inner: object) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def open_output_stream(self, path: str) -> object:
        Path(path).write_bytes(b"n")
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("most", range(1, 10))
@pytest.mark.parametrize(
    ("batch", "images", "draws"), [(8, None, 1), (3, None, 1), (8, 2, 1), (6, 3, 1), (8, None, 6), (2, None, 4)]
)
def test_a_job_takes_the_most_workers_that_can_share_its_batches(
    batch: int, images: int | None, draws: int, most: int
) -> None:
    """By trying: rows are dealt out in turn, none goes without, and a group of images is never torn."""

    def shares(world: int) -> bool:
        if draws > 1:
            return len({len(range(rank, draws, world)) for rank in range(world)}) == 1
        ranks = [range(rank, batch, world) for rank in range(world)]
        groups = batch // (images or 1)
        counts = {sum(row % groups == group for row in rows) for rows in ranks for group in range(groups)}
        return all(ranks) and (images is None or counts <= {0, images})

    job = replace(make_job({"tiny": MANIFEST}, batch=batch, norm_images=images), draws=draws)
    assert usable_ranks(job, most) == max(world for world in range(1, most + 1) if shares(world))


def test_no_workers_are_no_workers() -> None:
    assert usable_ranks(JOB, 0) == 0
