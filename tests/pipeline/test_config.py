"""params.yaml and machine.yaml: what is refused, and how the message helps."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.config import READERS, ROOT, TASK_KINDS, load
from pipeline.datasets import DATASETS
from pipeline.machine import load_machine, root_of

GOOD = """\
experiment: tiny
datasets:
  photos: {reader: scenes, size: [32, 32]}
tasks:
  scene: {kind: classification, dataset: photos}
backbone: {name: test_resnet}
train:
  lr: 1e-3
trees:
  budgets: [2x, 1e6, 3000000]
seed: 0
prepare: {}
affinity: {}
branched: {}
taps: {base: scene}
moe: {}
adapt: {}
report: {}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text)
    return path


def refused(folder: Path, text: str) -> list[str]:
    with pytest.raises(ValueError) as caught:
        load(write(folder, text))
    return str(caught.value).splitlines()


def test_default_file_loads() -> None:
    config = load(ROOT / "params.yaml")
    assert config.datasets.keys() >= {task.dataset for task in config.tasks.values()}
    assert config.train.lr > 0


def test_numbers_as_yaml_1_2_writes_them(tmp_path: Path) -> None:
    config = load(write(tmp_path, GOOD))
    assert config.train.lr == 1e-3
    assert config.trees.budgets == ["2x", 1e6, 3000000]
    assert config.datasets["photos"].size == (32, 32)


def test_frozen(tmp_path: Path) -> None:
    config = load(write(tmp_path, GOOD))
    with pytest.raises(ValidationError, match="frozen"):
        config.train.lr = 1.0  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("old", "new", "line", "expected"),
    [
        ("  lr: 1e-3", "  lrr: 1e-3", 8, ["train.lrr", "unknown key", "Did you mean lr?"]),
        ("size: [32", "sise: [32", 3, ["datasets.photos.sise", "Did you mean size?"]),
        ("kind: classification", "kind: clasification", 5, ["tasks.scene.kind", "Did you mean classification?"]),
        ("kind: classification", "knd: classification", 5, ["tasks.scene.knd", "Did you mean kind?"]),
        ("reader: scenes", "reader: scene", 3, ["datasets.photos.reader", "Did you mean scenes?"]),
        ("dataset: photos", "dataset: fotos", 5, ["tasks.scene.dataset", "'fotos'", "Did you mean photos?"]),
        ("lr: 1e-3", "lr: '1e-3'", 8, ["train.lr", "remove the quotes"]),
        ("lr: 1e-3", "lr: fast", 8, ["train.lr", "'fast'"]),
        ("lr: 1e-3", "lr: -1", 8, ["train.lr", "greater than 0", "-1"]),
        ("[2x, ", "[2y, ", 10, ["trees.budgets", "'2y' is no budget", "1.3x"]),
        ("{name: test_resnet}", "{pretrained: false}", 6, ["backbone.name", "missing"]),
        ("[32, 32]", "[32]", 3, ["datasets.photos.size"]),
        ("  lr: 1e-3", "  optimiser: adam", 8, ["train.optimiser", "adamw"]),
        ("  lr: 1e-3", "  augment: {flop: 0.5}", 8, ["train.augment.flop", "Did you mean flip?"]),
        ("{base: scene}", "{base: scenes}", 15, ["taps.base", "'scenes'", "Did you mean scene?"]),
        ("{base: scene}", "{tasks: [scne]}", 15, ["taps.tasks", "'scne'", "Did you mean scene?"]),
        ("{base: scene}", "{lams: [-1]}", 15, ["taps.lams", "-1"]),
        ("moe: {}", "moe: {pretrained_on: scne}", 16, ["moe.pretrained_on", "'scne'", "Did you mean scene?"]),
        ("moe: {}", "moe: {tasks: [scne]}", 16, ["moe.tasks.0", "no task 'scne'", "Did you mean scene?"]),
        ("moe: {}", "moe: {lams: [0.1, 1e-1]}", 16, ["moe.lams", "0.1 is listed twice"]),
        ("moe: {}", "moe: {tasks: [scene, scene]}", 16, ["moe.tasks", "scene is listed twice"]),
        ("moe: {}", "moe: {placement: []}", 16, ["moe.placement"]),
        ("moe: {}", "moe: {placement: prnted}", 16, ["moe.placement", "'printed' or 'text'"]),
        ("moe: {}", "moe: {top_k: 0}", 16, ["moe.top_k", "greater than 0"]),
        ("moe: {}", "moe: {momentum: 1.0}", 16, ["moe.momentum", "less than 1"]),
        ("moe: {}", "moe: {baselines: [fine_tune]}", 16, ["moe.baselines.0", "finetune"]),
        ("adapt: {}", "adapt: {tasks: [scne]}", 17, ["adapt.tasks.0", "no task 'scne'", "Did you mean scene?"]),
        ("adapt: {}", "adapt: {modes: [ful]}", 17, ["adapt.modes.0", "no mode 'ful'", "Did you mean full?"]),
        ("adapt: {}", "adapt: {modes: [full, full]}", 17, ["adapt.modes", "full is listed twice"]),
        ("adapt: {}", "adapt: {lrs: [0.1, 0.1]}", 17, ["adapt.lrs", "0.1 is listed twice"]),
        ("adapt: {}", "adapt: {lrs: []}", 17, ["adapt.lrs", "at least 1"]),
        ("adapt: {}", "adapt: {own_modes: {full: {}}}", 17, ["adapt.own_modes.full", "a mode 'full' already"]),
        ("adapt: {}", "adapt: {own_modes: {lwf: {}}}", 17, ["adapt.own_modes.lwf", "a mode 'lwf' already"]),
        ("adapt: {}", "adapt: {own_modes: {x: {prun: 1}}}", 17, ["adapt.own_modes.x.prun", "Did you mean prune?"]),
        ("adapt: {}", "adapt: {own_modes: {x: {prune: 1.0}}}", 17, ["adapt.own_modes.x.prune", "less than 1"]),
        (
            "adapt: {}",
            "adapt: {own_modes: {x: {learns: all, experts: 1}}}",
            17,
            ["adapt.own_modes.x", "experts are those that learn beside a new router", "learns: own"],
        ),
        ("adapt: {}", "adapt: {own_modes: {x: {select: most}}}", 17, ["adapt.own_modes.x", "say how many in experts"]),
    ],
)
def test_error_names_line_and_key(tmp_path: Path, old: str, new: str, line: int, expected: list[str]) -> None:
    assert old in GOOD
    messages = refused(tmp_path, GOOD.replace(old, new))
    assert any(
        message.startswith(f"{tmp_path / 'params.yaml'}:{line} ") and all(part in message for part in expected)
        for message in messages
    ), messages


