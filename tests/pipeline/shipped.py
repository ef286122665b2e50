"""Two prepared data sets of several shards each, and processes that ship them."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pipeline import shard_writing
from pipeline.artifacts import read_manifests, shards, write_manifests
from pipeline.config import ROOT, Config
from pipeline.machine import Machine
from pipeline.preparing import declare, prepare_dataset
from tests.pipeline.cases import settings
from tests.pipeline.number_source import Numbers, rows

NAMES = ("tiny", "twin")
SPLITS = ("train", "val", "test")
# A slow copy that writes down what it copies, so that a test may count, and kill in the middle.
PATCHED = """
import json, sys, time
from pathlib import Path
from pipeline import shipping

log, slow, function, arguments = sys.argv[1], float(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
def watched(inner, place):
    def call(*given):
        time.sleep(slow)
        done = inner(*given)
        with open(log, "a") as file:
            file.write(f"{given[place]}\\n")
        return done
    return call
shipping.upload = watched(shipping.upload, 2)
shipping.download = watched(shipping.download, 2)
if function == "publish":
    shipping.publish(Path(arguments[0]), arguments[1], arguments[2], print)
else:
    print(shipping.obtain(arguments[0], Path(arguments[1]), *arguments[2:]))
"""


def store(folder: Path) -> Path:
    """Prepare two data sets of about ten shards each in a folder."""
    config, manifests = two(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_writing, "ROWS", 8)
        for name, count in zip(NAMES, (60, 70), strict=True):
            source = Numbers(rows(count))
            declared, machine = declare(name, config, source), Machine(prepare_workers=1)
            manifests.append(prepare_dataset(declared, source, config, machine, folder, lambda _: None))
    write_manifests(folder, manifests)
    return folder


def two() -> Config:
    data = {"reader": "scenes", "size": (32, 32), "val": 0.2, "test": 0.2}
    return settings(datasets=dict.fromkeys(NAMES, data))


def wanted(prepared: Path, names: Sequence[str] = NAMES) -> dict[str, str]:
    """Fingerprints by name."""
    return {name: read_manifests(prepared)[name].fingerprint for name in names}


def content(folder: Path, names: Sequence[str] = NAMES) -> dict[str, bytes]:
    """The shards that a job reads in a folder, in the order in which it reads them."""
    paths = [path for name in names for split in SPLITS for path in shards(name, split, folder)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def publishing(prepared: Path, storage: str, log: Path, slow: float = 0.0) -> subprocess.Popen[str]:
    """Start a process that publishes both data sets."""
    return _start("publish", [str(prepared), storage, NAMES], log, slow)


def obtaining(
    datasets: Mapping[str, str], prepared: Path, storage: str, cache: Path, log: Path, slow: float = 0.0
) -> subprocess.Popen[str]:
    """Start a process that obtains data sets and prints their folder."""
    return _start("obtain", [datasets, str(prepared), storage, str(cache)], log, slow)


def _start(function: str, arguments: object, log: Path, slow: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", PATCHED, str(log), str(slow), function, json.dumps(arguments)]
    # A process group of its own: what is killed is killed alone.
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
