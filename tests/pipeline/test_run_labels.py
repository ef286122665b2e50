"""What all runs of a study carry, and what a stage's run shows of its results."""

import hashlib
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from pipeline.affinity_svg import affinity_svg
from pipeline.artifacts import AFFINITY, read_manifests, write_json, write_manifests, write_table
from pipeline.machine import Machine
from pipeline.presets import PRESETS, as_params
from pipeline.run_labels import CONTEXTS, baseline_run, study_data, study_tags
from pipeline.run_notes import NOTES, describe_stage
from pipeline.run_view import NAME, comparison_view, shared_view
from pipeline.spool import Where, read
from pipeline.tracker import Tracker
from tests.pipeline.cases import settings
from tests.pipeline.test_tracking import offline


@pytest.mark.parametrize("preset", ["smoke", "scenes"])
def test_settings_are_known_by_their_digest_and_preset(tmp_path: Path, preset: str) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(as_params(PRESETS / f"{preset}.yaml"))
    tags = study_tags(settings(), "taps", "1a2b", params)
    digest = hashlib.md5(params.read_bytes(), usedforsecurity=False).hexdigest()
    own = {"study": "tiny", "stage": "taps", "dvc_rev": "1a2b", "params_md5": digest, "preset": preset}
    assert {key: value for key, value in tags.items() if not key.startswith("mlflow.")} == own
    params.write_text(params.read_text() + "# mine\n")
    changed = study_tags(settings(), "taps", "1a2b", params)
    assert changed["preset"] == "none"
    assert changed["params_md5"] != digest


def log_single(where: Where, stage: str, jobs: list[str], artifacts: Path) -> None:
    """A stage that trains single-task networks, or takes them from storage."""
    with Tracker(where, connect=offline) as tracker:
        parent = tracker.run(stage, name="pretrain", tags={}, params={})
        for job in jobs:
            tracker.run(job, name=job, tags={}, params={}, parent=parent)
    write_json(artifacts / "pretrain/metrics.json", {job: {"job": job} for job in jobs})


def test_the_baseline_is_the_stage_that_trained_the_networks_which_are_compared_with(tmp_path: Path) -> None:
    where = Where(uri="fake://store", spool=tmp_path / "spool", experiment="tiny")
    (tmp_path / "pretrain").mkdir()
    assert baseline_run(where.spool, tmp_path / "nowhere") is None
    log_single(where, "first", ["a", "b"], tmp_path)
    log_single(where, "other settings", ["c", "d"], tmp_path)
    assert baseline_run(where.spool, tmp_path) == "other settings"
    write_json(tmp_path / "pretrain/metrics.json", {job: {"job": job} for job in "ab"})  # from DVC's cache
    assert baseline_run(where.spool, tmp_path) == "first"
    log_single(where, "a task more", ["a", "b", "e"], tmp_path)
    assert baseline_run(where.spool, tmp_path) == "a task more"
    write_json(tmp_path / "pretrain/metrics.json", {"x": {"job": "trained on another machine"}})
    assert baseline_run(where.spool, tmp_path) is None


def test_each_split_is_a_data_set_with_its_fingerprint_and_counts(prepared: Path) -> None:
    config, manifests = settings(), read_manifests(prepared)
    found = study_data(config, Machine(roots={"tiny": "/data/tiny"}), manifests, ["tiny"])
    assert [one["context"] for one in found] == list(CONTEXTS.values())
    for one, split in zip(found, CONTEXTS, strict=True):
        assert one["name"] == f"tiny-{split}"
        assert manifests["tiny"].fingerprint.startswith(one["digest"])
        assert 0 < len(one["digest"]) <= 36
        assert json.loads(one["profile"]) == {"num_rows": manifests["tiny"].counts[split], "height": 32, "width": 32}
        columns = {column["name"].partition(":")[0] for column in json.loads(one["schema"])["mlflow_colspec"]}
        assert columns == {"image", *manifests["tiny"].columns}
        assert json.loads(one["source"]) == {"uri": "/data/tiny", "reader": "scenes"}


