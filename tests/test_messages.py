"""What people read when something is wrong: what, where, why, and one thing to do. Each cause is run, or played.

What others have stumbled over and can't happen here:
- An unlabelled pixel of 255 that crashes a loss: 255 is unlabelled everywhere.
- `1e-3` read as text: settings are YAML 1.2. In quotes it is refused, see below.
- Ranks that report unequally often and wait for ever: a step's draws follow from its number, not from a loader's end.
- A checkpoint of other settings taken up: a job's folder is named by a digest of all that decides its result.
- A Swin made for another image size: networks are made for the size of the data sets.
"""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from models.adaptation.lora import lora
from pipeline import loop, one_job, runner, travelling
from pipeline.artifacts import read_json, read_manifests
from pipeline.config import ROOT, Affinity, Config, load
from pipeline.machine import Machine
from pipeline.one_job import run_job
from pipeline.preflight import check_study, remarks
from pipeline.preparing import declare, open_source
from pipeline.probe import fewer_images
from pipeline.shipping import ready_cluster
from pipeline.spool import Where
from pipeline.tracker import Tracker
from stages import repro
from tests.pipeline.cases import DECODING, QUIET, cut_short, make_job, prepare, settings, site
from tests.pipeline.test_config import GOOD

pytestmark = pytest.mark.filterwarnings(DECODING)
TREES = {"budgets": ["2x"]}


@dataclass(frozen=True)
class At:
    """Where a cause is run: an empty folder, which is the working one, and a data set that is prepared."""

    folder: Path
    prepared: Path
    patch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def says(self, said: str | None, *pieces: str) -> None:
        """A message holds all pieces, in which FOLDER stands for the folder."""
        assert said, "something was wrong, and nothing was said"
        missing = [piece for piece in pieces if piece.replace("FOLDER", str(self.folder)) not in said]
        assert not missing, said
        assert not re.search(r"Traceback|object at 0x", said)

    @contextmanager
    def refused(self, *pieces: str) -> Iterator[None]:
        """The block ends in the error that commands print as such a message."""
        with pytest.raises(ValueError) as caught:
            yield
        self.says(str(caught.value), *pieces)

    def machine(self, **changes: Any) -> Machine:
        return Machine(**{"storage": str(self.folder / "runs"), **changes})

    def train(self, *tasks: str, **train: Any) -> str | None:
        job = make_job(read_manifests(self.prepared), tasks or ("scene",), **train)
        return run_job(job, site(self.prepared, self.folder), None)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, config = tmp_path_factory.mktemp("prepared"), settings()
    prepare(folder, open_source("tiny", config, Machine()), config)
    return folder


