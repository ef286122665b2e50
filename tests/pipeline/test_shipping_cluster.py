"""Two Ray nodes that do not see each other's disks train one network together."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import ROOT
from tests import ray_nodes as cluster
from tests.pipeline.fault_study import study
from tests.ray_nodes import Nodes, ray_nodes, why_not

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Iterator[Nodes]:
    """Two machines of one CPU each; the second has an empty disk where the first has the prepared data."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("ray")
    elsewhere = folder / "ray"
    elsewhere.write_text(f"#!/bin/sh -e\nmount -t tmpfs none '{prepared}'\nexec '{cluster.RAY}' \"$@\"\n")
    elsewhere.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch, ray_nodes(folder, nodes=1, cpus=1) as started:
        patch.setattr(cluster, "RAY", elsewhere)  # a namespace of `ip netns exec` has mounts of its own
        started.start(1)
        yield started


def train(prepared: Path, nodes: Nodes, storage: Path, cache: Path) -> str:
    """What a driver on the first machine says while a job of two workers, one a machine, trains for an epoch."""
    settings = {"storage": str(storage), "cache": str(cache), "workers": 2, "address": nodes.cluster}
    command = [sys.executable, "-m", "tests.pipeline.fault_study", prepared, 1, 1, json.dumps(settings)]
    inside = nodes.inside(0, command)
    done = subprocess.run(inside, cwd=ROOT, env=nodes.environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_the_machine_that_lacks_the_data_fetches_them(prepared: Path, nodes: Nodes, tmp_path: Path) -> None:
    storage, cache = tmp_path / "storage", tmp_path / "cache"
    (job,) = study(prepared, 1, 1)
    ((name, fingerprint, *_),) = job.datasets
    said = train(prepared, nodes, storage, cache)
    assert f"1 of 2 machines do not see {prepared}: they fetch data from {storage}" in said
    assert "job 0 done" in said, said
    for fetched in (storage, cache):
        shards = {path.name for path in (fetched / "data" / fingerprint / "train").iterdir()}
        assert shards == {path.name for path in (prepared / name / "train").iterdir()}
    assert (storage / "jobs" / job.key / "result.json").exists()


def test_a_storage_that_only_one_machine_sees_is_refused(prepared: Path, nodes: Nodes, tmp_path: Path) -> None:
    said = train(prepared, nodes, prepared / "storage", tmp_path / "cache")
    assert f"machine.yaml storage {prepared / 'storage'} is not seen by {nodes.address(1)} " in said
    assert "give a folder that all machines share" in said
