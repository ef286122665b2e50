"""Whatever stands in a bundle's folder, loading gives a network, or an error that names the file; it never allocates
what the weights do not hold, and never runs or imports what a spec names.
"""

import json
import shutil
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import bundle
from models.sharing.adapted import AdaptedModel
from models.sharing.branched import BranchedModel
from models.sharing.moe import MoeModel
from models.sharing.taps import TapsModel
from models.spec import BackboneSpec, ModelSpec
from tests.fuzz.mutations import BYTE_EDITS, TREE_EDITS, Edit, edited_bytes, edited_tree
from tests.fuzz.watching import confined
from tests.models.task_cases import spec as task_spec
from tests.models.test_expert_growth import build_base, join, learn

KINDS = ("branched", "taps", "adapted", "moe", "grown")
SIZE = (32, 32)
EXPENSIVE = 8  # most of these inputs are built, which takes a tenth of a second


def save(kind: str, folder: Path) -> None:
    """The smallest network of a kind."""
    torch.manual_seed(0)
    if kind == "grown":
        base = build_base(0)
        bundle.save(join(base, [learn(base, "c", "both")]), folder)
        return
    tasks = tuple(task_spec(task, name=task, head_width=4) for task in ("classification", "depth"))
    backbone = BackboneSpec(name="test_resnet", locations=2, size=SIZE)
    more: dict[str, Any] = {"groups": ((0, 0), (0, 1))}
    if kind == "adapted":
        tasks, more = tasks[:1], {"settings": (("method", "series_adapters"),)}
    elif kind == "moe":
        backbone = BackboneSpec(name="test_vit", locations=2, size=SIZE)
        more = {"settings": (("experts", 2), ("placement", ("*",)), ("top_k", 1))}
    elif kind == "taps":
        more = {}
    spec = ModelSpec(strategy=kind, backbone=backbone, tasks=tasks, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), **more)
    networks = {"branched": BranchedModel, "taps": TapsModel, "adapted": AdaptedModel, "moe": MoeModel}
    bundle.save(networks[kind](spec), folder)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A bundle of every kind."""
    folder = tmp_path_factory.mktemp("bundles")
    for kind in KINDS:
        save(kind, folder / kind)
    return {kind: folder / kind for kind in KINDS}


def check(folder: Path, file: Path, data: bytes) -> None:
    """With a file's new content a bundle loads, or a ValueError names a file of it."""
    good = file.read_bytes()
    file.write_bytes(data)
    try:
        with confined(folder):
            bundle.load(folder)
    except ValueError as error:
        assert str(folder) in str(error), repr(error)[:500]
        assert len(str(error)) < 10_000
    finally:
        file.write_bytes(good)
    assert "antigravity" not in sys.modules


def header_of(data: bytes) -> tuple[Any, bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header: Any, rest: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


@given(kind=st.sampled_from(KINDS), changes=TREE_EDITS)
def test_specs_with_other_values(bundles: Mapping[str, Path], kind: str, changes: list[Edit]) -> None:
    file = bundles[kind] / "spec.json"
    check(bundles[kind], file, json.dumps(edited_tree(json.loads(file.read_bytes()), changes)).encode())


@settings(max_examples=settings().max_examples // EXPENSIVE)
@given(kind=st.sampled_from(KINDS), which=st.integers(0, 9), changes=BYTE_EDITS)
def test_files_with_other_bytes(bundles: Mapping[str, Path], kind: str, which: int, changes: list[Edit]) -> None:
    files = sorted(path for path in bundles[kind].rglob("*") if path.is_file())
    file = files[which % len(files)]
    data = file.read_bytes()
    head = len(data) if file.suffix == ".json" else 8 + struct.unpack("<Q", data[:8])[0]
    check(bundles[kind], file, edited_bytes(data[:head], changes) + data[head:])


@settings(max_examples=settings().max_examples // EXPENSIVE)
@given(kind=st.sampled_from(KINDS), which=st.integers(0, 9), changes=TREE_EDITS, about=st.booleans())
def test_tensors_with_other_names_and_shapes(
    bundles: Mapping[str, Path], kind: str, which: int, changes: list[Edit], about: bool
) -> None:
    """`about`: not the tensors change, but what a delta's metadata say of its network."""
    files = sorted(bundles[kind].rglob("*.safetensors"))
    file = files[which % len(files)]
    header, rest = header_of(file.read_bytes())
    told = header.get("__metadata__", {})
    if about and "delta" in told:
        told["delta"] = json.dumps(edited_tree(json.loads(told["delta"]), changes))
    else:
        header = edited_tree(header, changes)
    check(bundles[kind], file, with_header(header, rest))


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_or_foreign_file_is_named(bundles: Mapping[str, Path], kind: str, tmp_path: Path) -> None:
    for number, file in enumerate(sorted(path for path in bundles[kind].rglob("*") if path.is_file())):
        for content in (None, "folder"):
            copy = tmp_path / f"{number} {content}"
            shutil.copytree(bundles[kind], copy)
            changed = copy / file.relative_to(bundles[kind])
            changed.unlink()
            if content == "folder":
                changed.mkdir()
            with pytest.raises(ValueError, match=str(copy)):
                bundle.load(copy)
