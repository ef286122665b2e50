"""Whatever stands in the files of a data set, a reader gives examples, or an error that names the file; nothing outside
the data set's folder is opened, and no list runs code.
"""

import io
import json
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.spec import Column
from pipeline.artifacts import DatasetManifest, read_manifests, write_manifests
from pipeline.config import ROOT
from pipeline.datasets import DATASETS, SourceSettings
from tests.fuzz.mutations import BYTE_EDITS, TREE_EDITS, Edit, edited_bytes, edited_tree
from tests.fuzz.watching import confined
from tests.pipeline.layouts._pictures import noise, save

LISTS = (".csv", ".txt", ".json", ".xml", ".mat", ".npy", ".parquet")
PICTURES = (".png", ".jpg", ".ppm", ".JPEG")
PLANTED = sorted(path.stem for path in (ROOT / "tests/pipeline/layouts").glob("[a-z]*.py"))
MOST_LOADED = 5


def plant_manifest(folder: Path) -> Path:
    """A csv with a column of every layout, and a small table of parquet."""
    for number in range(3):
        save(folder / f"img/{number}.png", noise(number))
        save(folder / f"ids/{number}.png", noise(number, (24, 32)) % 2)
    lines = [
        "image,split,group,kind:class,mask:mask:wall|floor,deep:field:0.001|m,seen:instances,up:normals,"
        "parts:points:a|b,boxes:boxes:x|y,is.old:flags,is.new:flags",
        *(
            f'img/{n}.png,{split},g{n},cat,ids/{n}.png,ids/{n}.png,ids/{n}.png,img/{n}.png,"[[1, 2, 0]]",'
            '"[[0, 0, 4, 4, 1], [1, 1, 9, 9, 0]]",1,0'
            for n, split in enumerate(("train", "", "test"))
        ),
    ]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    pq.write_table(pa.table({"image": [f"img/{n}.png" for n in range(3)], "n": [1, 2, None]}), folder / "more.parquet")
    return folder / "rows.csv"


class Planted(NamedTuple):
    """A data set on disk: its reader, what `root` names, all of its files by kind, and their contents."""

    reader: str
    root: Path
    lists: Mapping[Path, bytes]
    pictures: Mapping[Path, bytes]


class Sets:
    """One small data set of every layout, planted when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._planted: dict[str, Planted] = {}
        for name in ("secret.png", "secret.jpg"):
            save(folder / name, noise(9))

    def of(self, reader: str) -> Planted:
        if reader not in self._planted:
            folder = self.folder / reader
            folder.mkdir()
            if reader == "manifest":
                root = plant_manifest(folder)
            else:
                root = import_module(f"tests.pipeline.layouts.{reader}").plant(folder)
            files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            lists, pictures = (
                {path: path.read_bytes() for path in files if path.suffix in kinds} for kinds in (LISTS, PICTURES)
            )
            self._planted[reader] = Planted(reader, root, lists, pictures)
        return self._planted[reader]

    @cached_property
    def listed(self) -> list[tuple[str, Path]]:
        """Every list of every reader."""
        return [(reader, path) for reader in (*PLANTED, "manifest") for path in self.of(reader).lists]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    return Sets(tmp_path_factory.mktemp("sets"))


def check(sets: Sets, reader: str, path: Path, data: bytes) -> None:
    """With a file's new content a reader gives examples, or a ValueError that names a file."""
    planted = sets.of(reader)
    good = {**planted.lists, **planted.pictures}[path]
    path.write_bytes(data)
    try:
        with confined(sets.folder / reader):
            read(planted, path)
    except ValueError as error:
        assert any(name in str(error) for name in (path.name, str(sets.folder / reader))), repr(error)[:500]
        assert len(str(error)) < 100_000
    finally:
        path.write_bytes(good)


def read(planted: Planted, path: Path) -> None:
    """Everything that `prepare` asks of a reader; of the examples some, those first that the file may be about."""
    root = path if path.suffix == ".parquet" else planted.root
    settings = SourceSettings(root=root, images=None, seed=0, size=(24, 32))
    source = DATASETS[planted.reader](settings)
    columns, rows = source.columns(), source.rows()
    for row in sorted(rows, key=lambda row: path.stem not in row.id)[:MOST_LOADED]:
        try:
            example = source.load(row)
        except ValueError as error:
            raise ValueError(f"{planted.root} {row.origin}: {error}") from error  # as `prepare` names a bad row
        assert example.image.dtype == np.uint8
        assert example.image.ndim == 3
        assert example.labels.keys() == columns.keys()


