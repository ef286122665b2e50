"""What a training stage says on the way."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pipeline.artifacts import DatasetManifest
from pipeline.datasets.scenes import COLUMNS
from pipeline.terminal import PLAN_UNTOLD
from stages import training
from stages.session import Session
from stages.training import progress
from tests.pipeline.cases import make_job

MANIFEST = DatasetManifest(
    name="tiny",
    counts={"train": 8},
    size=(32, 32),
    columns=COLUMNS,
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
    fingerprint="0",
    licence="none",
)


class Said:
    """What stands in for a session: its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.progress = self.lines.append


def test_progress_counts_networks_and_names_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three networks one is done, another has an epoch of two behind it; ten seconds an epoch."""
    clock = iter([0.0, 10.0, 20.0, 30.0])
    monkeypatch.setattr(training.time, "monotonic", lambda: next(clock))
    one, two = (make_job({"tiny": MANIFEST}, ["scene"], seed=seed, epochs=2) for seed in (1, 2))
    said = Said()
    tell = progress(cast(Session, said), {"done": 2, one.key: 2, two.key: 2}, {one.key: 1, two.key: 0})
    for job, epoch in ((one, 2), (two, 1), (two, 2)):
        tell(job, {"epoch": epoch, "val": {"scene": 0.5}})
    assert said.lines == [
        "2 of 3 networks, 20 s left  scene, epoch 2 of 2: scene 0.500",
        "2 of 3 networks, 10 s left  scene, epoch 1 of 2: scene 0.500",
        "3 of 3 networks, 0 s left  scene, epoch 2 of 2: scene 0.500",
    ]


def test_the_plan_is_told_by_the_first_stage_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    untold = tmp_path / "untold"
    untold.touch()
    monkeypatch.setattr(training, "plan_line", lambda *_: "3 trees\n2 networks")
    monkeypatch.setattr(training, "read_manifests", dict)
    monkeypatch.setenv(PLAN_UNTOLD, str(untold))
    session = cast(Session, SimpleNamespace(config=None, machine=None))
    for _ in range(2):
        training._tell_plan(session)
    monkeypatch.delenv(PLAN_UNTOLD)
    training._tell_plan(session)
    assert capsys.readouterr().out == "plan       3 trees\n           2 networks\n"
