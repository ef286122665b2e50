"""`check-data` from the command line: what it prints, what it leaves, how it ends."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from pipeline.config import ROOT
from stages import check_data
from stages.session import start
from tests.pipeline.cases import DECODING
from tests.test_rules import closure, imports

pytestmark = pytest.mark.filterwarnings(DECODING)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a set of images in folders, a mask and a smoke study of them."""
    for number in range(24):
        picture = np.random.default_rng(number).integers(0, 256, (16, 20, 3), dtype=np.uint8)
        path = tmp_path / f"leaves/img/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
        Image.fromarray(picture[..., 0] % 3).save(path.with_name(f"{number}.mask.png"))
    lines = [f"img/{n}.png,{'oak' if n % 2 else 'ash'},img/{n}.mask.png" for n in range(24)]
    (tmp_path / "leaves/all.csv").write_text("\n".join(["image,species:class,parts:mask:a|b|c", *lines]) + "\n")
    write(tmp_path, species={"kind": "classification", "dataset": "leaves"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check_data, "ROOT", tmp_path)
    return tmp_path


def write(folder: Path, *, root: str = "leaves/all.csv", **tasks: dict[str, str]) -> None:
    params = YAML(typ="safe").load((ROOT / "presets/smoke.yaml").read_text())
    params |= {"tasks": tasks, "taps": {"lams": []}, "moe": {"lams": []}, "adapt": {"tasks": []}}
    params["datasets"] = {"leaves": {"reader": "manifest", "root": root, "size": [32, 32], "val": 0.2, "test": 0.2}}
    with (folder / "params.yaml").open("w") as file:
        YAML(typ="safe").dump(params, file)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        start(lambda: check_data.main(arguments))
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_a_sound_set_is_described_and_drawn(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_data.main([])
    out = capsys.readouterr().out
    assert f"leaves: reader manifest, {here}/leaves/all.csv" in out
    assert "task species (classification)" in out
    assert "parts: {kind: segmentation, dataset: leaves}" in out
    assert "warnings: 0" in out
    assert {path.name for path in (here / "check").iterdir()} == {
        "index.html",
        "summary.json",
        "leaves.png",
        "leaves-values.png",
    }
    summary = json.loads((here / "check/summary.json").read_text())
    assert sum(summary["datasets"]["leaves"]["counts"].values()) == 24
    assert summary["stops"] == []
    assert "parts: {kind: segmentation" in (here / "check/index.html").read_text()
    assert sorted(path.name for path in here.iterdir()) == ["check", "leaves", "params.yaml"]


def test_what_would_stop_prepare_is_listed_as_a_whole(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "leaves/img/5.png").write_bytes(b"no picture")
    write(
        here,
        specie={"kind": "classification", "dataset": "leaves"},
        parts={"kind": "segmentation", "dataset": "leaves"},
    )
    said = refused(capsys)
    assert "data set leaves: 1 of the 24 rows looked at are bad" in said
    assert "row 6: img/5.png" in said
    assert "no column 'specie'. Did you mean species?" in said
    assert "what would stop prepare (2)" in said
    assert len(json.loads((here / "check/summary.json").read_text())["stops"]) == 2
    assert (here / "check/leaves.png").exists()


def test_a_set_that_is_not_there_leaves_the_others_their_check(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, root="nowhere.csv", species={"kind": "classification", "dataset": "leaves"})
    said = refused(capsys)
    assert "data set leaves: manifest: there is no file" in said
    assert "nowhere.csv" in said


@pytest.mark.usefixtures("here")
def test_a_preset_is_adopted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def adopt(name: str, root: Path | None) -> str:
        assert (name, root) == ("mine", Path("data"))
        return "settings: mine"

    monkeypatch.setattr(check_data, "adopt_preset", adopt)
    check_data.main(["--preset", "mine", "--root", "data"])
    assert capsys.readouterr().out.startswith("settings: mine")
    assert "give --preset too" in refused(capsys, "--root", "data")


def test_processes_that_read_images_start_without_torch() -> None:
    for path in closure(ROOT / "stages/check_data.py", module_level=True):
        heavy = {module.split(".")[0] for module in imports(path, module_level=True)}
        assert not heavy & {"torch", "torchvision", "timm", "torchmetrics", "matplotlib"}, path


@pytest.mark.slow
def test_processes_read_what_takes_long(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_data.main([])
    alone = json.loads((here / "check/summary.json").read_text())
    monkeypatch.setattr("pipeline.checking.WORTH_PROCESSES", 0.0)
    (here / "machine.yaml").write_text("prepare_workers: 2\n")
    check_data.main([])
    assert json.loads((here / "check/summary.json").read_text()) == alone
