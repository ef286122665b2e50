"""Shipped studies."""

from pathlib import Path

import pytest

from pipeline.config import ROOT, load, load_machine
from pipeline.presets import PRESETS, adopt_preset

NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_sound(name: str) -> None:
    assert load(PRESETS / f"{name}.yaml").experiment == name


def test_the_default_study_is_a_preset_so_that_one_can_go_back_to_it() -> None:
    assert (ROOT / "params.yaml").read_text() in {path.read_text() for path in PRESETS.glob("*.yaml")}


def test_edited_settings_are_kept_and_the_data_s_folder_goes_to_the_machine(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("mine: 1\n")
    (tmp_path / "machine.yaml").write_text("jobs: 3\n")
    said = adopt_preset("fashion", tmp_path, base=tmp_path)
    assert "params.previous.yaml" in said
    assert (tmp_path / "params.previous.yaml").read_text() == "mine: 1\n"
    assert load(tmp_path / "params.yaml") == load(PRESETS / "fashion.yaml")
    machine = load_machine(tmp_path / "machine.yaml")
    assert (machine.jobs, machine.roots) == (3, {"fashion": str(tmp_path.resolve())})


def test_an_unedited_preset_makes_no_copy(tmp_path: Path) -> None:
    adopt_preset("scenes", None, base=tmp_path)
    adopt_preset("smoke", None, base=tmp_path)
    assert not (tmp_path / "params.previous.yaml").exists()


def test_an_unknown_preset_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean fashion"):
        adopt_preset("fashon", None, base=tmp_path)


def test_a_missing_folder_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        adopt_preset("fashion", tmp_path / "nowhere", base=tmp_path)
    assert list(tmp_path.iterdir()) == []
