"""Folders go to a job's storage and back with all that is in them."""

from pathlib import Path

import pytest

from pipeline.storage import JobFolder

FILES = {"spec.json": b"{}", "two words/delta.safetensors": b"d", "größe/delta.safetensors": b"\0\1", "a/b/c": b""}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("end", ["", "/"])
def test_a_folder_comes_back_with_its_sub_folders(tmp_path: Path, end: str) -> None:
    for name, data in FILES.items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_bytes(data)
    folder = JobFolder(f"{tmp_path}/store{end}", "abc")
    folder.upload(tmp_path / "mine", "bundle")
    folder.write("bundle.txt", b"beside it")
    folder.download("bundle", tmp_path / "copy")
    assert tree(tmp_path / "copy") == FILES


def test_a_killed_writers_files_stay_behind(tmp_path: Path) -> None:
    folder = JobFolder(str(tmp_path), "abc")
    folder.write("bundle/depth/delta.safetensors", b"whole")
    (Path(folder.path) / "bundle" / "depth" / "delta.safetensors.17.part").write_bytes(b"ha")
    folder.download("bundle", tmp_path / "copy")
    assert tree(tmp_path / "copy") == {"depth/delta.safetensors": b"whole"}