def test_modes_are_the_paper_s_and_one_s_own(tmp_path: Path) -> None:
    adapt = "adapt: {own_modes: {half: {learns: all, prune: 0.5}}, modes: [half, full]}"
    config = load(write(tmp_path, GOOD.replace("adapt: {}", adapt)))
    assert config.adapt.mode("half") == config.adapt.mode("prune_1_2")
    assert config.adapt.mode("full").learns == "all"
    with pytest.raises(KeyError):
        config.adapt.mode("quarter")


def test_all_errors_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("lr:", "lrr:").replace("photos}", "fotos}").replace("2x", "2y").replace("experiment", "x")
    messages = refused(tmp_path, text)
    for part in ("train.lrr", "tasks.scene.dataset", "trees.budgets", "experiment: missing", " x: unknown"):
        assert sum(part in message for message in messages) == 1, (part, messages)
    assert len(messages) == 5


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "42\n", "datasets: 3\ntasks: [x]\n", "tasks: {scene: 5}\n"])
def test_no_params_at_all(tmp_path: Path, text: str) -> None:
    assert refused(tmp_path, text)


def test_broken_yaml_names_its_line(tmp_path: Path) -> None:
    (message, *_) = refused(tmp_path, "experiment: tiny\ndatasets: {photos: [\ntasks: }\n")
    assert "params.yaml:" in message
    assert "YAML" in message


def test_duplicate_key_is_refused(tmp_path: Path) -> None:
    (message, *_) = refused(tmp_path, GOOD + "train:\n  lr: 1\n")
    assert "YAML" in message
    assert "train" in message


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.yaml: no such file"):
        load(tmp_path / "none.yaml")


def test_machine_defaults_lie_beside_the_file(tmp_path: Path) -> None:
    machine = load_machine(tmp_path / "machine.yaml")
    assert (machine.jobs, machine.workers, machine.alone) == (1, (0, 0), True)
    assert machine.storage == str(tmp_path / "runs")
    assert machine.tracking_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.mark.parametrize(
    ("written", "storage"), [("here", "{folder}/here"), ("s3://bucket/runs", "s3://bucket/runs"), ("/disk", "/disk")]
)
def test_machine_storage(tmp_path: Path, written: str, storage: str) -> None:
    (tmp_path / "machine.yaml").write_text(f"storage: {written}\n")
    assert load_machine(tmp_path / "machine.yaml").storage == storage.format(folder=tmp_path)


def test_machine_errors_name_the_key(tmp_path: Path) -> None:
    (tmp_path / "machine.yaml").write_text("jobs: -1\nworker: 2\n")
    with pytest.raises(ValueError, match=r"yaml:1 jobs: (.|\n)*yaml:2 worker: unknown key. Did you mean workers"):
        load_machine(tmp_path / "machine.yaml")


def test_root_of_prefers_the_machine(tmp_path: Path) -> None:
    text = GOOD.replace("reader: scenes", "reader: manifest, root: data")
    config = load(write(tmp_path, text))
    machine = load_machine(tmp_path / "none.yaml")
    assert root_of("photos", config, machine, tmp_path) == tmp_path / "data"
    moved = machine.model_copy(update={"roots": {"photos": "/elsewhere"}})
    assert root_of("photos", config, moved, tmp_path) == Path("/elsewhere")
    assert root_of("photos", load(write(tmp_path, GOOD)), machine, tmp_path) is None


def test_names_are_those_of_the_registries() -> None:
    from models.tasks import TASKS

    assert sorted(TASKS) == TASK_KINDS
    assert sorted(DATASETS) == READERS


def test_import_is_light() -> None:
    """Configuration is read by every stage, and by the command line's errors: it must not wait for torch."""
    text = (
        "import sys, time; t = time.process_time(); import pipeline.config; t = time.process_time() - t;"
        "print(t, *(m for m in ('torch', 'numpy', 'pyarrow', 'ray', 'mlflow', 'timm') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, *heavy = done.stdout.split()
    assert not heavy
    assert float(seconds) < 1