NETWORK = {"label": "a|b", "params": 2_000_000, "delta_mtl": -1.5, "delta_mtl_val": 2.0}
LEFT: dict[str, Any] = {
    "pretrain": {"depth": {"metric": "rmse", "val": 0.1, "test": 0.2, "trivial_test": 0.3}},
    "branched": {"shared": NETWORK},
    "taps": {"methods": [{"label": "TAPS", "multiple": 1.5, "mean": None}]},
    "moe": {"runs": [NETWORK]},
    "adapt": {"modes": [{"label": "router", "model_params": 1000, "mean": 0.5}]},
    "report": {
        "best": "shared",
        "delta_mtl": {"shared": 1.0},
        "delta_mtl_val": {"shared": 1.5},
        "params": {"shared": 1000},
    },
}


@pytest.mark.parametrize("stage", NOTES)
def test_every_stage_says_what_it_found(prepared: Path, tmp_path: Path, stage: str) -> None:
    folder = tmp_path / stage
    folder.mkdir()
    manifests = read_manifests(prepared)
    for place in {tmp_path / "prepare", folder if stage == "prepare" else tmp_path / "prepare"}:
        place.mkdir(exist_ok=True)
        write_manifests(place, manifests.values())
    if stage in LEFT:
        write_json(folder / "metrics.json", LEFT[stage])
    (folder / "trees.txt").write_text("root ─ b1 ┬ scene\n")
    write_json(folder / "affinity.json", {"mean": {"location_1": 0.5}})
    write_table(folder / "affinity.parquet", affinities(["scene", "depth"], 2), AFFINITY)
    where = Where(uri="fake://store", spool=tmp_path / "spool", experiment="tiny")
    with Tracker(where, connect=offline) as tracker:
        run = tracker.run("r", name=stage, tags={}, params={})
        describe_stage(run, stage, settings(), Machine(), tmp_path)
    events = {event["kind"]: event for event in read(where.spool, "r")}
    assert len(events["data"]["datasets"]) == 3
    note = events["tags"]["tags"]["mlflow.note.content"]
    if stage == "trees":
        assert note == "```\nroot ─ b1 ┬ scene\n```"
        return
    table = [line for line in note.splitlines() if line.startswith("|")]
    assert len(table) == 3
    assert len({line.count("|") for line in table}) == 1
    assert ("text" in events) == (stage == "affinity")


@pytest.mark.parametrize("stage", ["taps", "moe", "adapt"])
def test_a_stage_that_had_nothing_to_do_says_so(tmp_path: Path, stage: str) -> None:
    empty = {"taps": {"methods": [], "runs": []}, "moe": {"runs": []}, "adapt": {"runs": []}}
    write_json(tmp_path / "metrics.json", empty[stage])
    assert NOTES[stage](tmp_path) == "This study asks for nothing of this stage."


def affinities(tasks: list[str], locations: int) -> list[dict[str, Any]]:
    return [
        {"location": d + 1, "task_a": a, "task_b": b, "value": 1.0 if a == b else 0.5 - 0.4 * d}
        | {"ci_low": 0.1, "ci_high": 0.9, "null_high": 0.2}
        for d in range(locations)
        for a in tasks
        for b in tasks
    ]


@pytest.mark.parametrize(("count", "printed"), [(1, False), (3, True), (40, False)])
def test_affinities_are_drawn_a_cell_each(count: int, printed: bool) -> None:
    tasks = [f"<task & {number}>" for number in range(count)]
    root = ElementTree.fromstring(affinity_svg(affinities(tasks, 2)))
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}rect")) == 1 + 2 * count**2
    texts = [text.text for text in root.findall(f"{space}text")]
    assert texts.count(tasks[0][:16]) >= 3  # a row's name, and a column's at both locations
    assert ("0.50" in texts) == printed


def test_the_view_is_a_tag_that_mlflow_takes() -> None:
    key, value = shared_view(NAME, comparison_view(), 1_700_000_000_000)
    assert key.startswith("mlflow.sharedViewState.")
    assert len(value) < 5000
    assert json.loads(value)["state"].startswith("deflate;")
