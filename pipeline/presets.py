"""A study that ships with the project -> the params.yaml of this folder, and its data's place in machine.yaml."""

from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.config import ROOT, load
from pipeline.settings_file import nearest

PRESETS = ROOT / "presets"


def adopt_preset(name: str, root: Path | None, base: Path = ROOT) -> str:
    """Make a preset this folder's params.yaml; edited settings are kept beside it. Gives a line saying what it did.

    `root`, the folder of the preset's data sets, goes into machine.yaml: where data lie is no part of a study. A set
    whose `root` the preset names lies there below it.
    """
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if name not in names:
        raise ValueError(f"no preset {name!r}. {nearest(name, names)}")
    text, params = (PRESETS / f"{name}.yaml").read_text(), base / "params.yaml"
    datasets = load(PRESETS / f"{name}.yaml").datasets
    needing = {key: data.root or "." for key, data in datasets.items() if data.reader != "scenes"}
    if root is not None:
        if not root.expanduser().is_dir():
            raise ValueError(f"--root {root}: no such folder")
        _remember_root(base / "machine.yaml", needing, root.expanduser().resolve())
    said = f"settings: presets/{name}.yaml"
    if params.exists() and params.read_text() not in {text, *(path.read_text() for path in PRESETS.glob("*.yaml"))}:
        params.replace(base / "params.previous.yaml")
        said += "; your edited params.yaml is kept as params.previous.yaml"
    if not params.exists() or params.read_text() != text:
        params.write_text(text)
    return said


def _remember_root(path: Path, datasets: Mapping[str, str], root: Path) -> None:
    yaml = YAML()
    machine = (yaml.load(path.read_text()) if path.exists() else None) or {}
    machine.setdefault("roots", {}).update({name: str(root / below) for name, below in datasets.items()})
    with path.open("w") as file:
        yaml.dump(machine, file)
