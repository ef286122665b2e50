"""A manifest made of any layout is that layout: prepared, both give the same images and labels in the same splits."""

import csv
import io
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from models.spec import Column
from pipeline.artifacts import shards
from pipeline.datasets import DATASETS, Items, Source, SourceSettings, reader_of
from pipeline.encoding import encode
from pipeline.manifest_making import make_manifest
from stages.manifest import main
from tests.pipeline import layouts, test_readers
from tests.pipeline.cases import prepare, settings

LAYOUTS = sorted(module.name for module in iter_modules(layouts.__path__) if not module.name.startswith("_"))
SIZE = (32, 48)


def source_of(reader: str, root: Path | None, images: int | None = None) -> Source:
    return reader_of(reader)(SourceSettings(root=root, images=images, seed=0, size=SIZE))


def prepared(folder: Path, source: Source) -> dict[str, pa.Table]:
    """What a source becomes, by split."""
    prepare(folder, source, settings({"size": SIZE, "val": 0.3, "test": 0.3}))
    tables = {}
    for split in ("train", "val", "test"):
        parts = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in shards("tiny", split, folder)]
        tables[split] = pa.concat_tables(parts).drop_columns(["id"])
    return tables


def pixels(png: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(png)), dtype=int)


@pytest.mark.parametrize("reader", LAYOUTS)
def test_a_manifest_gives_what_its_reader_gives(reader: str, tmp_path: Path) -> None:
    assert reader in DATASETS, f"tests/pipeline/layouts/{reader}.py is named like no reader"
    (tmp_path / "planted").mkdir()
    root = import_module(f"tests.pipeline.layouts.{reader}").plant(tmp_path / "planted")
    source = source_of(reader, root)
    make_manifest(source, tmp_path / "labels.csv", workers=1, say=print)
    copy = source_of("manifest", tmp_path / "labels.csv")
    assert copy.columns() == source.columns()
    assert [row.split for row in copy.rows()] == [row.split for row in source.rows()]
    first, second = prepared(tmp_path / "a", source), prepared(tmp_path / "b", copy)
    for split, table in first.items():
        assert table.num_rows
        for name in table.column_names:
            cells, others = table[name].to_pylist(), second[split][name].to_pylist()
            column = source.columns().get(name)
            if column is not None and column.layout == "normals":
                for cell, other in zip(cells, others, strict=True):
                    assert np.abs(pixels(cell) - pixels(other)).max() <= 1, "their lengths are rounded anew"
            elif column is not None and column.layout == "flags":
                unlabelled = [-1] * len(column.classes)
                assert [cell or unlabelled for cell in cells] == [other or unlabelled for other in others]
            else:
                assert cells == others, name


@pytest.mark.parametrize("reader", [*sorted(test_readers.LAYOUTS), "scenes"])
def test_a_manifest_holds_the_examples_of_its_reader(reader: str, tmp_path: Path) -> None:
    if reader == "scenes":
        source = source_of(reader, None, images=5)
    else:
        (tmp_path / "planted").mkdir()
        source = source_of(reader, test_readers.LAYOUTS[reader].tree(tmp_path / "planted"))
    make_manifest(source, tmp_path / "labels.csv", workers=1, say=print)
    copy = source_of("manifest", tmp_path / "labels.csv")
    assert copy.columns() == source.columns()
    rows, others = source.rows(), copy.rows()
    assert [row.split for row in others] == [row.split for row in rows]
    if not {row.split for row in rows} >= {"train", "val", "test"}:
        assert [row.group for row in others] == [row.group for row in rows]
    for row, other in zip(rows, others, strict=True):
        first, second = source.load(row), copy.load(other)
        assert np.array_equal(first.image, second.image)
        for name, label in first.labels.items():
            column = source.columns()[name]
            if column.layout == "normals" and label is not None:
                np.testing.assert_allclose(second.labels[name], label, atol=1.01 / 127)
            else:
                assert encode(name, column, second.labels[name]) == encode(name, column, label)


