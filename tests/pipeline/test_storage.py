"""A job's files come back as they went, or not at all; a storage that is away is waited for, a full one is named."""

import errno
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import storage
from pipeline.artifacts import read_manifests
from pipeline.checkpoints import find
from pipeline.loop import conclude, train
from pipeline.storage import JobFolder, StorageFailed, open_storage
from tests.pipeline.cases import DECODING, make_job, same, saved, site

pytestmark = pytest.mark.filterwarnings(DECODING)
FILES = {"spec.json": b"{}", "two words/delta.safetensors": b"d", "größe/delta.safetensors": b"\0\1", "a/b/c": b""}


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PATIENCE", 20.0)
    monkeypatch.setattr(storage, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(storage, "LONGEST_PAUSE", 0.05)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_folder_comes_back_with_its_sub_folders(tmp_path: Path, end: str, scheme: str) -> None:
    for name, data in FILES.items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_bytes(data)
    folder = JobFolder(f"{scheme}{tmp_path}/store{end}", "abc")
    folder.upload(tmp_path / "mine", "bundle")
    folder.write("bundle.txt", b"beside it")
    folder.download("bundle", tmp_path / "copy")
    assert tree(tmp_path / "copy") == FILES
    assert folder.names("bundle") == sorted(FILES)
    assert tree(tmp_path / "store/jobs/abc").keys() == {"bundle.txt", *(f"bundle/{name}" for name in FILES)}


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match=r"jobs/abc/bundle: no files there; remove .*/jobs/abc to have"):
        JobFolder(str(tmp_path), "abc").download("bundle", tmp_path / "copy")


def test_a_killed_writers_files_stay_behind(tmp_path: Path) -> None:
    folder = JobFolder(str(tmp_path), "abc")
    folder.write("bundle/depth/delta.safetensors", b"whole")
    (Path(folder.path) / "bundle" / "depth" / "delta.safetensors.17.part").write_bytes(b"ha")
    folder.download("bundle", tmp_path / "copy")
    assert tree(tmp_path / "copy") == {"depth/delta.safetensors": b"whole"}
    folder.clear_drafts()
    assert tree(Path(folder.path)) == {"bundle/depth/delta.safetensors": b"whole"}


