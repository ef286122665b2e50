"""`python -m stages.plan`: what it prints, how it leaves, and that it leaves nothing behind."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import presets
from pipeline.config import Config
from stages import plan
from tests.pipeline.layouts import celeba
from tests.pipeline.small_studies import brought_down


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["plan", *arguments, "--no-timing"])
    plan.main()


def write(path: Path, config: Config) -> None:
    with path.open("w") as file:
        YAML().dump(config.model_copy(update={"experiment": path.stem}).model_dump(mode="json"), file)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, and beside it the only preset there is."""
    here, folder = tmp_path / "here", tmp_path / "presets"
    here.mkdir()
    folder.mkdir()
    write(folder / "faces.yaml", brought_down("celeba_small"))
    monkeypatch.setattr(presets, "PRESETS", folder)
    monkeypatch.chdir(here)
    return here


def test_a_preset_is_planned_and_not_adopted(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    root = celeba.plant(tmp_path / "data")
    run(monkeypatch, "--preset", "faces", "--root", str(root))
    said = capsys.readouterr().out
    assert "plan of faces" in said
    assert str(root) in said
    assert "5_o_Clock_Shadow and 39 more" in said
    assert max(map(len, said.splitlines())) < 200
    assert list(shelf.iterdir()) == []


def test_missing_data_are_told_after_the_plan_and_leave_with_2(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, "--preset", "faces")
    assert left.value.code == 2
    said = capsys.readouterr().out
    assert "fully shared" in said
    assert "to be mended first:\n  celeba: CelebA:" in said
    assert list(shelf.iterdir()) == []


def test_without_a_preset_it_reads_the_folder_s_settings(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(shelf / "params.yaml", brought_down("exhaustive"))
    run(monkeypatch)
    assert "trees of 3 tasks at 4 locations, the first shared: 22" in capsys.readouterr().out
    assert [path.name for path in shelf.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "face"], "Did you mean faces"),
        (["--root", "."], "give --preset too"),
        (["--preset", "faces", "--root", "nowhere"], "no such folder"),
    ],
)
@pytest.mark.usefixtures("shelf")
def test_wrong_arguments(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=message):
        run(monkeypatch, *arguments)
