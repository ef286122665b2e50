"""What of a checkout goes to a cluster."""

import subprocess
from pathlib import Path

import pytest

from pipeline import travelling as subject
from pipeline.travelling import pack, travelling

SOURCES = ("params.yaml", ".gitignore", ".dvc/config", "stages/plan.py", "my/reader.py", "my/check/x.py", "dvc.lock")
STAYING = (
    *(".dvc/config.local", ".dvc/cache/files/md5/ab/c", ".dvc/tmp/lock", "artifacts/report/index.html"),
    *("runs/jobs/k/best.pt", "machine.yaml", "mlflow.db", "mlflow.db-wal", "mlartifacts/1/m", ".venv/bin/python"),
    *(".env", "my/.env", ".ray-1/session/log", "check/scenes/1.png", ".check.1/a", "coppice.egg-info/PKG-INFO"),
)
IGNORED = "/artifacts/\n/runs/\n/machine.yaml\n/cluster.yaml\n/mlflow.db*\n/mlartifacts/\n.venv/\n/.dvc/tmp/\n"


def plant(root: Path) -> Path:
    for name in (*SOURCES, *STAYING, "cluster.yaml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / ".gitignore").write_text(IGNORED)
    return root


@pytest.fixture(params=["git", "no git"])
def checkout(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root = plant(tmp_path / "here")
    if request.param == "git":
        subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
        subprocess.run(["git", "add", "params.yaml", "stages"], cwd=root, check=True)
    return root


def test_sources_travel_and_results_and_keys_stay(checkout: Path) -> None:
    assert {path.as_posix() for path in travelling(checkout)} == set(SOURCES)


def test_a_lock_that_git_ignores_travels_all_the_same(checkout: Path) -> None:
    (checkout / ".gitignore").write_text(IGNORED + "dvc.lock\n")
    assert Path("dvc.lock") in travelling(checkout)


def test_a_tracked_file_that_was_deleted_is_left_out(checkout: Path) -> None:
    (checkout / "stages/plan.py").unlink()
    assert Path("stages/plan.py") not in travelling(checkout)


def test_too_much_is_refused_and_the_largest_named(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "LIMIT_MB", 0.1)
    (checkout / "my/pictures.bin").write_bytes(b"0" * 200_000)
    with pytest.raises(ValueError, match=r"(?s)0.1 is the most.*0.2 MB  my/pictures.bin"):
        travelling(checkout)


def test_the_cluster_s_settings_are_the_machine_s_there(checkout: Path, tmp_path: Path) -> None:
    pack(checkout, travelling(checkout), checkout / "cluster.yaml", tmp_path / "sent")
    assert (tmp_path / "sent/machine.yaml").read_text() == "cluster.yaml"
    assert not (tmp_path / "sent/cluster.yaml").exists()
    assert (tmp_path / "sent/my/reader.py").read_text() == "my/reader.py"


def test_the_digest_is_of_what_decides_what_runs(checkout: Path, tmp_path: Path) -> None:
    def digest(name: str) -> str:
        return pack(checkout, travelling(checkout), checkout / "cluster.yaml", tmp_path / name)

    first = digest("1")
    (checkout / "dvc.lock").write_text("fetched meanwhile")
    assert digest("2") == first
    for number, name in enumerate(("params.yaml", "my/reader.py", "cluster.yaml")):
        before = digest(f"{number}-before")
        (checkout / name).write_text("changed")
        assert digest(f"{number}-after") != before


def test_where_git_does_not_tell_nothing_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with another user's checkout: what is ignored there may hold keys."""
    root = plant(tmp_path / "here")
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(ValueError, match=r"(?s)none is sent: .*dubious ownership"):
        travelling(root)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=r"none is sent: .*No such file.*git"):
        travelling(root)


def test_no_git_and_no_program_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert {path.as_posix() for path in travelling(plant(tmp_path))} == set(SOURCES)