def test_a_writer_whose_draft_was_taken_away_writes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was taken for dead."""
    folder, settled = JobFolder(str(tmp_path), "abc"), []

    def settle(draft: str) -> None:
        settled.append(draft)
        if len(settled) == 1:
            folder.clear_drafts()

    monkeypatch.setattr(storage, "settle", settle)
    folder.write("history.jsonl", b"{}")
    assert tree(Path(folder.path)) == {"history.jsonl": b"{}"}
    assert len(set(settled)) == 2


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_a_torn_file_counts_as_none(tmp_path: Path, cut: int) -> None:
    folder = JobFolder(str(tmp_path), "abc")
    folder.write_result({"score": 1.5, "tasks": ["a", "b"]})
    folder.write_history([{"epoch": 1, "val": {"a": 1.0}}, {"epoch": 2}])
    for name in ("result.json", "history.jsonl"):
        file = Path(folder.path) / name
        for torn in (file.read_bytes()[:cut], bytes(cut), file.read_bytes()[:cut] + bytes(9), b"\xff" * cut):
            whole = file.read_bytes()
            file.write_bytes(torn)
            assert folder.read_result() is None or name == "history.jsonl"
            assert folder.read_history() in ([], [{"epoch": 1, "val": {"a": 1.0}}]) or name == "result.json"
            file.write_bytes(whole)
    assert folder.read_result() == {"score": 1.5, "tasks": ["a", "b"]}
    assert len(folder.read_history()) == 2


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("/disk/runs", "/disk/runs/jobs/k"),
        ("s3://bucket/x/?region=us-east-1&scheme=http", "s3://bucket/x/jobs/k"),
        ("s3://me:hush@bucket/x?region=us-east-1", "s3://bucket/x/jobs/k"),
    ],
)
def test_messages_name_a_folder_without_keys_and_options(address: str, shown: str) -> None:
    folder = JobFolder(address, "k")
    assert folder.path == shown
    assert folder._named("best/w.pt") == shown.removeprefix("s3://") + "/best/w.pt"


def away(root: Path, seconds: float, then: Callable[[], Any], *, mount_point: bool) -> Any:
    """Do something while a storage is gone, or an empty folder stands where it is mounted; it comes back."""
    elsewhere = root.with_name("elsewhere")
    root.rename(elsewhere)
    if mount_point:
        root.mkdir()

    def back() -> None:
        time.sleep(seconds)
        if mount_point:
            assert not list(root.iterdir()), "nothing may be written where nothing is mounted"
            root.rmdir()
        elsewhere.rename(root)

    thread = threading.Thread(target=back)
    thread.start()
    try:
        return then()
    finally:
        thread.join()


@pytest.mark.parametrize("mount_point", [False, True])
@pytest.mark.parametrize("what", ["read", "write", "names", "history", "result", "fetch"])
def test_a_storage_that_is_away_for_a_moment_is_waited_for(
    tmp_path: Path, mount_point: bool, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "runs"
    folder = JobFolder(str(root), "abc")
    folder.write("a/b", b"data")
    folder.write_history([{"epoch": 1}])
    folder.write_result({"score": 1})
    actions: dict[str, tuple[Callable[[], Any], Any]] = {
        "read": (lambda: folder.read("a/b"), b"data"),
        "fetch": (lambda: folder.fetch("a/b"), b"data"),
        "write": (lambda: folder.write("a/c", b"more"), None),
        "names": (lambda: folder.names("a"), ["b"]),
        "history": (folder.read_history, [{"epoch": 1}]),
        "result": (folder.read_result, {"score": 1}),
    }
    act, expected = actions[what]
    act()
    assert away(root, 0.2, act, mount_point=mount_point) == expected
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"{folder.path}: can't ")
    assert said.endswith("; trying for 20 s")
    assert folder.read("a/c") == (b"more" if what == "write" else None)


def test_a_process_that_is_started_while_the_storage_is_away_waits_too(tmp_path: Path) -> None:
    """It has never seen it, but was told that it stands: it neither takes it for empty nor makes a new one."""
    root = tmp_path / "runs"
    open_storage(str(root))
    JobFolder(str(root), "abc").write("a", b"data")
    told = JobFolder(str(root), "abc", stands=True)
    storage._seen.clear()
    assert away(root, 0.2, lambda: told.read("a"), mount_point=True) == b"data"
    storage._seen.clear()
    away(root, 0.2, lambda: told.write("b", b"more"), mount_point=True)
    assert told.read("b") == b"more"


def test_a_new_storage_is_empty(tmp_path: Path) -> None:
    folder = JobFolder(str(tmp_path / "new" / "runs"), "abc")
    assert folder.read("a") is None
    assert folder.names("a") == []
    assert folder.read_result() is None
    folder.write("a", b"data")
    assert folder.read("a") == b"data"


@pytest.mark.parametrize("what", ["read", "write"])
def test_patience_ends_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(storage, "PATIENCE", 0.1)
    folder = JobFolder(str(tmp_path / "runs"), "abc")
    folder.write("a", b"data")
    assert folder.read("a")
    shutil.rmtree(tmp_path / "runs")
    action = folder.read if what == "read" else lambda name: folder.write(name, b"data")
    pattern = (
        rf"^{folder.path}: could not {what} a.*, tried for 0.1 s \(.*not there any more.*same command goes on from"
    )
    with pytest.raises(StorageFailed, match=pattern) as caught:
        action("a")
    assert isinstance(caught.value, ValueError), "stages show it as one message"


def test_pauses_grow_and_a_full_storage_is_asked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(storage.time, "sleep", sleep)
    monkeypatch.setattr(storage.time, "monotonic", lambda: now[0])
    for name, value in (("PATIENCE", 60.0), ("FIRST_PAUSE", 0.5), ("LONGEST_PAUSE", 8.0)):
        monkeypatch.setattr(storage, name, value)
    folder = JobFolder(str(tmp_path), "abc")

    def failing(number: int) -> Callable[[], None]:
        def attempt() -> None:
            raise OSError(number, os.strerror(number))

        return attempt

    with pytest.raises(StorageFailed):
        folder._patiently("write", failing(errno.ESTALE))
    assert pauses[:6] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert sum(pauses) == pytest.approx(60.0)
    for number in storage.FULL:
        pauses.clear()
        with pytest.raises(StorageFailed, match="no space left"):
            folder._patiently("write", failing(number))
        assert pauses == [0.5]


def test_a_job_goes_on_through_a_storage_that_is_away(prepared: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    job, root = make_job(read_manifests(prepared), epochs=3), tmp_path / "runs"
    records = train(job, site(prepared, root))
    next(records)
    away(root, 0.5, lambda: next(records), mount_point=True)
    list(records)
    list(train(job, site(prepared, tmp_path / "whole")))
    assert same(saved(job, root)["network"], saved(job, tmp_path / "whole")["network"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of a size that can be set."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a file system takes rights that this user lacks: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_job_fails_on_a_full_disk_and_goes_on_once_there_is_room(
    prepared: Path, tmp_path: Path, small_disk: Path
) -> None:
    torch.set_num_threads(1)
    job = make_job(read_manifests(prepared), epochs=3)
    expected = list(train(job, site(prepared, tmp_path / "whole")))
    size = len(next((tmp_path / "whole/jobs" / job.key / "checkpoints").iterdir()).read_bytes())
    where = site(prepared, small_disk)
    kilobytes = int(3.2 * size) >> 10  # a checkpoint, best weights, and no second one
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(small_disk)], check=True)
    pattern = r"^.*: no space left to write checkpoints/\d{8}-.*\.pt, [\d,]+ bytes. Make room, and .* goes on from "
    with pytest.raises(StorageFailed, match=pattern) as caught:
        list(train(job, where))
    folder = where.folder(job)
    found, damaged = find(folder)
    assert found is not None
    assert not damaged
    assert f"goes on from checkpoint {found.name} (" in str(caught.value)
    assert str(small_disk) in str(caught.value)
    assert not list(Path(folder.path).rglob("*.part"))
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    records = list(train(job, where))
    assert [replace(one, seconds=0.0) for one in records] == [replace(one, seconds=0.0) for one in expected]
    assert same(saved(job, small_disk)["network"], saved(job, tmp_path / "whole")["network"])
    results = [conclude(job, site(prepared, place)) | {"seconds": 0} for place in (small_disk, tmp_path / "whole")]
    assert results[0] == results[1]