def cells(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_files_that_hold_the_labels_are_used_where_they_stand(tmp_path: Path) -> None:
    root = layouts_root("voc", tmp_path)
    rows, files = make_manifest(source_of("voc", root), tmp_path / "labels.csv", workers=1, say=print)
    table = cells(tmp_path / "labels.csv")
    (masks,) = (header for header in table[0] if header.startswith("segmentation:"))
    assert (len(table), files) == (rows, 0)
    assert not (tmp_path / "labels_files").exists()
    for line in table:
        assert line["image"].startswith("VOCdevkit/VOC2012/JPEGImages/")
        assert line[masks] == "" or line[masks].startswith("VOCdevkit/VOC2012/SegmentationClass/")


def test_what_a_reader_changes_is_written(tmp_path: Path) -> None:
    root = layouts_root("ade20k", tmp_path)
    rows, files = make_manifest(source_of("ade20k", root), tmp_path / "labels.csv", workers=1, say=print)
    table = cells(tmp_path / "labels.csv")
    (masks,) = (header for header in table[0] if header.startswith("segmentation:"))
    assert files == rows == len(list((tmp_path / "labels_files").iterdir()))
    assert {line[masks].partition("/")[0] for line in table} == {"labels_files"}


def layouts_root(reader: str, folder: Path) -> Path:
    return import_module(f"tests.pipeline.layouts.{reader}").plant(folder)


def test_any_number_of_processes_writes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.manifest_making.ROWS_AT_ONCE", 3)
    root = layouts_root("ade20k", tmp_path)
    for workers in (1, 2):
        make_manifest(source_of("ade20k", root), tmp_path / f"{workers}.csv", workers=workers, say=print)
    one, two = ((tmp_path / f"{workers}.csv").read_text() for workers in (1, 2))
    assert one.replace("1_files/", "2_files/") == two
    for path in (tmp_path / "1_files").iterdir():
        assert path.read_bytes() == (tmp_path / "2_files" / path.name).read_bytes()


def test_bad_rows_stop_it_or_are_left_out(tmp_path: Path) -> None:
    root = layouts_root("folders", tmp_path)
    (first, *others) = source_of("folders", root).rows()
    (root / first.id).write_bytes(b"")
    source, out = source_of("folders", root), tmp_path / "labels.csv"
    with pytest.raises(ValueError, match=rf"1 of {len(others) + 1} rows are bad.*\n  {first.origin}: .*not an image"):
        make_manifest(source, out, workers=1, say=print)
    assert not list(tmp_path.glob("*labels*")), "nothing half made stays"
    said: list[str] = []
    assert make_manifest(source, out, workers=1, say=said.append, on_bad="skip")[0] == len(others)
    assert any(f"1 of {len(others) + 1} rows are bad and left out" in line for line in said)
    assert len(source_of("manifest", out).rows()) == len(others)


def test_a_manifest_lies_above_its_images_and_replaces_nothing(tmp_path: Path) -> None:
    root = layouts_root("folders", tmp_path)
    source, out = source_of("folders", root), tmp_path / "labels.csv"
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ValueError, match=r"names files below its own folder.*ln -s"):
        make_manifest(source, tmp_path / "elsewhere/labels.csv", workers=1, say=print)
    with pytest.raises(ValueError, match="there is no folder"):
        make_manifest(source, tmp_path / "nowhere/labels.csv", workers=1, say=print)
    with pytest.raises(ValueError, match=r"ends in \.csv"):
        make_manifest(source, tmp_path / "labels.parquet", workers=1, say=print)
    (tmp_path / "elsewhere" / root.name).symlink_to(root)
    linked = source_of("folders", tmp_path / "elsewhere" / root.name)
    make_manifest(linked, tmp_path / "elsewhere/labels.csv", workers=1, say=print)
    make_manifest(source, out, workers=1, say=print)
    before = out.read_text()
    with pytest.raises(ValueError, match=r"labels\.csv stands there already"):
        make_manifest(source, out, workers=1, say=print)
    assert out.read_text() == before


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("a:b", Column(layout="class", classes=("x", "y"))),
        ("a", Column(layout="class", classes=("x|y", "z"))),
        ("a", Column(layout="class", classes=(" x", "z"))),
        ("a", Column(layout="mask", classes=("x=#102030", "z"))),
        ("a.b", Column(layout="flags", classes=("x",))),
        ("id", Column(layout="class", classes=("x", "y"))),
        ("boxes", Column(layout="boxes")),
    ],
)
def test_a_name_that_a_header_cannot_hold_is_refused(name: str, column: Column, tmp_path: Path) -> None:
    told = SourceSettings(root=None, images=None, seed=0, size=SIZE)
    source = Items(told, columns={name: column}, splits={None: []})
    with pytest.raises(ValueError, match=rf"column '{name}': .*can't stand in a header"):
        make_manifest(source, tmp_path / "labels.csv", workers=1, say=print)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = layouts_root("voc", tmp_path)
    main([str(root), "--out", str(tmp_path / "found.csv"), "--workers", "1"])
    main(["voc", str(root), "--out", str(tmp_path / "told.csv"), "--workers", "1"])
    assert (tmp_path / "found.csv").read_text() == (tmp_path / "told.csv").read_text()
    assert "rows of voc" in capsys.readouterr().out
    pictures = layouts_root("folders", tmp_path / "pictures")
    main(["imagefolder", str(pictures), "--out", f"{pictures}.csv", "--workers", "1"])
    with pytest.raises(ValueError, match=r"bears no layout's marks; name the reader: .*folders"):
        main([str(tmp_path / "pictures"), "--out", str(tmp_path / "none.csv")])
    with pytest.raises(ValueError, match=r"no reader 'coca'\. Did you mean coco\?"):
        main(["coca", str(root), "--out", str(tmp_path / "none.csv")])


@pytest.mark.parametrize(("reader", "inner"), [("voc", "bccd/BCCD"), ("folders", "eurosat/eurosat/2750")])
def test_a_manifest_of_a_real_set(reader: str, inner: str, tmp_path: Path) -> None:
    (tmp_path / "set").symlink_to(test_readers.real(inner))
    source = source_of(reader, tmp_path / "set", images=60)
    assert make_manifest(source, tmp_path / "labels.csv", workers=1, say=print) == (60, 0)
    copy = source_of("manifest", tmp_path / "labels.csv")
    assert copy.columns() == source.columns()
    for row, other in zip(source.rows(), copy.rows(), strict=True):
        first, second = source.load(row), copy.load(other)
        assert (row.split, row.group) == (other.split, other.group)
        assert np.array_equal(first.image, second.image)
        for name, column in source.columns().items():
            assert encode(name, column, first.labels[name]) == encode(name, column, second.labels[name])
