"""Whatever stands in params.yaml or machine.yaml gives settings, or one message that names the file and the line."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline.config import ROOT, load
from pipeline.machine import load_machine, root_of
from tests.fuzz.mutations import BYTE_EDITS, TREE_EDITS, Edit, edited_bytes, edited_tree
from tests.fuzz.watching import confined

PRESETS = ("smoke", "fashion", "exhaustive", "nyuv2", "decathlon_small", "mthl_small")
MACHINE = """\
# one of everything
address: auto
jobs: 0
workers: [2, 8]
gpu: true
cpus_per_worker: 2
gpus_per_worker: 0.5
loader_workers: 4
prepare_workers: 8
threads: 1
channels_last: false
compile: false
max_failures: 3
stuck_seconds: 600
checkpoint_seconds: 60
checkpoints: 2
storage: s3://bucket/runs
cache: ~/.cache/coppice
tracking_uri: http://localhost:5000
roots: {scenes: data/scenes, rooms: ~/rooms}
"""


@cache
def good(name: str) -> bytes:
    return MACHINE.encode() if name == "machine" else (ROOT / f"presets/{name}.yaml").read_bytes()


@cache
def tree(name: str) -> Any:
    return YAML(typ="safe").load(good(name))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings")


def read_params(path: Path) -> None:
    config, machine = load(path), load_machine(path.with_name("none.yaml"))
    json.dumps(config.model_dump(), allow_nan=False)
    for name in config.datasets:
        root_of(name, config, machine, path.parent)


def read_machine(path: Path) -> None:
    machine = load_machine(path)
    json.dumps(machine.model_dump(), allow_nan=False)


def check(read: Callable[[Path], None], folder: Path, data: bytes) -> None:
    """`read` takes the file, or says in one message which file, and where in it."""
    path = folder / ("params.yaml" if read is read_params else "machine.yaml")
    path.write_bytes(data)
    try:
        with confined(folder):
            read(path)
    except ValueError as error:
        lines = str(error).split("\n")
        named = rf"({re.escape(str(path))}:\d+:? |datasets\..*\.root ).*"
        assert all(re.fullmatch(named, line) for line in lines), str(error)[:500]
        assert len(str(error)) < 100_000


@given(name=st.sampled_from(PRESETS), changes=TREE_EDITS)
def test_params_with_other_values(folder: Path, name: str, changes: list[Edit]) -> None:
    check(read_params, folder, json.dumps(edited_tree(tree(name), changes)).encode())


@given(name=st.sampled_from(PRESETS), changes=BYTE_EDITS)
def test_params_with_other_letters(folder: Path, name: str, changes: list[Edit]) -> None:
    check(read_params, folder, edited_bytes(good(name), changes))


@given(changes=TREE_EDITS)
def test_machine_with_other_values(folder: Path, changes: list[Edit]) -> None:
    check(read_machine, folder, json.dumps(edited_tree(tree("machine"), changes)).encode())


@given(changes=BYTE_EDITS)
def test_machine_with_other_letters(folder: Path, changes: list[Edit]) -> None:
    check(read_machine, folder, edited_bytes(good("machine"), changes))
