"""DVC and this dvc.yaml: what a changed setting runs again, experiments, metrics, plots, a remote. For real, but with
stages that only leave the files that the real ones leave.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.config import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.alone]

YAML_12 = YAML()
# Leaves what dvc.yaml names: a folder a stage with its number of runs, its metrics, rows to plot.
STAND_IN = """
import json, sys
from pathlib import Path
stage = sys.argv[1]
runs = Path(f"runs/{stage}")
runs.parent.mkdir(exist_ok=True)
count = int(runs.read_text()) + 1 if runs.exists() else 1
runs.write_text(str(count))
folder = Path("artifacts") / stage
(folder / "plots").mkdir(parents=True, exist_ok=True)
(folder / "figures").mkdir(exist_ok=True)
name = "affinity" if stage == "affinity" else "metrics"
(folder / f"{name}.json").write_text(json.dumps({"delta_mtl": {"shared": -1.5}, "params": {"shared": 7}}))
pairs = [{"location": d, "task_a": a, "task_b": b, "value": 0.5} for d in (1, 2) for a in "xy" for b in "xy"]
for stem in ("affinity", "affinity-depth"):
    (folder / "plots" / f"{stem}.json").write_text(json.dumps(pairs))
(folder / "plots" / "params-delta.json").write_text(json.dumps([{"params": 7, "delta_mtl": -1.5}]))
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with its chain run once, committed."""
    here = tmp_path_factory.mktemp("dvc") / "study"
    kept = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
    for name in ("models", "pipeline", "stages", ".dvc"):
        shutil.copytree(ROOT / name, here / name, ignore=kept)
    for name in ("dvc.yaml", "params.yaml", ".gitignore"):
        shutil.copy(ROOT / name, here)
    (here / "stand_in.py").write_text(STAND_IN)
    chain = YAML_12.load(here / "dvc.yaml")
    for stage, about in chain["stages"].items():
        about["cmd"] = f"{sys.executable} stand_in.py {stage}"
    YAML_12.dump(chain, here / "dvc.yaml")
    git(here, "init", "--quiet")
    git(here, "config", "user.email", "a@b.c")
    git(here, "config", "user.name", "a")
    dvc(here, "repro", "--quiet")
    git(here, "add", "--all")
    git(here, "commit", "--quiet", "--message", "start")
    return here


def git(here: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=here, check=True, capture_output=True, text=True).stdout


def dvc(here: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=here, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def changed(here: Path) -> set[str]:
    """The stages whose own settings or files differ from those of the last run."""
    return set(json.loads(dvc(here, "status", "--json"))) - {"sources"}  # which always runs


def set_params(here: Path, section: str, **values: Any) -> None:
    params = YAML_12.load(here / "params.yaml")
    (params[section] if section else params).update(values)
    YAML_12.dump(params, here / "params.yaml")


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("taps", {"lams": [0.5]}, {"taps", "report"}),
        ("trees", {"budgets": ["2x"]}, {"trees", "report"}),
        ("branched", {"seeds": [0, 1]}, {"branched", "taps", "report"}),
        ("report", {"samples": 3}, {"report"}),
        ("moe", {"lams": [0.1]}, {"moe", "adapt", "report"}),
        ("", {"experiment": "another"}, {"report"}),
    ],
)
def test_a_setting_runs_again_what_reads_it(
    study: Path, section: str, values: dict[str, Any], expected: set[str]
) -> None:
    set_params(study, section, **values)
    try:
        assert changed(study) == expected
    finally:
        git(study, "checkout", "--quiet", "params.yaml")


def test_nothing_changed_is_nothing_to_do_and_a_changed_lambda_runs_taps_and_report(study: Path) -> None:
    before = {path.name: path.read_text() for path in (study / "runs").iterdir()}
    dvc(study, "repro", "--quiet")
    said = dvc(study, "exp", "run", "-S", "taps.lams=[0.5]", "--name", "lam05")
    after = {path.name: path.read_text() for path in (study / "runs").iterdir()}
    assert "lam05" in said
    assert {name for name in after if after[name] != before[name]} == {"sources", "taps", "report"}
    table = dvc(study, "exp", "show", "--only-changed", "--md")
    assert "lam05" in table
    assert "taps.lams" in table
    git(study, "checkout", "--quiet", "params.yaml", "dvc.lock")
    dvc(study, "checkout", "--quiet")


def test_the_chain_and_its_metrics_are_shown(study: Path) -> None:
    drawn = dvc(study, "dag")
    assert all(stage in drawn for stage in YAML_12.load(study / "dvc.yaml")["stages"])
    shown = json.loads(dvc(study, "metrics", "show", "--json"))[""]["data"]
    assert shown["artifacts/report/metrics.json"]["data"]["delta_mtl"] == {"shared": -1.5}


def test_plots_have_the_rows_as_numbers(study: Path, tmp_path: Path) -> None:
    dvc(study, "plots", "show", "--out", str(tmp_path))
    page = (tmp_path / "index.html").read_text()
    assert '"scheme": "viridis"' in page, "the heat map is drawn by our template"
    assert "DVC_METRIC" not in page
    assert '"value": 0.5' in page


def test_results_go_to_a_remote_and_come_to_a_fresh_clone(study: Path, tmp_path: Path) -> None:
    dvc(study, "remote", "add", "--default", "store", str(tmp_path / "store"))
    dvc(study, "push")
    git(study, "commit", "--quiet", "--all", "--message", "remote")
    git(tmp_path, "clone", "--quiet", str(study), "clone")
    dvc(tmp_path / "clone", "pull")
    mine, its = (here / "artifacts/report/metrics.json" for here in (study, tmp_path / "clone"))
    assert mine.read_bytes() == its.read_bytes()