@given(where=st.integers(0, 2**20), changes=BYTE_EDITS)
def test_lists_with_other_letters(sets: Sets, where: int, changes: list[Edit]) -> None:
    reader, path = sets.listed[where % len(sets.listed)]
    check(sets, reader, path, edited_bytes(sets.of(reader).lists[path], changes))


@given(where=st.integers(0, 2**20), changes=TREE_EDITS)
def test_json_lists_with_other_values(sets: Sets, where: int, changes: list[Edit]) -> None:
    found = [(reader, path) for reader, path in sets.listed if path.suffix == ".json"]
    reader, path = found[where % len(found)]
    tree = json.loads(sets.of(reader).lists[path])
    check(sets, reader, path, json.dumps(edited_tree(tree, changes)).encode())


@given(reader=st.sampled_from([*PLANTED, "manifest"]), where=st.integers(0, 2**20), changes=BYTE_EDITS)
def test_pictures_with_other_bytes(sets: Sets, reader: str, where: int, changes: list[Edit]) -> None:
    pictures = sets.of(reader).pictures
    path = list(pictures)[where % len(pictures)]
    check(sets, reader, path, edited_bytes(pictures[path], changes))


@given(changes=TREE_EDITS, header=st.sampled_from(["image", "split", "b:boxes", "m:mask", "f.x:flags", "a"]))
def test_tables_of_parquet_with_other_values(sets: Sets, changes: list[Edit], header: str) -> None:
    planted = sets.of("manifest")
    tree = {"image": ["img/0.png", "img/1.png"], header: ["x", ""], "c": [1, None]}
    table, buffer = edited_tree(tree, changes), io.BytesIO()
    try:
        pq.write_table(pa.table({str(name): pa.array(cells) for name, cells in table.items()}), buffer)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError):
        return  # Arrow has no such table
    path = planted.root.with_suffix(".parquet")
    path.write_bytes(b"")
    whole = Planted("manifest", path, {path: b""}, {})
    path.write_bytes(buffer.getvalue())
    try:
        with confined(path.parent):
            read(whole, path)
    except ValueError as error:
        assert path.name in str(error), repr(error)[:500]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest.json as `prepare` leaves it, with a column of two classes and a field."""
    folder = tmp_path_factory.mktemp("prepared")
    columns = {"kind": Column(layout="class", classes=("a", "b"), shares=(0.5, 0.5)), "deep": Column(layout="field")}
    made = DatasetManifest(
        name="tiny",
        counts={"train": 3, "val": 1, "test": 1},
        size=(24, 32),
        columns=columns,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        fingerprint="0123",
        licence="none",
        skipped=("row 3: bad",),
    )
    write_manifests(folder, [made])
    assert read_manifests(folder) == {"tiny": made}
    return folder / "manifest.json"


def check_manifest(path: Path, data: bytes) -> None:
    """manifest.json with other content gives manifests, or a ValueError that names it."""
    good = path.read_bytes()
    path.write_bytes(data)
    try:
        with confined(path.parent):
            found = read_manifests(path.parent)
        for made in found.values():
            assert len(made.mean) == len(made.std) == 3
            assert all(column.layout for column in made.columns.values())
    except ValueError as error:
        assert str(path) in str(error), repr(error)[:500]
        assert len(str(error)) < 10_000
    finally:
        path.write_bytes(good)


@given(changes=TREE_EDITS)
def test_manifests_with_other_values(manifest: Path, changes: list[Edit]) -> None:
    check_manifest(manifest, json.dumps(edited_tree(json.loads(manifest.read_bytes()), changes)).encode())


@given(changes=BYTE_EDITS)
def test_manifests_with_other_letters(manifest: Path, changes: list[Edit]) -> None:
    check_manifest(manifest, edited_bytes(manifest.read_bytes(), changes))
