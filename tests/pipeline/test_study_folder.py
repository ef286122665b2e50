"""Results through storage, with DVC itself as the oracle of the layout."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
from ruamel.yaml import YAML

from pipeline.study_folder import Place, StudyFolder, stages_of
from pipeline.transport import named_when_whole

STAGES = """
stages:
  first:
    cmd: mkdir -p out/first/deep && echo 1 > out/first/deep/x && echo 2 > out/first/y
    outs: [out/first]
  second:
    cmd: cat out/first/y out/first/y > out/second
    deps: [out/first]
    outs: [out/second]
"""


def dvc(root: Path, *arguments: str) -> str:
    quiet = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_GLOBAL_CONFIG_DIR": str(root / "none")}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, env=quiet, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def project(root: Path, remote: Path) -> Path:
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").write_text(
        "[core]\n    no_scm = true\n    analytics = false\n    remote = cluster\n"
        f"['remote \"cluster\"']\n    url = {remote}\n"
    )
    (root / "dvc.yaml").write_text(STAGES)
    return root


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("there")
    root = project(base / "project", base / "storage/dvc")
    dvc(root, "repro", "--quiet")
    return root


def folder(path: Path) -> StudyFolder:
    return StudyFolder(str(path), "a study/of 2.5")


@pytest.mark.slow
def test_what_was_kept_is_a_remote_that_dvc_pulls_from(there: Path, tmp_path: Path) -> None:
    lock = (there / "dvc.lock").read_bytes()
    folder(tmp_path / "storage").keep(lock, there / ".dvc/cache")
    here = project(tmp_path / "here", tmp_path / "storage/dvc")
    (here / "dvc.lock").write_bytes(lock)
    dvc(here, "pull", "--quiet")
    assert tree(here / "out") == tree(there / "out")


@pytest.mark.slow
def test_what_was_brought_is_a_cache_that_dvc_checks_out(there: Path, tmp_path: Path) -> None:
    lock, study = (there / "dvc.lock").read_bytes(), folder(tmp_path / "storage")
    study.keep(lock, there / ".dvc/cache")
    here = project(tmp_path / "here", tmp_path / "nowhere")
    assert study.lock == lock
    (here / "dvc.lock").write_bytes(lock)
    assert study.bring(lock, here / ".dvc/cache", ["second"]) == ["second"]
    assert sorted(study.bring(lock, here / ".dvc/cache")) == ["first", "second"]
    dvc(here, "checkout", "--quiet")
    assert tree(here / "out") == tree(there / "out")
    assert dvc(here, "status").strip() == "Data and pipelines are up to date."


@pytest.mark.slow
def test_a_stage_that_lacks_a_file_is_not_whole(there: Path, tmp_path: Path) -> None:
    lock, study = (there / "dvc.lock").read_bytes(), folder(tmp_path / "storage")
    cache = tmp_path / "cache"
    shutil.copytree(there / ".dvc/cache", cache)
    lost = next(path for path in cache.rglob("*") if path.is_file() and path.read_text() == "1\n")
    lost.chmod(0o644)
    lost.unlink()
    study.keep(lock, cache)
    assert study.bring(lock, tmp_path / "other") == ["second"]
    study.keep(lock, there / ".dvc/cache")
    assert sorted(study.bring(lock, tmp_path / "other")) == ["first", "second"]


def put(place: Place, data: bytes, end: str = "", *, held: bytes | None = None) -> str:
    """Leave an object, or something else under its name; give its digest."""
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest() + end
    place.write(f"files/md5/{md5[:2]}/{md5[2:]}", data if held is None else held)
    return md5


def lock_of(**outs: str) -> bytes:
    """A dvc.lock of stages with one out each."""
    stages = {name: {"cmd": name, "outs": [{"path": f"artifacts/{name}", "md5": md5}]} for name, md5 in outs.items()}
    return json.dumps({"schema": "2.0", "stages": stages}).encode()


def files(folder: Path) -> dict[str, str]:
    return {name.removeprefix("files/md5/"): text for name, text in tree(folder).items()}


def test_what_is_missing_or_half_is_copied_and_nothing_that_is_damaged(tmp_path: Path) -> None:
    here, there = Place(str(tmp_path / "here")), Place(str(tmp_path / "there"))
    whole, half, bad, same = (put(here, text) for text in (b"whole", b"in full", b"bad", b"same"))
    put(there, b"in full", held=b"in f")
    put(there, b"same")
    put(here, b"bad", held=b"bud")
    names = {md5: f"files/md5/{md5[:2]}/{md5[2:]}" for md5 in (whole, half, bad, same, "0" * 32)}
    assert here.copy([*names.values(), names[whole]], there) == [names[bad]]
    assert files(tmp_path / "there") == {
        f"{md5[:2]}/{md5[2:]}": text for md5, text in ((whole, "whole"), (half, "in full"), (same, "same"))
    }


def test_a_stage_with_a_damaged_object_is_named_and_not_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = folder(tmp_path / "storage")
    md5s = [put(study.objects, b"good"), put(study.objects, b"cut short", held=b"cut")]
    file = json.dumps([{"md5": put(study.objects, b"in it", held=b"im it"), "relpath": "x"}]).encode()
    lock = lock_of(good=md5s[0], cut=md5s[1], holey=put(study.objects, file, ".dir"))
    assert study.bring(lock, tmp_path / "cache") == ["good"]
    assert "2 damaged" in capsys.readouterr().err


def break_off(system: pafs.FileSystem, target: str) -> None:
    with named_when_whole(system, target) as stream:
        stream.write(b"half")
        raise OSError("gone")


def test_a_copy_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    system = pafs.LocalFileSystem()
    with pytest.raises(OSError, match="gone"):
        break_off(system, str(tmp_path / "x"))
    assert not list(tmp_path.iterdir())


class Bucket(pafs.SubTreeFileSystem):
    """A folder that is taken for an object store: what is closed is there, whole or not."""

    @property
    def type_name(self) -> str:
        return "s3"


def test_nor_does_one_to_an_object_store(tmp_path: Path) -> None:
    bucket = Bucket(str(tmp_path), pafs.LocalFileSystem())
    with pytest.raises(OSError, match="gone"):
        break_off(bucket, "x")
    assert not list(tmp_path.iterdir())
    with named_when_whole(bucket, "x") as stream:
        stream.write(b"whole")
    assert tree(tmp_path) == {"x": "whole"}


OUTSIDE = ("../../../etc/passwd", "A" * 32, "0" * 31, "0" * 32 + ".dir/..", "0" * 32 + "\n", "/" * 32, None, 7)


@pytest.mark.parametrize("md5", OUTSIDE)
def test_what_is_no_digest_leads_nowhere(md5: Any, tmp_path: Path) -> None:
    study = folder(tmp_path / "storage")
    with pytest.raises(ValueError, match=r"dvc\.lock: .* is not an MD5 digest"):
        study.bring(lock_of(first=md5), tmp_path / "cache")
    listed = put(study.objects, json.dumps([{"md5": md5, "relpath": "x"}]).encode(), ".dir")
    with pytest.raises(ValueError, match=r"\.dir: .* is not an MD5 digest"):
        study.bring(lock_of(first=listed), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x"])
def test_a_listed_file_stays_in_its_folder(path: str, tmp_path: Path) -> None:
    study = folder(tmp_path / "storage")
    listed = put(study.objects, json.dumps([{"md5": put(study.objects, b"1"), "relpath": path}]).encode(), ".dir")
    with pytest.raises(ValueError, match=r"\.dir: .*would leave its folder"):
        study.bring(lock_of(first=listed), tmp_path / "cache")


@pytest.mark.parametrize("text", ["{}", "1", '["relpath"]', "not JSON"])
def test_what_is_no_list_of_files(text: str, tmp_path: Path) -> None:
    study = folder(tmp_path / "storage")
    listed = put(study.objects, text.encode(), ".dir")
    if text == "{}":
        assert study.bring(lock_of(first=listed), tmp_path / "cache") == ["first"]
        return
    with pytest.raises(ValueError, match="not a list of files"):
        study.bring(lock_of(first=listed), tmp_path / "cache")


@pytest.mark.parametrize(
    "text", ["", "schema: '2.0'", "stages:", "stages: [1]", "stages: {a: 1}", "a: [", "\xff", "\0"]
)
def test_what_is_no_lock(text: str) -> None:
    with pytest.raises(ValueError, match=r"here: not a dvc[.]lock"):
        stages_of(text.encode("latin-1"), "here")


def test_an_older_lock_drops_nothing_that_storage_has(tmp_path: Path) -> None:
    study, cache = folder(tmp_path / "storage"), Place(str(tmp_path / "cache"))
    old, new, more = (put(cache, text) for text in (b"old", b"new", b"more"))
    study.keep(lock_of(first=new, second=more), tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache/files/md5" / old[:2])
    for lost in (old, more):
        study.keep(lock_of(first=lost if lost == old else new), tmp_path / "cache")
        assert study.lock
        kept = stages_of(study.lock, "")
        assert {name: stage["outs"][0]["md5"] for name, stage in kept.items()} == {"first": new, "second": more}
    put(cache, b"old")
    study.keep(lock_of(first=old), tmp_path / "cache")  # run again, with earlier settings: this one is right
    kept = YAML(typ="safe").load(study.lock)["stages"]
    assert [kept[name]["outs"][0]["md5"] for name in ("first", "second")] == [old, more]


@pytest.mark.parametrize("end", ["", "/"])
def test_a_storage_may_have_options(end: str, tmp_path: Path) -> None:
    system, base = Place(f"s3://bucket/x{end}?region=us-east-1&endpoint_override=h:1", "dvc")._place
    assert (system.type_name, base) == ("s3", "bucket/x/dvc")
    assert folder(tmp_path).objects.path == f"{tmp_path}/dvc"
    assert StudyFolder("s3://me:hush@bucket/x?region=r", "a").notes.path == "s3://bucket/x/submitted/a"


@pytest.mark.parametrize("experiment", ["a study/of 2.5", "..", "../../etc", "näme"])
def test_an_experiment_s_folder_stays_in_storage(experiment: str, tmp_path: Path) -> None:
    study = StudyFolder(str(tmp_path / "storage"), experiment)
    study.notes.write("job", b"1")
    (found,) = tmp_path.rglob("job")
    assert found.parent.parent == tmp_path / "storage/submitted"
    assert study.notes.read("job") == b"1"
    assert study.lock is None


def test_no_two_experiments_share_a_folder_and_all_are_names_that_ray_takes() -> None:
    experiments = [
        "a b",
        "a-b",
        "a/b",
        "a  b",
        "näme",
        "name",
        "..",
        ".",
        "-",
        "_x",
        "x",
        "ä",
        "ö",
        "x" * 100,
        "x" * 60,
    ]
    names = [StudyFolder("", experiment).name for experiment in experiments]
    assert len(set(names)) == len(experiments)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,70}", name) for name in names)
    assert StudyFolder("", "scenes_2-b").name == "scenes_2-b"