@pytest.fixture
def at(
    tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[At]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield At(tmp_path, prepared, monkeypatch, capsys)
    sys.modules.pop("birds", None)


# Settings


def loaded(at: At, *changes: tuple[str, str]) -> None:
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (at.folder / "params.yaml").write_text(text)
    load(at.folder / "params.yaml")


def test_misspelt_keys_and_kinds_all_at_once(at: At) -> None:
    with at.refused(
        "params.yaml:5 tasks.scene.kind: no task kind 'segmnt'. Did you mean segmentation?",
        "params.yaml:6 backbone.nmae: unknown key. Did you mean name?",
        "params.yaml:8 train.lrr: unknown key. Did you mean lr?",
    ):
        loaded(at, ("lr:", "lrr:"), ("{name:", "{nmae:"), ("kind: classification", "kind: segmnt"))


def test_a_number_in_quotes(at: At) -> None:
    with at.refused("params.yaml:8 train.lr: ", "'1e-3' is text: remove the quotes"):
        loaded(at, ("1e-3", "'1e-3'"))


# Data


def prepare_table(at: At, mask: Image.Image, there: int = 7) -> None:
    """Prepare a manifest of seven pictures, some of which are there, with one mask for all."""
    (at.folder / "img").mkdir()
    mask.save(at.folder / "mask.png")
    for number in range(1, there + 1):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(at.folder / f"img/{number}.png")
    lines = ["image,parts:mask:wall|floor", *(f"img/{number}.png,mask.png" for number in range(1, 8))]
    (at.folder / "labels.csv").write_text("\n".join(lines) + "\n")
    config = settings({"reader": "manifest", "root": "labels.csv", "images": None})
    prepare(at.folder / "out", open_source("tiny", config, Machine()), config)


def test_images_that_are_missing(at: At) -> None:
    with at.refused(
        "data set tiny: 5 of 7 rows are bad; first 5:",
        "labels.csv row 3: img/3.png: image img/3.png not found (looked in FOLDER)",
        "Mend them, or set prepare.on_bad: skip",
    ):
        prepare_table(at, Image.new("L", (32, 32)), there=2)


def test_a_label_out_of_range(at: At) -> None:
    mask = Image.fromarray(np.pad(np.array([[20]], dtype=np.uint8), (0, 31)))
    with at.refused(
        "labels.csv row 1", "FOLDER/mask.png: 1 pixels are out of range, with values up to 20", "store 255"
    ):
        prepare_table(at, mask)


def test_a_mask_drawn_in_colours(at: At) -> None:
    with at.refused(
        "labels.csv row 1", "FOLDER/mask.png: mode RGB, but one channel", "'parts:mask:road=#804080|sky=#4682b4'"
    ):
        prepare_table(at, Image.new("RGB", (32, 32), "red"))


READER = """\
from pipeline.datasets import Example, Row, Source
class Birds(Source):
    licence = "ours"
    def columns(self): return {}
    def rows(self): return [Row(id=str(i), origin=f"bird {i}", group=str(i)) for i in range(NUMBER)]
    def load(self, row): LOAD
"""


@pytest.mark.parametrize(
    ("number", "load", "pieces"),
    [
        (
            "9",
            "return {}['wings']",
            (
                "9 of 9 rows are bad",
                "bird 0: datasets.tiny.reader: birds:Birds: load fails: FOLDER/birds.py:6: KeyError: 'wings'",
                "prepare.on_bad: skip",
            ),
        ),
        ("1 // 0", "pass", ("datasets.tiny.reader: birds:Birds: rows fails: FOLDER/birds.py:5: ZeroDivisionError",)),
        ("9", "pass", ("bird 0: ", "birds:Birds: load gives a NoneType, but an Example is expected")),
        (
            "9",
            "return Example(image=None, labels={})",
            ("bird 0: ", "birds:Birds: load gives an image object [], but uint8 [H, W, 3] is expected"),
        ),
    ],
    ids=["a row", "the list", "nothing", "no image"],
)
def test_an_own_reader_that_fails(at: At, number: str, load: str, pieces: tuple[str, ...]) -> None:
    (at.folder / "birds.py").write_text(READER.replace("NUMBER", number).replace("LOAD", load))
    config = settings({"reader": "birds:Birds", "images": None})
    with at.refused(*pieces):
        prepare(at.folder / "out", open_source("tiny", config, Machine()), config)


# Networks and budgets


def check(tasks: tuple[str, ...] = ("scene", "depth"), size: tuple[int, int] = (32, 32), **sections: Any) -> None:
    config = settings({"size": size}, tasks, **{"taps": {"lams": []}, **sections})
    check_study(config, {"tiny": declare("tiny", config, open_source("tiny", config, Machine()))})


def test_images_too_small_for_a_backbone(at: At) -> None:
    with at.refused(
        "params.yaml datasets.tiny.size: test_convnext can't take images of [16, 16]", "take a larger size"
    ):
        check(size=(16, 16), backbone={"name": "test_convnext", "locations": 4})


def test_an_unknown_backbone(at: At) -> None:
    with at.refused("backbone.name 'resnt50' is no timm network. Close: ", "resnet50"):
        check(backbone={"name": "resnt50"})


def test_weights_that_are_not_there(at: At) -> None:
    def away(*_: Any, **_more: Any) -> NoReturn:
        raise OSError("no route to host")

    at.patch.setattr(timm, "create_model", away)
    with at.refused(
        "backbone.pretrained: the weights of test_resnet are neither in the local cache nor reachable",
        "(no route to host)",
        "set backbone.pretrained: false, or fetch them once",
    ):
        check(backbone={"name": "test_resnet", "pretrained": True})


def test_a_budget_below_the_smallest_network(at: At) -> None:
    with at.refused(
        "params.yaml trees.budgets[0] 1000: 1,000 params are fewer than the ", "the smallest there is; raise the budget"
    ):
        check(trees={"budgets": [1000]})


def test_more_trees_than_can_be_walked(at: At) -> None:
    at.patch.setattr("pipeline.preflight.EXHAUSTIVE_LIMIT", 100)
    with at.refused(
        "params.yaml trees.method: exhaustive: 4 tasks at 4 locations have 315 trees, more than the 100",
        "set trees.method: auto, or backbone.locations: 2 (60 trees)",
    ):
        check(("scene", "depth", "segmentation", "keypoints"), trees=TREES | {"method": "exhaustive"})


def test_more_sets_of_tasks_than_memory_holds(at: At) -> None:
    at.patch.setattr("models.exact_search.MOST_BYTES", 100)
    with at.refused("params.yaml trees.method: exact: 2 tasks at 4 locations need tables", "set trees.method: auto"):
        check(trees=TREES | {"method": "exact"})


def test_one_task(at: At) -> None:
    said = "\n".join(remarks(settings(tasks=("scene",))))
    at.says(said, "one task has nothing to share", "add a second under tasks, or adapt timm's weights to it")


def test_too_few_probe_images(at: At) -> None:
    said = fewer_images(12, Affinity())
    at.says(said, "12 probe images, all that validation has, in place of 500", "raise datasets.*.val")


def test_no_package_that_measures_detection(at: At) -> None:
    at.patch.setitem(sys.modules, "faster_coco_eval", None)
    raw = settings().model_dump()
    raw["tasks"]["boxes"] = {"kind": "detection", "dataset": "tiny"}
    with at.refused(
        "params.yaml tasks.boxes.kind: detection is measured by faster-coco-eval, which isn't installed", "make setup"
    ):
        check_study(Config.model_validate(raw), {})


def test_no_package_for_lora(at: At) -> None:
    at.patch.setitem(sys.modules, "peft", None)
    with at.refused("lora needs peft, which isn't installed: install the extra coppice[lora]"):
        lora(torch.nn.ModuleList(), {})


def test_no_single_task_result_to_compare_with(at: At) -> None:
    with at.refused("FOLDER/pretrain/metrics.json: missing; run `dvc repro`, which makes it"):
        read_json(at.folder / "pretrain" / "metrics.json")


# Training


def test_a_loss_that_is_no_number(at: At) -> None:
    at.says(
        at.train("scene", "depth", **QUIET | {"lr": 1e30}),
        "scene-depth: the loss of ",
        " is not finite at step ",
        "last good checkpoint: none. Try a lower train.lr or train.clip",
        "Here the rate was 1e+30 (adapted networks have theirs from taps.lrs or adapt.lrs), clip 0, seed 0",
        "make check-data shows the range of each task's labels",
    )


def test_memory_that_is_too_small(at: At) -> None:
    def full(*_: Any) -> NoReturn:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 3.06 MiB"
            " is free. Including non-PyTorch memory, this process has 79.09 GiB memory in use."
        )

    at.patch.setattr(one_job, "train", full)
    at.says(
        at.train(),
        "rank 0 of 1 on cpu: out of memory in steps of 8 images, 8 of them on each rank",
        "Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB",
        "Try train.batch: 4; or more workers in machine.yaml",
    )
    two = replace(site(at.prepared, at.folder), world=2, rank=1)
    with pytest.raises(RuntimeError, match=r"rank 1 of 2 on cpu: out of memory .* 4 of them on each rank"):
        run_job(make_job(read_manifests(at.prepared), ("scene",)), two, None)


