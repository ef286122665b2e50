"""README's tree is the tree."""

import re

from pipeline.config import ROOT

FOLDERS = ("models", "pipeline", "stages", "benchmarks", "presets")


def test_readme_names_every_file_and_no_other() -> None:
    tree = (ROOT / "README.md").read_text().split("## The tree")[1].split("```")[1]
    named, folder = set(), ""
    for line in tree.strip().splitlines():
        name = re.split(r"\s{2,}", line.strip())[0]
        if name.endswith("/"):
            folder = name
        elif line.startswith(" "):
            named.add(folder + name)
    there = {
        path.relative_to(ROOT).as_posix()
        for top in FOLDERS
        for path in (ROOT / top).rglob("*")
        if path.is_file() and path.suffix in (".py", ".j2", ".yaml") and path.name != "__init__.py"
    }
    assert named == there
