"""Where a report comes from: what differs from the preset, what DVC knows, what stages took, how to make it again."""

from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import hardware as machine
from pipeline.config import Config, load
from pipeline.presets import PRESETS
from pipeline.report.page import params_text
from pipeline.report.provenance import STAGES, command_of, differences_of, preset_of, provenance_of
from pipeline.stage_records import read_stage, record_stage
from tests.pipeline.small_studies import NAMES
from tests.pipeline.test_report import study_of


def preset(name: str) -> Config:
    return load(PRESETS / f"{name}.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_as_it_ships_differs_in_nothing(name: str) -> None:
    assert preset_of(preset(name)) == name
    assert not list(differences_of(preset(name), preset(name)))


def test_every_changed_setting_is_named_by_its_path() -> None:
    config = preset("scenes")
    train = config.train.model_copy(update={"epochs": 3, "norm_images": 8})
    changed = config.model_copy(update={"train": train, "seed": 7})
    found = {row.key: (row.preset, row.ours) for row in differences_of(changed, config)}
    assert found == {
        "train.epochs": (str(config.train.epochs), "3"),
        "train.norm_images": ("null", "8"),
        "seed": ("0", "7"),
    }
    fewer = config.model_copy(update={"tasks": dict(list(config.tasks.items())[1:])})
    gone = next(iter(config.tasks))
    assert {row.key.split(".")[1] for row in differences_of(fewer, config)} == {gone}
    assert {row.ours for row in differences_of(fewer, config)} == {""}


def test_a_study_of_another_name_is_compared_with_the_default() -> None:
    config = preset("scenes").model_copy(update={"experiment": "my own"})
    assert preset_of(config) == "scenes"
    assert [row.key for row in differences_of(config, preset("scenes"))] == ["experiment"]


def test_the_command_makes_the_study_again() -> None:
    assert command_of("abc-dirty", "decathlon", []) == "git checkout abc && make repro PRESET=decathlon"
    assert command_of("none", "scenes", []) == "make repro PRESET=scenes"
    changed = list(differences_of(preset("scenes").model_copy(update={"seed": 1}), preset("scenes")))
    assert command_of("abc", "scenes", changed) == (
        "git checkout abc && cp artifacts/report/params.yaml params.yaml && make repro"
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_beside_the_page_are_the_studys(name: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(params_text(preset(name)), encoding="utf-8")
    assert load(tmp_path / "params.yaml") == preset(name)


def lock(folder: Path, **stages: str) -> None:
    content = {"schema": "2.0", "stages": {name: {"outs": [{"md5": md5}]} for name, md5 in stages.items()}}
    with (folder / "dvc.lock").open("w") as file:
        YAML().dump(content, file)


def test_the_lock_counts_without_the_reports_own_entry(tmp_path: Path) -> None:
    study = study_of(2)
    lock(tmp_path, prepare="aaa.dir", pretrain="bbb.dir")
    first = provenance_of(study, "abc", tmp_path, tmp_path)
    lock(tmp_path, prepare="aaa.dir", pretrain="bbb.dir", report="ccc.dir")
    assert provenance_of(study, "abc", tmp_path, tmp_path).lock == first.lock
    lock(tmp_path, prepare="ddd.dir", pretrain="bbb.dir")
    assert provenance_of(study, "abc", tmp_path, tmp_path).lock != first.lock
    assert {stage.name: stage.digest for stage in first.stages if stage.digest} == {
        "prepare": "aaa.dir",
        "pretrain": "bbb.dir",
    }


@pytest.mark.parametrize("content", [None, "", "stages: 3", "stages: {prepare: {", "a: b", "stages: {prepare: null}"])
def test_without_a_lock_that_can_be_read_there_is_no_digest(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "dvc.lock").write_text(content)
    found = provenance_of(study_of(1), "none", tmp_path, tmp_path)
    assert [stage.name for stage in found.stages] == list(STAGES)
    assert not any(stage.digest for stage in found.stages)


def test_times_are_those_of_stages_and_jobs(tmp_path: Path) -> None:
    record_stage("pretrain", 12.5, tmp_path)
    record_stage("pretrain", 14.0, tmp_path)
    record_stage("report", 99.0, tmp_path)
    found = provenance_of(study_of(3, 2), "abc", tmp_path, tmp_path)
    costs = {stage.name: stage for stage in found.stages}
    assert costs["pretrain"].seconds == 14.0, "of its last run"
    assert costs["pretrain"].job_seconds == pytest.approx(3 * 1.5)
    assert costs["pretrain"].jobs == 3
    assert costs["branched"].seconds is None
    assert costs["branched"].jobs == 3 * 2, "a tree that two budgets chose was trained once"
    assert costs["branched"].job_seconds == pytest.approx(3 * 2.0)
    assert costs["prepare"].job_seconds is None
    assert found.seconds == 14.0
    assert provenance_of(study_of(1), "abc", tmp_path, tmp_path / "elsewhere").seconds is None


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_stage("moe", tmp_path) is None
    record_stage("moe", 3.0, tmp_path)
    record = read_stage("moe", tmp_path)
    assert record is not None
    assert record.seconds == 3.0
    assert record.machine == machine.hardware()
    assert record.ended.endswith("UTC")


def test_a_machine_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: A chip of theirs\nmodel name\t: A chip of theirs\n"
    )
    for number in range(2):
        (tmp_path / "gpus" / str(number)).mkdir(parents=True)
        (tmp_path / "gpus" / str(number) / "information").write_text("Model: \t\t NVIDIA H100 80GB\nIRQ: 7\n")
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine, "GPUS", tmp_path / "gpus")
    words = machine.hardware()
    assert words.startswith("A chip of theirs, ")
    assert words.endswith(", 2 × NVIDIA H100 80GB")
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(machine, "GPUS", tmp_path / "none")
    assert "core" in machine.hardware()


def test_an_unchanged_study_is_its_preset(tmp_path: Path) -> None:
    study = replace(study_of(2), config=preset("scenes"))
    found = provenance_of(study, "abc", tmp_path, tmp_path)
    assert (found.preset, list(found.differences)) == ("scenes", [])
    assert "PRESET=scenes" in found.command