def test_a_single_value_for_batch_statistics(at: At) -> None:
    at.says(
        at.train(**QUIET | {"batch": 1}),
        "rank 0 of 1 on cpu: batch statistics of a single value",
        "it sees 1 image at a time",
        "Raise train.batch",
        "datasets.*.size",
    )


def test_a_damaged_checkpoint(at: At) -> None:
    job, where = make_job(read_manifests(at.prepared), ("scene",), **QUIET), site(at.prepared, at.folder)
    cut_short(job, where, 3)
    newest = max((at.folder / "jobs" / job.key / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    list(loop.train(job, where))
    said = at.capsys.readouterr().err
    at.says(said, f"scene: {newest.name} damaged in FOLDER/jobs/{job.key}; goes on from step 2")


# Machines


def test_no_gpu_here(at: At) -> None:
    at.patch.setattr(torch.cuda, "is_available", lambda: False)
    at.patch.setattr(torch.backends.cuda, "is_built", lambda: True)
    at.patch.setenv("CUDA_VISIBLE_DEVICES", "")
    jobs = [make_job(read_manifests(at.prepared))]
    with at.refused(
        "machine.yaml gpu: true, but torch sees no GPU here (CUDA_VISIBLE_DEVICES= hides them: unset it)",
        "Set gpu: false to train on the CPU",
    ):
        runner.run_jobs(jobs, at.machine(gpu=True), at.prepared, lambda *_: None, None)


def play_ray(at: At, error: Exception | None = None, **parts: Any) -> None:
    """A stand-in for Ray, which is imported where it is used; it fails to start where there is an error."""

    def init(**_: Any) -> NoReturn:
        assert error is not None
        raise error

    at.patch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init, **parts))


