"""dvc.yaml says what each stage reads: its code, its settings, and the stages before it."""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.config import Config, load
from tests.test_rules import ROOT, closure, file_of, name

DAG: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, Any] = DAG["stages"]
# Files that cannot change what a stage leaves: where and how it runs, what is recorded, what is refused beforehand.
EXEMPT = {
    "models/__init__.py",
    "stages/__init__.py",
    "stages/session.py",
    "stages/training.py",
    "pipeline/__init__.py",
    "pipeline/processes.py",
    "pipeline/runner.py",
    "pipeline/fitting.py",
    "pipeline/following.py",
    "pipeline/one_job.py",
    "pipeline/allocator.py",
    "pipeline/ray_environment.py",
    "pipeline/gpus.py",
    "pipeline/tracking.py",
    "pipeline/spool.py",
    "pipeline/sending.py",
    "pipeline/tracker.py",
    "pipeline/tracked_run.py",
    "pipeline/run_labels.py",
    "pipeline/run_notes.py",
    "pipeline/job_runs.py",
    "pipeline/registering.py",
    "pipeline/storage.py",
    "pipeline/checkpoints.py",
    "pipeline/preflight.py",
    "pipeline/shipping.py",
    "pipeline/transport.py",
    "pipeline/visibility.py",
    "pipeline/plan_text.py",
    "pipeline/plan_line.py",
    "pipeline/result_lines.py",
    "pipeline/run_log.py",
    "pipeline/terminal.py",
    "pipeline/report/__init__.py",
    "pipeline/report/number_texts.py",
    "pipeline/stage_records.py",
    "pipeline/hardware.py",
    "pipeline/machine.py",
}
NOT_FOLLOWED = frozenset(
    ROOT / f"pipeline/{part}.py"
    for part in ("preflight", "tracking", "plan_line", "run_labels", "run_notes", "registering")
)
# `prepare` only spreads its own work over a cluster: the training that the runner imports does not count.
NOT_FOLLOWED_FROM = {"prepare": {ROOT / "pipeline/runner.py"}}


def stages_here() -> list[str]:
    return [stage for stage in STAGES if (ROOT / "stages" / f"{stage}.py").exists()]


def code(stage: str) -> set[str]:
    reached = closure(ROOT / "stages" / f"{stage}.py", stop=NOT_FOLLOWED | NOT_FOLLOWED_FROM.get(stage, set()))
    return {name(path) for path in reached} - EXEMPT


def text_of(stage: str) -> str:
    """A stage's file, and the one that it starts where its study is large."""
    files = (ROOT / "stages" / f"{part}.py" for part in (stage, f"{stage}_study"))
    return "".join(file.read_text() for file in files if file.exists())


def covers(dep: str, path: str) -> bool:
    return path == dep or path.startswith(dep.rstrip("/") + "/")


@pytest.mark.parametrize("stage", list(STAGES))
def test_every_stage_has_its_file(stage: str) -> None:
    assert file_of(f"stages.{stage}"), f"stages/{stage}.py is missing"
    assert STAGES[stage]["cmd"] == f"python -m stages.{stage}"
    assert STAGES[stage]["outs"] == [f"artifacts/{stage}"]
    assert STAGES[stage]["desc"]


@pytest.mark.parametrize("stage", stages_here())
def test_deps_are_the_code_that_a_stage_runs(stage: str) -> None:
    deps = [dep for dep in STAGES[stage]["deps"] if not dep.startswith("artifacts/")]
    needed = code(stage)
    missing = sorted(path for path in needed if not any(covers(dep, path) for dep in deps))
    assert not missing, f"dvc.yaml {stage}: deps lack {missing}"
    idle = [dep for dep in deps if not any(covers(dep, path) for path in needed)]
    assert not idle, f"dvc.yaml {stage}: deps that it doesn't import: {idle}"
    assert not [dep for dep in deps if not (ROOT / dep).exists()]


@pytest.mark.parametrize("stage", stages_here())
def test_artifacts_that_a_stage_reads_are_deps(stage: str) -> None:
    text = text_of(stage)
    read = set(re.findall(r'ARTIFACTS / "(\w+)"', text))
    if re.search(r"read_manifests\(\)|shards\(\w+, \"\w+\"\)|train_jobs\(", text):
        read.add("prepare")
    deps = {dep.removeprefix("artifacts/") for dep in STAGES[stage]["deps"] if dep.startswith("artifacts/")}
    assert read - {stage} <= deps


def test_the_report_waits_for_every_strategy_that_it_has_a_chapter_for() -> None:
    from pipeline.report.study import CHAPTERS

    assert {f"artifacts/{name}" for name in CHAPTERS} <= set(STAGES["report"]["deps"])


def test_stages_stand_in_the_order_in_which_they_run() -> None:
    order = list(STAGES)
    for place, stage in enumerate(order):
        before = {dep.removeprefix("artifacts/") for dep in STAGES[stage]["deps"] if dep.startswith("artifacts/")}
        assert before <= set(order[:place]), stage
        assert bool(before) == (stage != "sources")
    wanted = [
        s
        for s in ("sources", "prepare", "pretrain", "affinity", "trees", "branched", "taps", "moe", "report")
        if s in order
    ]
    assert [stage for stage in order if stage in wanted] == wanted


@pytest.mark.parametrize("stage", list(STAGES))
def test_params_are_sections_that_exist(stage: str) -> None:
    sections = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    assert set(STAGES[stage]["params"]) <= set(sections)
    load(ROOT / "params.yaml")


@pytest.mark.parametrize("stage", stages_here())
def test_settings_that_a_stage_reads_are_params(stage: str) -> None:
    """Where a stage, or what it hands the settings to, reads `config.x`, section x is among its params."""
    text = text_of(stage)
    read = set(re.findall(r"\bconfig\.(\w+)", text)) & set(Config.model_fields)
    read |= {"tasks"} if "task_specs(" in text else set()
    read |= {"backbone"} if "model_spec(" in text else set()
    read |= {"train"} if "train_job(" in text else set()
    if "preflight" not in text:
        assert read <= set(STAGES[stage]["params"])


def test_metrics_lie_in_outs() -> None:
    for metric in DAG.get("metrics", []):
        assert any(Path(metric).is_relative_to(out) for item in STAGES.values() for out in item["outs"])
