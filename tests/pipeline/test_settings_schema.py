"""The schemas that editors read: what they say of keys, and that they accept and refuse what the settings do."""

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipeline.config import ROOT, Config, load
from pipeline.machine import Machine, load_machine
from pipeline.presets import PRESETS, as_params
from pipeline.settings_file import Settings, _plain, read
from pipeline.settings_schema import FILES, about, keys_of, schema_of, text_of
from tests.pipeline.test_config import GOOD

NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))
SECTIONS = Settings.__subclasses__()
KEY = re.compile(r"\s*(# )?[\w]+:( |$)")


def accepted(model: type[Settings], path: Path) -> bool:
    """Whether the schema takes a file, by a validator that is not ours."""
    return jsonschema.Draft202012Validator(schema_of(model)).is_valid(_plain(read(path)))


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_what_the_settings_give(name: str) -> None:
    assert (ROOT / name).read_text() == text_of(FILES[name]), "run: python -m pipeline.settings_schema"


@pytest.mark.parametrize("model", FILES.values(), ids=FILES)
def test_they_are_schemas(model: type[Settings]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema_of(model))


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_key_is_described_once_and_no_other(section: type[Settings]) -> None:
    assert list(keys_of(section)) == sorted(keys_of(section), key=list(keys_of(section)).index)
    assert keys_of(section).keys() == section.model_fields.keys()
    assert all(keys_of(section).values())
    assert about(section).endswith((".", ":", ")."))


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_valid_and_names_the_schema(name: str) -> None:
    preset = PRESETS / f"{name}.yaml"
    assert preset.read_text().startswith("# yaml-language-server: $schema=../params.schema.json\n")
    assert accepted(Config, preset)


def test_the_schema_of_a_preset_that_was_adopted_lies_beside_it() -> None:
    assert as_params(PRESETS / "smoke.yaml").startswith("# yaml-language-server: $schema=params.schema.json\n")
    assert (ROOT / "params.yaml").read_text().startswith("# yaml-language-server: $schema=params.schema.json\n")


def test_every_key_of_the_default_study_has_a_comment() -> None:
    """On its own line, but for tasks, of which one comment says what they hold."""
    lines = (PRESETS / "scenes.yaml").read_text().splitlines()
    bare = [line for line in lines if KEY.match(line) and "#" not in line.lstrip(" #") and "{kind: " not in line]
    assert bare == ["  scenes:"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  lr: 1e-3", "  lrr: 1e-3"),
        ("  lr: 1e-3", "  lr: '1e-3'"),
        ("  lr: 1e-3", "  lr: fast"),
        ("  lr: 1e-3", "  lr: -1"),
        ("  lr: 1e-3", "  lr: true"),
        ("  lr: 1e-3", "  epochs: 1.5"),
        ("  lr: 1e-3", "  optimiser: adam"),
        ("  lr: 1e-3", "  augment: {flop: 0.5}"),
        ("kind: classification", "kind: clasification"),
        ("kind: classification", "knd: classification"),
        ("reader: scenes", "reader: scene"),
        ("reader: scenes", "reader: 'my.module:'"),
        ("[32, 32]", "[32]"),
        ("[32, 32]", "32"),
        ("[2x, ", "[true, "),
        ("[2x, ", "[{flop: 1, params: 1}, "),
        ("[2x, 1e6, 3000000]", "[]"),
        ("{name: test_resnet}", "{pretrained: false}"),
        ("moe: {}", "moe: {top_k: 0}"),
        ("moe: {}", "moe: {placement: prnted}"),
        ("adapt: {}", "adapt: {own_modes: {x: {prun: 1}}}"),
        ("report: {}\n", ""),
        ("seed: 0", "seed: 0\nsed: 1"),
        ("seed: 0", "seed: 4294967296"),
    ],
)
def test_the_schema_refuses_what_the_settings_refuse(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(GOOD)
    assert accepted(Config, path)
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError):
        load(path)
    assert not accepted(Config, path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("reader: scenes", "reader: my.module:build"),
        ("size: [32, 32]", "size: [32, 48], batch: 4, root: here"),
        ("[2x, ", "[{params: 2x, flops: 1e9}, "),
        ("  lr: 1e-3", "  lr: 1"),
        ("  lr: 1e-3", "  norm_images: null"),
        ("moe: {}", "moe: {placement: ['layers.2*']}"),
    ],
)
def test_the_schema_accepts_what_the_settings_accept(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "params.yaml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    load(path)
    assert accepted(Config, path)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("workers: 8", True),
        ("workers: [2, 8]", True),
        ("gpu: null\ngpus_per_worker: 0.5\nroots: {a: b}", True),
        ("workers: [1, 2, 3]", False),
        ("workers: -1", False),
        ("worker: 2", False),
        ("jobs: '2'", False),
        ("roots: [a]", False),
        ("checkpoints: 1", False),
    ],
)
def test_machine_settings_likewise(tmp_path: Path, text: str, right: Any) -> None:
    path = tmp_path / "machine.yaml"
    path.write_text(text + "\n")
    assert accepted(Machine, path) == right
    if right:
        load_machine(path)
    else:
        with pytest.raises(ValueError):
            load_machine(path)