def test_no_gpu_in_the_cluster(at: At) -> None:
    node = {"Alive": True, "Resources": {"CPU": 8.0}}
    play_ray(at, nodes=lambda: [node, node])
    with at.refused(
        "machine.yaml gpu: true, but none of the cluster's 2 machines has a GPU for Ray", "--num-gpus", "gpu: false"
    ):
        runner._room(at.machine(gpu=True, workers=2), site(at.prepared, at.folder, device="cuda"))


def test_no_room_in_the_cluster(at: At) -> None:
    play_ray(at, nodes=lambda: [{"Alive": True, "Resources": {"CPU": 1.0}}])
    with at.refused("machine.yaml workers: a job takes 2 of 1 CPU each", "has room for 1", "take fewer, or set"):
        runner._room(at.machine(workers=2), site(at.prepared, at.folder))


def test_a_cluster_that_does_not_start(at: At) -> None:
    play_ray(at, Exception("The current node timed out during startup. This could happen because\nof load."))
    with at.refused(
        "Ray could not start a cluster on this machine (The current node timed out during startup.",
        " cores). machine.yaml asks for one by jobs or workers: set jobs: 1 and workers: 0",
    ):
        runner.connect(at.machine(jobs=2))


def test_a_cluster_that_does_not_answer(at: At) -> None:
    play_ray(at, ConnectionError("Failed to connect to GCS."))
    with at.refused("machine.yaml address 10.0.0.1:6379: no Ray cluster answers", "connect to GCS.", "ray status"):
        runner.connect(at.machine(address="10.0.0.1:6379"))


def test_a_cluster_that_died_on_the_way(at: At) -> None:
    at.patch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    play_ray(at, ConnectionError("Failed to connect to GCS."))
    with at.refused("the cluster at 127.0.0.1:6379 does not answer any more", "the same command goes on from here"):
        runner.connect(at.machine(jobs=2))


