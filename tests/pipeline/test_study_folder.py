"""Results through storage, with DVC itself as the oracle of the layout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.study_folder import Place, StudyFolder

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
    assert study.notes.read("dvc.lock") == lock
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


def test_only_what_is_missing_is_copied(tmp_path: Path) -> None:
    here, there = Place(str(tmp_path / "here")), Place(str(tmp_path / "there"))
    here.write("a/x", b"1")
    here.write("a/y", b"2")
    there.write("a/x", b"kept")
    here.copy(["a/x", "a/y", "a/absent", "a/y"], there)
    assert tree(tmp_path / "there") == {"a/x": "kept", "a/y": "2"}


@pytest.mark.parametrize("experiment", ["a study/of 2.5", "..", "../../etc", "näme"])
def test_an_experiment_s_folder_stays_in_storage(experiment: str, tmp_path: Path) -> None:
    study = StudyFolder(str(tmp_path / "storage"), experiment)
    study.notes.write("job", b"1")
    (found,) = tmp_path.rglob("job")
    assert found.parent.parent == tmp_path / "storage/submitted"
    assert study.notes.read("job") == b"1"
    assert study.notes.read("dvc.lock") is None
