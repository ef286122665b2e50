"""Shipped studies: each is sound, can be planned, and trains on a small tree of files in its data's public layout."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.bundle_files import offline
from pipeline.artifacts import DatasetManifest
from pipeline.config import ROOT, Config, load
from pipeline.jobs import TrainJob
from pipeline.loop import conclude, train
from pipeline.machine import Machine, load_machine
from pipeline.plan_costs import shared_spec, unit_costs
from pipeline.plan_jobs import planned_jobs
from pipeline.planning import plan
from pipeline.preflight import check_study
from pipeline.preparing import declare, open_source, prepare_dataset
from pipeline.presets import PRESETS, adopt_preset, as_params
from tests.pipeline.cases import DECODING, site
from tests.pipeline.small_studies import NAMES, SMALL, brought_down, planted

pytestmark = pytest.mark.filterwarnings(DECODING)
FIRST = ("fully shared tree", "TAPS", "with experts")  # one job of each is trained


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_sound(name: str) -> None:
    assert load(PRESETS / f"{name}.yaml").experiment == name


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_says_how_it_is_run(name: str) -> None:
    head = (PRESETS / f"{name}.yaml").read_text().split("\nexperiment:")[0]
    assert name == "scenes" or f"# make repro PRESET={name}" in head


def test_most_presets_are_run_on_their_own_network() -> None:
    own = {load(PRESETS / f"{name}.yaml").backbone.name for name in NAMES} - set(SMALL)
    assert {"thin_vgg16_32_fc", "decathlon_resnet26"} <= own


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_trains_on_its_layouts(name: str, tmp_path: Path) -> None:
    """Planned, prepared, checked; then an epoch of one network of each strategy, which reads every data set."""
    torch.set_num_threads(1)
    config = brought_down(name)
    machine = planted(config, tmp_path / "data")
    found = plan(config, machine, timing=False)
    assert not found.problems
    manifests = prepare_all(config, machine, tmp_path / "prepared")
    check_study(config, manifests, weights=False)
    for job in first_jobs(config, manifests):
        records = list(train(job, site(tmp_path / "prepared", tmp_path / "runs")))
        assert records[-1].step >= 2
        assert set(records[-1].losses) == set(job.trained)
        result = conclude(job, site(tmp_path / "prepared", tmp_path / "runs"))
        assert set(result["test"]) == set(job.trained)


def prepare_all(config: Config, machine: Machine, folder: Path) -> dict[str, DatasetManifest]:
    """As the stage does."""
    found = {}
    for name in config.datasets:
        source = open_source(name, config, machine)
        declared = declare(name, config, source)
        found[name] = prepare_dataset(declared, source, config, machine, folder, lambda _: None)
    return found


def first_jobs(config: Config, manifests: dict[str, DatasetManifest]) -> list[TrainJob]:
    """The first job of each strategy, from first weights."""
    jobs = planned_jobs(config, manifests, unit_costs(shared_spec(config, manifests)))
    first = {item.label: item.job for item in reversed(jobs) if item.label in FIRST}
    return [replace(job, model=offline(job.model)) for job in first.values()]


def test_the_default_study_is_a_preset_so_that_one_can_go_back_to_it() -> None:
    assert (ROOT / "params.yaml").read_text() in {as_params(path) for path in PRESETS.glob("*.yaml")}


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


def test_a_machine_file_of_ours_names_its_schema(tmp_path: Path) -> None:
    adopt_preset("fashion", tmp_path, base=tmp_path)
    assert (tmp_path / "machine.yaml").read_text().startswith("# yaml-language-server: $schema=machine.schema.json\n")
    adopt_preset("nyuv2", tmp_path, base=tmp_path)
    assert (tmp_path / "machine.yaml").read_text().count("$schema") == 1
    assert load_machine(tmp_path / "machine.yaml").roots.keys() == {"fashion", "nyuv2"}


def test_an_unknown_preset_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean fashion"):
        adopt_preset("fashon", None, base=tmp_path)


def test_a_missing_folder_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        adopt_preset("fashion", tmp_path / "nowhere", base=tmp_path)
    assert list(tmp_path.iterdir()) == []