def test_a_token_that_is_refused(at: At) -> None:
    refusal = type("AuthenticationError", (Exception,), {})
    play_ray(at, refusal("Ensure that the credentials for the cluster are set."))
    with at.refused(
        "machine.yaml address 10.0.0.1:6379: the Ray cluster refuses this machine's token (Ensure that",
        "RAY_AUTH_MODE=token",
        "RAY_AUTH_TOKEN_PATH",
        "docs/cluster.md#token",
    ):
        runner.connect(at.machine(address="10.0.0.1:6379"))


def test_sources_that_are_too_large_for_ray(at: At) -> None:
    play_ray(at, ValueError("Package size (600.00MiB) exceeds the maximum size of 512.00MiB. To exclude"))
    with at.refused("machine.yaml address auto: Package size (600.00MiB) exceeds the maximum size", ".gitignore"):
        runner.connect(at.machine(address="auto"))


def test_a_study_that_is_too_large_to_send(at: At) -> None:
    at.patch.setattr(travelling, "LIMIT_MB", 0.1)
    (at.folder / "pictures.bin").write_bytes(b"0" * 200_000)
    with at.refused("MB would be sent to the cluster; 0.1 is the most", ".gitignore", "0.2 MB  pictures.bin"):
        travelling.travelling(at.folder)


def test_a_storage_that_is_not_shared(at: At) -> None:
    def ask(function: Callable[[Any], Any], sought: Any) -> dict[str, Any]:
        elsewhere = replace(sought, storage=str(at.folder / "other"))
        return {"10.0.0.1": function(sought), "10.0.0.3": function(elsewhere)}

    with at.refused(
        "machine.yaml storage FOLDER/runs is not seen by 10.0.0.3 (", "a folder that all machines share, or s3://"
    ):
        ready_cluster(at.prepared, str(at.folder / "runs"), ["tiny"], ask, lambda _: None)


# Experiments and tracking


def test_no_commit_for_an_experiment(at: At) -> None:
    at.patch.setattr(repro, "revision", lambda: "none")
    said = repro._next(settings())
    at.says(said, "dvc exp run -S ", "It needs one commit first: git init && git add -A && git commit -m start")
    at.patch.setattr(repro, "revision", lambda: "3f2a91c")
    assert "commit" not in repro._next(settings())


def test_plots_without_a_network() -> None:
    """DVC draws with a library from the network and says nothing where there is none; where we name it, we do."""
    (line,) = [line for line in (ROOT / "docs/quickstart.md").read_text().splitlines() if "dvc plots show" in line]
    assert "loads from the network" in line


def tracked(at: At, uri: str, error: Exception) -> str:
    def away(_: str) -> NoReturn:
        raise error

    with Tracker(Where(uri=uri, spool=at.folder / "spool", experiment="e"), connect=away) as tracker:
        tracker.run("a", name="a", tags={}, params={}).finish({})
    return at.capsys.readouterr().err


def test_a_tracking_server_that_is_away(at: At) -> None:
    at.says(
        tracked(at, "http://mlflow:5000", ConnectionError("refused")),
        "tracking: http://mlflow:5000 not reachable (ConnectionError: refused); runs go on",
        "metrics are kept in FOLDER/spool",
        "send them later with: python -m pipeline.tracking",
    )


@pytest.mark.parametrize(
    ("said", "pieces"),
    [
        (
            "Detected out-of-date database schema (found version 4c30, but expected dc11). Take a backup of your",
            ("was made by an MLflow with another schema, 4c30: keep a copy of it and run `mlflow db upgrade` on it",),
        ),
        (
            "Can't locate revision identified by 'ffff'",
            ("was made by a newer MLflow, whose schema ffff the one here does not know", "set tracking_uri"),
        ),
    ],
    ids=["older", "newer"],
)
def test_a_database_of_another_mlflow(at: At, said: str, pieces: tuple[str, ...]) -> None:
    """MLflow's own words, as 3.17 has them."""
    at.says(tracked(at, "sqlite:///mlflow.db", RuntimeError(said)), "tracking: sqlite:///mlflow.db was", *pieces)
