"""The digest of a data folder: the same until a file of it changes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.source_state import state_of


def tree(folder: Path) -> Path:
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def _touch(root: Path) -> None:
    os.utime(root / "cat/1.png", ns=(0, 5))


def _grow(root: Path) -> None:
    before = (root / "cat/1.png").stat()
    (root / "cat/1.png").write_bytes(b"longer than before")
    os.utime(root / "cat/1.png", ns=(before.st_atime_ns, before.st_mtime_ns))


def _rename(root: Path) -> None:
    (root / "cat/1.png").rename(root / "cat/3.png")


def _add(root: Path) -> None:
    (root / "dog/2.png").write_bytes(b"")


def _remove(root: Path) -> None:
    (root / "dog/1.png").unlink()


@pytest.mark.parametrize("change", [_touch, _grow, _rename, _add, _remove])
def test_whatever_changes_in_a_folder_shows(tmp_path: Path, change: Callable[[Path], None]) -> None:
    root = tree(tmp_path)
    before = state_of(root)
    assert state_of(root) == before
    change(root)
    assert state_of(root) != before


def test_what_is_hidden_or_outside_does_not_count(tmp_path: Path) -> None:
    root = tree(tmp_path / "set")
    before = state_of(root)
    (root / ".cache").mkdir()
    (root / ".cache/1.png").write_bytes(b"x")
    (tmp_path / "other.png").write_bytes(b"x")
    (root / "cat/nowhere").symlink_to(tmp_path / "gone")
    assert state_of(root) == before


def test_a_linked_folder_is_entered_once(tmp_path: Path) -> None:
    root = tree(tmp_path / "set")
    (root / "again").symlink_to(root, target_is_directory=True)
    assert state_of(root) == state_of(root)
    elsewhere = tree(tmp_path / "elsewhere")
    (root / "linked").symlink_to(elsewhere, target_is_directory=True)
    before = state_of(root)
    (elsewhere / "dog/1.png").write_bytes(b"changed")
    assert state_of(root) != before


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_of_a_table_its_files_count_and_nothing_else_beside_it(tmp_path: Path, kind: str) -> None:
    root, table = tree(tmp_path), tmp_path / f"labels.{kind}"
    cells = {"image": ["cat/1.png", "dog/1.png"], "label": ["cat", "dog"], "mean": ["0.5", ""]}
    if kind == "csv":
        lines = [",".join(cells), *(",".join(row) for row in zip(*cells.values(), strict=True))]
        table.write_text("\n".join(lines))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table(cells), table)
    before = state_of(table)
    (root / "cat/2.png").write_bytes(b"not in the table")
    assert state_of(table) == before
    (root / "dog/1.png").write_bytes(b"in the table")
    assert state_of(table) != before


def test_a_set_s_own_program_counts(tmp_path: Path) -> None:
    code = tmp_path / "reader.py"
    code.write_text("a = 1\n")
    before = state_of(None, [code])
    code.write_text("a = 2\n")
    assert state_of(None, [code]) != before


def test_a_missing_folder_is_an_empty_one(tmp_path: Path) -> None:
    assert state_of(tmp_path / "nowhere") == state_of(None)
