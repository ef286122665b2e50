"""A study that ships with the project -> the params.yaml of this folder, and its data's place in machine.yaml."""

from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.config import ROOT, Config, load
from pipeline.machine import load_machine
from pipeline.settings_file import nearest, read

PRESETS = ROOT / "presets"
MACHINE_SCHEMA = "# yaml-language-server: $schema=machine.schema.json\n"  # for editors, see settings_schema.py


def preset_path(name: str) -> Path:
    """A preset's name -> its file. ValueError names the nearest."""
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if name not in names:
        raise ValueError(f"no preset {name!r}. {nearest(name, names)}")
    return PRESETS / f"{name}.yaml"


def as_params(preset: Path) -> str:
    """A preset's file -> its text as params.yaml, which lies beside the schema that editors read."""
    return preset.read_text().replace("$schema=../", "$schema=", 1)


def roots_below(root: Path, config: Config) -> dict[str, str]:
    """The folder of a preset's data sets -> the folder of each: below it, at the `root` that the preset names."""
    if not root.expanduser().is_dir():
        raise ValueError(f"--root {root}: no such folder")
    folder = root.expanduser().resolve()
    return {name: str(folder / (data.root or ".")) for name, data in config.datasets.items() if data.reader != "scenes"}


def adopt_preset(name: str, root: Path | None, base: Path = ROOT) -> str:
    """Make a preset this folder's params.yaml; edited settings are kept beside it. Gives a line saying what it did.

    `root`, the folder of the preset's data sets, goes into machine.yaml: where data lie is no part of a study.
    """
    preset, params = preset_path(name), base / "params.yaml"
    text = as_params(preset)
    if root is not None:
        _remember_roots(base / "machine.yaml", roots_below(root, load(preset)))
    said = f"settings: presets/{name}.yaml"
    if params.exists() and params.read_text() not in {as_params(path) for path in PRESETS.glob("*.yaml")}:
        params.replace(base / "params.previous.yaml")
        said += "; your edited params.yaml is kept as params.previous.yaml"
    if not params.exists() or params.read_text() != text:
        params.write_text(text)
    return said


def _remember_roots(path: Path, roots: Mapping[str, str]) -> None:
    known = path.exists()
    if known:
        load_machine(path)  # says what is wrong with it
    machine = (read(path) if known else None) or {}
    machine["roots"] = {**(machine.get("roots") or {}), **roots}
    with path.open("w") as file:
        file.write("" if known else MACHINE_SCHEMA)
        YAML().dump(machine, file)
