"""Which machines see the same folders, and that `prepare` stays on this one where they do not."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import parts, runner
from pipeline.artifacts import read_manifests
from pipeline.config import ROOT
from pipeline.machine import Machine
from pipeline.preparing import declare, prepare_dataset
from pipeline.visibility import holds, strangers
from tests.pipeline.cases import settings
from tests.pipeline.number_source import Numbers, rows


def seen_as(**view: Any) -> Callable[[Callable[[Any], Any], Any], dict[str, Any]]:
    """A cluster of this machine, and one that sees something in place of what is asked for."""
    return lambda function, argument: {"here": function(argument), "10.0.0.3": function(replace(argument, **view))}


def plant(folder: Path) -> Path:
    for name in ("train/cat/1.jpg", "val/cat/2.jpg", "labels.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_who_sees_all_is_no_stranger(tmp_path: Path) -> None:
    folder, root = tmp_path / "artifacts" / "kept", plant(tmp_path / "data")
    for source in (root, root / "labels.csv", None):
        assert strangers(folder, source, seen_as()) == {}
    assert not list(folder.iterdir())
    copy = shutil.copytree(root, tmp_path / "copy")
    assert strangers(folder, root, seen_as(root=copy)) == {}, "a copy at every machine's place is as good"


def test_who_sees_another_folder_is_one(tmp_path: Path) -> None:
    folder, root = tmp_path / "kept", plant(tmp_path / "data")
    assert strangers(folder, root, seen_as(folder=tmp_path / "other")) == {"10.0.0.3": folder}
    assert strangers(folder, root, seen_as(root=tmp_path / "nowhere")) == {"10.0.0.3": root}
    other = shutil.copytree(root, tmp_path / "copy")
    (other / "labels.csv").write_text("a longer table")
    table = root / "labels.csv"
    assert strangers(folder, table, seen_as(root=other / "labels.csv")) == {"10.0.0.3": table}
    shutil.rmtree(other / "val")
    assert strangers(folder, root, seen_as(root=other)) == {"10.0.0.3": root}


@pytest.mark.parametrize("text", ["", "[", "{}", '{"tiny": {}}', '{"tiny": {"fingerprint": "other"}}'])
def test_a_manifest_that_does_not_name_the_data_is_not_theirs(prepared: Path, tmp_path: Path, text: str) -> None:
    shutil.copytree(prepared / "tiny", tmp_path / "tiny")
    (tmp_path / "manifest.json").write_text(text)
    assert not holds(tmp_path, "tiny", "abc")


def test_a_manifest_without_its_shards_holds_nothing(prepared: Path, tmp_path: Path) -> None:
    fingerprint = read_manifests(prepared)["tiny"].fingerprint
    assert holds(prepared, "tiny", fingerprint)
    assert not holds(prepared, "tiny", "0" * 16)
    assert not holds(prepared, "twin", fingerprint)
    shutil.copytree(prepared, tmp_path / "mine")
    shutil.rmtree(tmp_path / "mine" / "tiny" / "test")
    assert not holds(tmp_path / "mine", "tiny", fingerprint)


def test_prepare_stays_here_where_a_machine_sees_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says so, and what is stored is what a machine without a cluster stores."""
    asked: list[Machine] = []

    def everywhere(function: Callable[[Any], Any], argument: Any, machine: Machine) -> dict[str, Any]:
        asked.append(machine)
        return seen_as(folder=tmp_path / "other")(function, argument)

    monkeypatch.setattr(runner, "everywhere", everywhere)
    monkeypatch.setattr(runner, "spread", None)
    monkeypatch.setattr(parts, "in_processes", _here)
    config, source, said = settings({"images": None}), Numbers(rows(60)), list[str]()
    stored = []
    for name, machine in {"cluster": Machine(address="auto", prepare_workers=64), "alone": Machine()}.items():
        manifest = declare("tiny", config, source)
        stored.append(prepare_dataset(manifest, source, config, machine, tmp_path / name, said.append))
    assert stored[0] == stored[1]
    assert [machine.address for machine in asked] == ["auto"]
    lines = [line for line in said if "10.0.0.3" in line]
    assert lines == [
        f"tiny: machine 10.0.0.3 does not see {tmp_path}/cluster/.kept/tiny as it is here: on this machine alone"
    ]


def _here(function: Callable[[Any, Any], Any], shared: Any, items: Any, workers: int, _: int) -> Any:
    assert workers < 64, "so many tasks are for a cluster"
    return ((index, function(shared, item)) for index, item in enumerate(items))


def test_asking_takes_no_time_and_no_torch(tmp_path: Path) -> None:
    """It runs in a fresh process on every machine."""
    program = "import sys, pipeline.visibility; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    root, started = plant(tmp_path / "data"), time.process_time()
    for _ in range(10):
        strangers(tmp_path / "kept", root, seen_as())
    assert (time.process_time() - started) / 10 < 0.1
